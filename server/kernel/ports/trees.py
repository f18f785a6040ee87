"""Port: what commits hold, read and changed without a worker and without a working tree."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from server.kernel.ports.repositories import Author, Diff, Repository


class Kind(StrEnum):
    """What an entry of a tree is."""

    FILE = "FILE"
    EXECUTABLE = "EXECUTABLE"
    LINK = "LINK"
    """A symbolic link; its content is where it points to. Nobody follows it."""
    DIRECTORY = "DIRECTORY"
    SUBMODULE = "SUBMODULE"


@dataclass(frozen=True)
class Entry:
    """One entry of a tree. Paths are relative, with `/` between names; the root's is empty. Names that are no UTF-8 are shown with
    backslashes, and cannot be asked for."""

    path: str
    kind: Kind
    size: int
    """Bytes; 0 of directories and submodules."""
    etag: str
    """Changes with the content: of files and links the id of their Git blob."""


@dataclass(frozen=True)
class Listing:
    """A page, in the order of Git; `next_path` is where the next one begins behind, empty at the end."""

    entries: tuple[Entry, ...]
    next_path: str = ""


@dataclass(frozen=True)
class Content:
    """A file that is being read. Whoever has it reads `chunks`, or closes it."""

    entry: Entry
    chunks: AsyncGenerator[bytes, None]


@dataclass(frozen=True)
class Write:
    """Make a file, or replace its content."""

    path: str
    content: bytes
    expected_etag: str | None = None
    """The etag of what is replaced; empty for "there must be nothing"; None for whatever is there."""
    executable: bool | None = None
    """None for as it was, or no."""


@dataclass(frozen=True)
class Staged:
    """A file's content that is on this server's disk, as Git has it, and in no commit yet."""

    id: str
    """Of its Git blob."""
    size: int
    file: Path


@dataclass(frozen=True)
class WriteStaged:
    """The same as Write, with a content that is too large for the memory."""

    path: str
    staged: Staged
    expected_etag: str | None = None
    executable: bool | None = None


@dataclass(frozen=True)
class SetMode:
    """Let a file be run, or not; its content stays."""

    path: str
    executable: bool
    expected_etag: str | None = None


@dataclass(frozen=True)
class Move:
    """Move a file, a link or a directory to where nothing is."""

    path: str
    to: str
    expected_etag: str | None = None


@dataclass(frozen=True)
class Delete:
    """Remove a file or a link; with `recursive` also a directory with all that it holds."""

    path: str
    expected_etag: str | None = None
    recursive: bool = False


@dataclass(frozen=True)
class MakeDirectory:
    """Make a directory; Git knows no empty ones, so in a commit it holds a file `.gitkeep`. One that is there is success."""

    path: str


Edit = Write | WriteStaged | SetMode | Move | Delete | MakeDirectory


@dataclass(frozen=True)
class Change:
    """What an edit did: ADDED, MODIFIED, DELETED or RENAMED. `entry` is what is there now; None for nothing."""

    path: str
    operation: str
    old_path: str = ""
    entry: Entry | None = None


Changes = tuple[Change | None, ...]
"""One per edit, in order; None for an edit that changed nothing."""


@dataclass(frozen=True)
class Edited:
    """`commit` is the one that was edited when nothing changed."""

    commit: str
    changes: Changes
    diff: Diff | None = None
    """What Git makes of it, file by file, without patches; None when nothing changed, or it was not compared: that
    would take too long, or too much is compared at the time."""


@dataclass(frozen=True)
class Match:
    """A line that was found."""

    path: str
    line: int
    text: str
    """Cut at 1,000 characters."""


class ArchiveFormat(StrEnum):
    """How an archive is packed."""

    TAR_GZ = "TAR_GZ"
    ZIP = "ZIP"


class Trees(Protocol):
    """Trees of commits in an owner's mirror. No hostile byte chooses a program, an option, or a path outside its tree; nothing is
    followed. Memory does not grow with files or trees, nothing blocks the event loop, and what streams is closed with its generator.

    Errors of all: PathInvalid, PathNotFound, NotAFile, NotADirectory as they apply; StateGone when the mirror does not hold the commit;
    TreeTooLarge for what is no tree of a person's; MirrorBusy; TooManyStreams where an owner has no share left.
    """

    async def listing(self, repository: Repository, commit: str, path: str, *, recursive: bool, after: str, limit: int) -> Listing:
        """A page of a directory's entries; with `recursive` of all files below it, without the directories. `after` is a `next_path`."""
        ...

    async def entry(self, repository: Repository, commit: str, path: str) -> Entry:
        """One entry."""
        ...

    async def read(self, repository: Repository, commit: str, path: str, *, offset: int, length: int | None) -> Content:
        """A file's bytes, or a link's target, in pieces of at most 256 KiB. Beyond the end there are none."""
        ...

    async def edit(
        self, repository: Repository, commit: str, edits: Sequence[Edit], *, author: Author, at: datetime, message: Callable[[Changes], str]
    ) -> Edited:
        """A commit on top of `commit` with all edits, or none. It is durable when this returns, and kept for two weeks without `keep`.
        `message` makes its message of what the edits did.
        Errors: FileChanged when an etag is not the expected one; FileExists; PathInvalid, FileTooLarge, InvalidField, also for what no
        checkout could bear."""
        ...

    async def check(self, repository: Repository, commit: str, path: str, etag: str | None) -> None:
        """Whether a write to `path` would be refused, before its content is there. Errors: as `edit`."""
        ...

    def staged(self, repository: Repository, size: int, chunks: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Staged]:
        """A content of exactly `size` bytes, taken from `chunks`, for an edit within the block; behind it only commits have it, and
        when the server is killed meanwhile, what there is of it is removed later. Errors: those of `chunks`."""
        ...

    async def keep(self, repository: Repository, session_id: str, commit: str) -> None:
        """The session's commits up to this one are kept for as long as there is the session."""
        ...

    async def archive(self, repository: Repository, commit: str, path: str, archive: ArchiveFormat) -> AsyncGenerator[bytes, None]:
        """All files of a directory, packed. What `.gitattributes` says of archives is ignored: it is as hostile as the rest."""
        ...

    async def names(self, repository: Repository, commit: str, pattern: str, *, path: str, limit: int) -> list[Entry]:
        """At most `limit` of the files below `path` whose path matches: a glob when it holds one of `*?[`, else a part of
        it, upper and lower case alike. Errors: SearchTooSlow."""
        ...

    async def grep(
        self, repository: Repository, commit: str, pattern: str, *, path: str, regex: bool, ignore_case: bool, limit: int
    ) -> tuple[list[Match], bool]:
        """At most `limit` lines of text files below `path`, and whether there may be more. Errors: InvalidField for what is no regular
        expression, SearchTooSlow."""
        ...

    async def patch(self, repository: Repository, base: str, head: str, *, path: str) -> AsyncGenerator[bytes, None]:
        """The difference of two commits as one patch for `git apply`, binary files included."""
        ...
