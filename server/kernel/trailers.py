"""What stands at the end of every commit's message, by Git's rules for trailers (git-interpret-trailers): who else made it, and where it
came from. What a model or a user said is only in the subject, and an agent's own words come without such lines: nobody forges one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Trailers:
    """By setting; without any, there are none."""

    coauthor: str = ""
    """`Name <address>`, for every agent."""
    coauthors: Mapping[str, str] = field(default_factory=dict)
    """The same for one agent each, where `coauthor` is empty."""
    session_link: str = ""
    """A URL with `{session_id}` in it."""

    def below(self, message: str, *, session_id: str, provider: str) -> str:
        """The message with its trailers: a last paragraph of their own."""
        lines = []
        if self.session_link:
            lines.append(f"Session: {self.session_link.replace('{session_id}', session_id)}\n")
        if coauthor := self.coauthor or self.coauthors.get(provider, ""):
            lines.append(f"Co-authored-by: {coauthor}\n")
        return f"{message}\n{''.join(lines)}" if lines else message


NO_TRAILERS = Trailers()
