"""Port: the code hosts that this server may reach, by name."""

from __future__ import annotations

from typing import Protocol


class Hosts(Protocol):
    """Whose credentials are for which URL. A host is the name of one (`github.com`), or a prefix that the operator allows
    (`https://git.example.org/team/`). A URL has exactly one, so what is meant for one host is never shown to another. No I/O."""

    def check_host(self, host: str) -> str:
        """The canonical form of an allowed host, also from a URL on it, or without its last slash. Errors: InvalidField."""
        ...

    def host_of(self, url: str) -> str:
        """The host of a checked URL."""
        ...

    def keeps_secrets(self, host: str) -> bool:
        """Whether what is shown to a host (in its canonical form) is read by nobody on the way, or the operator does not mind."""
        ...
