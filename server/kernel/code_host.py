"""What code hosts have, in one form for all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A part of a list; `next_token` asks for the next one, and is empty at the end."""

    items: tuple[Item, ...]
    next_token: str = ""


@dataclass(frozen=True)
class HostRepository:
    """A repository that a user can see."""

    name: str
    """With its owner: `acme/app`."""
    url: str
    """For Git."""
    web_url: str
    description: str
    default_branch: str
    private: bool
    may_push: bool
    updated_at: datetime | None


@dataclass(frozen=True)
class Branch:
    """A branch; `protected` where the host says so."""

    name: str
    commit: str
    protected: bool = False


class EntryKind(StrEnum):
    """What a path holds."""

    FILE = "FILE"
    DIRECTORY = "DIRECTORY"
    SYMLINK = "SYMLINK"
    SUBMODULE = "SUBMODULE"


@dataclass(frozen=True)
class Entry:
    """A path of a tree. `sha` is Git's id of what it holds; `size` in bytes, 0 for what is no file."""

    path: str
    kind: EntryKind
    sha: str
    size: int = 0


@dataclass(frozen=True)
class Contents:
    """What a path holds: a file with its bytes, or the entries of a directory."""

    entry: Entry
    data: bytes = b""
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Tree:
    """All entries of a commit's tree; `truncated` when the host gave up before the end."""

    sha: str
    entries: tuple[Entry, ...]
    truncated: bool = False


@dataclass(frozen=True)
class Change:
    """A file as it shall be: `data` None removes it. `sha` is what the caller has seen there, empty for nothing."""

    path: str
    branch: str
    message: str
    sha: str
    data: bytes | None


@dataclass(frozen=True)
class Changed:
    """What a change made: a commit, and the file's new id ("" when it was removed)."""

    commit: str
    sha: str


class PullRequestState(StrEnum):
    """How far it is."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"
    MERGED = "MERGED"


@dataclass(frozen=True)
class PullRequest:
    """A request to merge `head` into `base`."""

    number: int
    title: str
    body: str
    state: PullRequestState
    url: str
    head: str
    base: str
    head_commit: str
    draft: bool = False
    mergeable: bool | None = None
    """None while the host does not know, which it finds out when asked, and in lists."""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    from_fork: bool = False
    """Whether `head` is a branch of another repository than the one that shall have it."""

    def summary(self) -> PullRequest:
        """What is remembered of it, and told in logs."""
        return replace(self, body="", mergeable=None, created_at=None)


class MergeMethod(StrEnum):
    """How a pull request is merged."""

    MERGE = "MERGE"
    SQUASH = "SQUASH"
    REBASE = "REBASE"


@dataclass(frozen=True)
class Comparison:
    """What `head` has that `base` has not: first lines of commits, oldest first, and files by what happened to them. Cut where the host
    cuts it; `ahead_by` is not."""

    ahead_by: int
    commits: tuple[str, ...]
    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    additions: int = 0
    deletions: int = 0
