"""The Git adapter: the port `Trees` over mirrors."""

from __future__ import annotations

import asyncio
import fnmatch
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from server.git import diff, search
from server.git.archive import pack
from server.git.command import Git, GitFailed
from server.git.comparing import Comparers
from server.git.editing import check_write, edit_commit
from server.git.keeping import keep
from server.git.mirror import Mirrors
from server.git.objects import ObjectMissing, Objects, ObjectTooLarge, Reader
from server.git.paths import page_key, page_token, parts_of
from server.git.refs import commit_id
from server.git.staging import staged
from server.git.tree_object import TREE, Node, children, entries, files, find, root
from server.kernel.errors import DownloadStalled, MirrorBusy, NotADirectory, NotAFile, SearchTooSlow, StateGone, TreeTooLarge
from server.kernel.places import Places
from server.kernel.ports.repositories import Author, Repository
from server.kernel.ports.trees import ArchiveFormat, Changes, Content, Edit, Edited, Entry, Kind, Listing, Match, Staged

STREAM_SECONDS = 1800.0
"""A download that takes longer is given up: its client reads just enough not to be cut off."""
_NAMES_SECONDS = 20.0
_LISTED = 500
_COMPARED_BYTES = 1024 * 1024
"""What edits write beyond that is not compared line by line: it would take a core for seconds, and others' edits wait for theirs."""
_WHOLE_BYTES = 1024 * 1024
"""A smaller part of a file is read at once, so that a slow client keeps nothing but its bytes."""
_COMMIT_BYTES = 1024 * 1024
_COMMITTED = re.compile(rb"^committer .* (\d{1,12}) [+-]\d{4}$", re.MULTILINE)


