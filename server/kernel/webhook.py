"""What a code host says by itself, once it is known that it was the host."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Hint:
    """A pull request has changed."""

    url: str
    """Of the repository, checked."""
    branch: str
    """With the work."""
    number: int


@dataclass(frozen=True)
class Pushed:
    """A branch has moved."""

    url: str
    branch: str


@dataclass(frozen=True)
class InstallationChanged:
    """An app may do something else than before, there or at all."""

    installation_id: str


@dataclass(frozen=True)
class Delivery:
    """One message of a host's."""

    id: str
    """The host's own, the same when it sends it again."""
    what: Hint | Pushed | InstallationChanged | None
    """None for what nobody here wants to know."""


class Outcome(StrEnum):
    """What a delivery led to."""

    TAKEN = "TAKEN"
    IGNORED = "IGNORED"
    REPEATED = "REPEATED"
