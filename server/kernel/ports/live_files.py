"""Port: the files of a workspace in which an agent works at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from server.kernel.ports.trees import Change, Content, Edit, Listing


class LiveFiles(Protocol):
    """Hostile directories, read and changed while their owner may change anything: every path is opened beneath the workspace, links are
    never followed, nothing that is no regular file is opened, Git's own directory is neither shown nor touched. What is written is whole or
    not there, and the agent's own. Etags tell states of a file apart as closely as the file system's clock does. Nothing blocks the event
    loop, memory is bounded.

    Errors of all: PathInvalid, PathNotFound, NotAFile, NotADirectory, FileTooLarge as they apply; FileUnusable for what the system refuses.
    """

    async def listing(self, workspace: Path, path: str, *, after: str, limit: int) -> Listing:
        """A page of a directory's entries, as Trees.listing."""
        ...

    async def read(self, workspace: Path, path: str, *, offset: int, length: int | None) -> Content:
        """A file's bytes, or a link's target, as Trees.read. One that shrinks meanwhile ends sooner."""
        ...

    async def check(self, workspace: Path, path: str, etag: str | None) -> None:
        """Whether a write to `path` would be refused, before its content is there. Errors: as `edit`."""
        ...

    async def edit(self, workspace: Path, edit: Edit) -> Change | None:
        """One edit; None when nothing changed. Also takes a blob's id for an etag. Errors: FileChanged."""
        ...