@dataclass(frozen=True)
class GitTrees:
    """See server/kernel/ports/trees.py."""

    git: Git
    mirrors: Mirrors
    objects: Objects
    comparers: Comparers
    lock_seconds: float
    streams: Places = field(default_factory=lambda: Places(most=12, each=4))
    """Archives, patches and large files that are sent: each has a git process until its client has all of it."""
    searches: Places = field(default_factory=lambda: Places(most=4, each=2))

    async def listing(self, repository: Repository, commit: str, path: str, *, recursive: bool, after: str, limit: int) -> Listing:
        """A page of entries."""
        parts, behind = parts_of(path), page_key(after)
        prefix = _prefix(parts)
        async with self._reader(repository, commit) as reader:
            tree = await _directory(reader, commit, parts)
            if recursive:
                page = await _first(files(reader, tree, prefix, after=behind), limit + 1)
            else:
                keyed = ((prefix + node.sort_key, node) for node in await children(reader, tree))
                page = [found for found in keyed if found[0] > behind][: limit + 1]
            shown = await entries(reader, [(key.removesuffix(b"/"), node) for key, node in page[:limit]])
        return Listing(tuple(shown), page_token(page[limit - 1][0]) if len(page) > limit else "")

    async def entry(self, repository: Repository, commit: str, path: str) -> Entry:
        """One entry."""
        parts = parts_of(path)
        async with self._reader(repository, commit) as reader:
            return await _entry(reader, commit, parts)

    async def read(self, repository: Repository, commit: str, path: str, *, offset: int, length: int | None) -> Content:
        """A file's bytes."""
        parts = parts_of(path)
        async with self._reader(repository, commit) as reader:
            entry = await _entry(reader, commit, parts)
            if entry.kind in {Kind.DIRECTORY, Kind.SUBMODULE}:
                raise NotAFile(path, entry.kind)
            left = max(0, entry.size - offset)
            wanted = left if length is None else min(length, left)
            if wanted <= _WHOLE_BYTES:
                whole = [chunk async for chunk in reader.blob(entry.etag, offset=offset, length=wanted)] if wanted else []
                return Content(entry, _all_of(whole))
        return Content(entry, self._streamed(repository, commit, lambda reader: reader.blob(entry.etag, offset=offset, length=wanted)))

    async def edit(
        self, repository: Repository, commit: str, edits: Sequence[Edit], *, author: Author, at: datetime, message: Callable[[Changes], str]
    ) -> Edited:
        """A commit with all edits, or none."""
        with _failing(commit):
            async with self.mirrors.added_to(repository, seconds=self.lock_seconds) as mirror:
                edited = await edit_commit(self.objects, mirror, commit, edits, author=author, at=at, message=message)
                if edited.commit == commit or sum(each.entry.size for each in edited.changes if each and each.entry) > _COMPARED_BYTES:
                    return edited
                owner = repository.owner_id
                return replace(edited, diff=await self.comparers.compare(mirror, commit, edited.commit, owner=owner, max_files=_LISTED))

    async def check(self, repository: Repository, commit: str, path: str, etag: str | None) -> None:
        """Whether a write would be refused."""
        async with self._reader(repository, commit) as reader:
            await check_write(reader, commit, path, etag)

    @asynccontextmanager
    async def staged(self, repository: Repository, size: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[Staged]:
        """A content without a commit. The mirror is held meanwhile: what nobody holds is cleaned."""
        with _failing(""):
            async with self.mirrors.added_to(repository, seconds=self.lock_seconds) as mirror, staged(mirror, size, chunks) as content:
                yield content

    async def keep(self, repository: Repository, session_id: str, commit: str) -> None:
        """Moves the session's private ref, only forward: somebody else may have moved it on."""
        try:
            with _failing(commit):
                async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                    await keep(self.git, self.objects, mirror, session_id, commit, only_forward=True)
        except GitFailed as error:  # mostly somebody else who moves it at this moment
            raise MirrorBusy(error.reason) from error

    async def archive(self, repository: Repository, commit: str, path: str, archive: ArchiveFormat) -> AsyncGenerator[bytes, None]:
        """All files of a directory, packed."""
        async with self._reader(repository, commit) as reader:
            tree = await _directory(reader, commit, parts_of(path))
            told = _COMMITTED.search(await reader.content(commit_id(commit), kind="commit", limit=_COMMIT_BYTES))
        at = datetime.fromtimestamp(int(told[1]) if told else 0, UTC)
        mirror = self.mirrors.path(repository)
        return self._streamed(repository, commit, lambda reader: pack(self.git, mirror, reader, tree, archive=archive, at=at))

    async def names(self, repository: Repository, commit: str, pattern: str, *, path: str, limit: int) -> list[Entry]:
        """The files whose path matches."""
        parts = parts_of(path)
        matches = _name_filter(pattern)
        with self.searches.taken(repository.owner_id):
            try:
                async with asyncio.timeout(_NAMES_SECONDS), self._reader(repository, commit) as reader:
                    tree = await _directory(reader, commit, parts)
                    return await entries(reader, await _first(_only(files(reader, tree, _prefix(parts)), matches), limit))
            except TimeoutError:
                raise SearchTooSlow(_NAMES_SECONDS) from None

    async def grep(
        self, repository: Repository, commit: str, pattern: str, *, path: str, regex: bool, ignore_case: bool, limit: int
    ) -> tuple[list[Match], bool]:
        """Lines of text files."""
        await self.entry(repository, commit, path)  # says whether there is one, and its state
        with _failing(commit), self.searches.taken(repository.owner_id):
            mirror = self.mirrors.path(repository)
            return await search.grep(self.git, mirror, commit, pattern, path=path, regex=regex, ignore_case=ignore_case, limit=limit)

    async def patch(self, repository: Repository, base: str, head: str, *, path: str) -> AsyncGenerator[bytes, None]:
        """The difference of two commits."""
        parts_of(path)
        async with self._reader(repository, head) as reader:
            for commit in (base, head):
                await root(reader, commit)
        mirror = self.mirrors.path(repository)
        return self._placed(repository, head, diff.patch(self.git, mirror, base=base, head=head, path=path))

    @asynccontextmanager
    async def _reader(self, repository: Repository, commit: str) -> AsyncIterator[Reader]:
        with _failing(commit):
            async with self.objects.reader(self.mirrors.path(repository)) as reader:
                yield reader

    def _streamed(
        self, repository: Repository, commit: str, stream: Callable[[Reader], AsyncGenerator[bytes, None]]
    ) -> AsyncGenerator[bytes, None]:
        async def read() -> AsyncGenerator[bytes, None]:
            async with self._reader(repository, commit) as reader, aclosing(stream(reader)) as chunks:
                async for chunk in chunks:
                    yield chunk

        return self._placed(repository, commit, read())

    async def _placed(self, repository: Repository, commit: str, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The same, if there is a place. Errors: TooManyStreams, DownloadStalled, StateGone, MirrorBusy."""
        until = time.monotonic() + STREAM_SECONDS
        with _failing(commit), self.streams.taken(repository.owner_id):
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
                    if time.monotonic() > until:
                        raise DownloadStalled


@contextmanager
def _failing(commit: str) -> Iterator[None]:
    """Defects, and what is no repository any more, stay what they are."""
    try:
        yield
    except ObjectMissing as error:
        raise StateGone(commit, str(error), missing=error.id) from error
    except ObjectTooLarge as error:
        raise TreeTooLarge(error.limit) from error
    except GitFailed as error:
        if missing := ObjectMissing.told_in(error.reason):
            raise StateGone(commit, str(missing), missing=missing.id) from error
        raise
    except TimeoutError as error:
        raise MirrorBusy("too many use it") from error
    except OSError as error:
        raise MirrorBusy(error.strerror or "the disk cannot be used") from error


async def _directory(reader: Reader, commit: str, parts: Sequence[bytes]) -> Node:
    node = await find(reader, commit, parts)
    if node.mode != TREE:
        raise NotADirectory(b"/".join(parts).decode())
    return node


async def _entry(reader: Reader, commit: str, parts: Sequence[bytes]) -> Entry:
    (found,) = await entries(reader, [(b"/".join(parts), await find(reader, commit, parts))])
    return found


async def _first(found: AsyncGenerator[tuple[bytes, Node], None], limit: int) -> list[tuple[bytes, Node]]:
    page = []
    async with aclosing(found):
        async for each in found:
            page.append(each)
            if len(page) >= limit:
                break
    return page


async def _only(
    found: AsyncGenerator[tuple[bytes, Node], None], matches: Callable[[str], bool]
) -> AsyncGenerator[tuple[bytes, Node], None]:
    async with aclosing(found):
        async for path, node in found:
            if matches(path.decode("utf-8", "replace")):
                yield path, node


def _name_filter(pattern: str) -> Callable[[str], bool]:
    folded = pattern.casefold()
    if not any(special in pattern for special in "*?["):
        return lambda path: folded in path.casefold()
    glob = re.compile(fnmatch.translate(folded if "/" in folded else f"*{folded}"))
    return lambda path: glob.match(path.casefold()) is not None


async def _all_of(chunks: list[bytes]) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        yield chunk


def _prefix(parts: Sequence[bytes]) -> bytes:
    return b"".join(part + b"/" for part in parts)
