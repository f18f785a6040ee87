"""Why a push did not get through, as far as a person has to do something different about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PushRefusal(StrEnum):
    """The names of the proto enum without its prefix."""

    NON_FAST_FORWARD = "NON_FAST_FORWARD"
    """The branch holds commits that the session's work does not follow."""
    BRANCH_EXISTS = "BRANCH_EXISTS"
    """A new branch cannot be made: one with its name, or with a part of it, is there."""
    DEFAULT_BRANCH = "DEFAULT_BRANCH"
    """It is the repository's default branch, to which Treadle never pushes."""
    PROTECTED_BRANCH = "PROTECTED_BRANCH"
    """Rules of the host keep the branch."""
    HOOK_DECLINED = "HOOK_DECLINED"
    """A check of the host's did not like what the commits hold."""
    TOO_LARGE = "TOO_LARGE"
    """A file, or all of it, is larger than the host takes."""
    AUTHENTICATION = "AUTHENTICATION"
    """The host asks for credentials, or for others."""
    PERMISSION = "PERMISSION"
    """The host knows who pushes, and does not let them."""
    REPOSITORY_GONE = "REPOSITORY_GONE"
    """There is no such repository (any more), or it is hidden from these credentials."""
    NETWORK = "NETWORK"
    """The host did not answer, or not to the end: the same push may be right a moment later."""
    OTHER = "OTHER"
    """Anything else; the reason says what."""
    CONFLICT = "CONFLICT"
    """The branch has commits that cannot be merged with the session's own."""
    REWRITTEN = "REWRITTEN"
    """The branch's history was rewritten."""


@dataclass(frozen=True)
class PushOutcome:
    """How a push ended, for the session to remember."""

    commit: str = ""
    """What the remote's branch holds now; empty for a push that failed."""
    refusal: PushRefusal | None = None
    message: str = ""
    """The remote's reason."""
