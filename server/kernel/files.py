"""Use cases: a session's files, at any time it was at a commit, read without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from server.kernel.errors import InvalidField, RequestTooLarge, SearchTooSlow, StateGone, WorkspaceFailed
from server.kernel.identity import Principal
from server.kernel.live import Live
from server.kernel.places import Places
from server.kernel.ports.repositories import Diff, Repositories
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.trees import ArchiveFormat, Content, Entry, Listing, Match, Trees
from server.kernel.states import COMMIT, State, States
from server.kernel.validation import check_page_size

DEFAULT_PAGE, MAX_PAGE = 1000, 5000
DEFAULT_FOUND, MAX_FOUND = 100, 1000
MAX_PATTERN = 1000
DIFF_SECONDS = 20.0
MAX_PATCH_BYTES = 1024 * 1024
MAX_LISTED_FILES = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class Compared:
    """The difference of two states."""

    diff: Diff
    base: str
    head: str
    behind_workspace: bool


@dataclass(frozen=True)
class Found(Generic[T]):
    """What a search has found, and in which commit."""

    found: Sequence[T]
    truncated: bool
    """Whether there is more."""
    commit: str
    behind_workspace: bool


class Files:
    """Every call asks first whether the session is the caller's."""

    def __init__(self, sessions: SessionStore, states: States, *, trees: Trees, repositories: Repositories, live: Live) -> None:
        self._sessions = sessions
        self._states = states
        self._trees = trees
        self._repositories = repositories
        self._live = live
        self._diffs = Places(most=4, each=2)

    async def list(
        self, principal: Principal, session_id: str, *, path: str, at: str, recursive: bool, page_size: int, page_token: str
    ) -> tuple[Listing, str]:
        """A page of a directory, and the commit. Errors: as listed at FileService."""
        limit = check_page_size(page_size, default=DEFAULT_PAGE, limit=MAX_PAGE)
        session = await self._sessions.get(principal, session_id)
        commit, _, behind = page_token.partition(".")
        if behind and not COMMIT.fullmatch(commit):
            raise InvalidField("page_token", "is not one of this call's")
        if not at and not behind and (workspace := await self._live.workspace(session)) is not None:
            if recursive:
                raise InvalidField(
                    "recursive", "a turn runs, and its workspace is listed one directory at a time; or ask for what is committed, `head`"
                )
            return await self._live.listing(workspace, path, after=page_token, limit=limit), ""
        if page_token and not behind:
            raise InvalidField("page_token", "is not one of this call's, or of a turn's workspace that is gone: list it anew")
        state = await self._states.of(principal, session, commit if behind else at)
        listing = await self._states.reading(
            state, lambda: self._trees.listing(state.repository, state.commit, path, recursive=recursive, after=behind, limit=limit)
        )
        # All pages are of one state, whatever becomes of the session meanwhile.
        return replace(listing, next_path=listing.next_path and f"{state.commit}.{listing.next_path}"), state.commit

    async def read(self, principal: Principal, session_id: str, *, path: str, at: str, offset: int, length: int | None) -> Content:
        """A file, or a part of it. Errors: as listed at FileService."""
        session = await self._sessions.get(principal, session_id)
        if not at and (workspace := await self._live.workspace(session)) is not None:
            return await self._live.read(workspace, path, offset=offset, length=length)
        state = await self._states.of(principal, session, at)
        return await self._states.reading(
            state, lambda: self._trees.read(state.repository, state.commit, path, offset=offset, length=length)
        )  # fmt: skip

    async def archive(
        self, principal: Principal, session_id: str, *, path: str, at: str, archive: ArchiveFormat
    ) -> tuple[AsyncGenerator[bytes, None], State]:
        """A directory, packed. Errors: as listed at FileService."""
        state = await self._states.at(principal, session_id, at)
        chunks = await self._states.reading(state, lambda: self._trees.archive(state.repository, state.commit, path, archive))
        return self._states.sent(chunks, state), state

    async def find(self, principal: Principal, session_id: str, *, pattern: str, path: str, at: str, limit: int) -> Found[Entry]:
        """Files by their names. Errors: as listed at FileService."""
        limit = _checked(pattern, limit)
        state = await self._states.at(principal, session_id, at)
        found = await self._states.reading(
            state, lambda: self._trees.names(state.repository, state.commit, pattern, path=path, limit=limit + 1)
        )  # fmt: skip
        return Found(found[:limit], len(found) > limit, state.commit, state.behind_workspace)

    async def search(
        self, principal: Principal, session_id: str, *, pattern: str, regex: bool, ignore_case: bool, path: str, at: str, limit: int
    ) -> Found[Match]:
        """Lines. Errors: as listed at FileService."""
        limit = _checked(pattern, limit)
        state = await self._states.at(principal, session_id, at)
        found, more = await self._states.reading(
            state,
            lambda: self._trees.grep(state.repository, state.commit, pattern, path=path, regex=regex, ignore_case=ignore_case, limit=limit),
        )
        return Found(found, more, state.commit, state.behind_workspace)

    async def diff(self, principal: Principal, session_id: str, *, base: str, head: str, path: str) -> Compared:
        """Two states, file by file. Errors: as listed at FileService."""
        older, newer = await self._states.both(principal, session_id, base, head, path)
        with self._diffs.taken(principal.user_id):
            try:
                diff = await self._states.reading(newer, lambda: self._difference(older, newer, path), older)
            except WorkspaceFailed as error:
                raise StateGone(newer.commit, error.message) from error
        return Compared(diff, older.commit, newer.commit, newer.behind_workspace)

    async def _difference(self, older: State, newer: State, path: str) -> Diff:
        try:
            async with asyncio.timeout(DIFF_SECONDS):
                return await self._repositories.diff(
                    newer.repository,
                    base=older.commit,
                    head=newer.commit,
                    path=path,
                    max_patch_bytes=MAX_PATCH_BYTES,
                    max_files=MAX_LISTED_FILES,
                )
        except TimeoutError:
            raise SearchTooSlow(DIFF_SECONDS) from None
        except WorkspaceFailed as error:
            if not error.missing:
                raise
            raise StateGone(newer.commit, error.message, missing=error.missing) from error

    async def patch(
        self, principal: Principal, session_id: str, *, base: str, head: str, path: str
    ) -> tuple[AsyncGenerator[bytes, None], State]:
        """The same as one patch. Errors: as listed at FileService."""
        older, newer = await self._states.both(principal, session_id, base, head, path)
        patch = self._trees.patch
        chunks = await self._states.reading(newer, lambda: patch(newer.repository, older.commit, newer.commit, path=path), older)
        return self._states.sent(chunks, newer, older), newer


def _checked(pattern: str, limit: int) -> int:
    if not pattern:
        raise InvalidField("pattern", "say what to look for")
    if len(pattern) > MAX_PATTERN:
        raise RequestTooLarge("pattern", size=len(pattern), limit=MAX_PATTERN)
    if "\0" in pattern or "\n" in pattern:
        raise InvalidField("pattern", "is one line of text")
    if not 0 <= limit <= MAX_FOUND:
        raise InvalidField("limit", f"0 (for {DEFAULT_FOUND}) to {MAX_FOUND}")
    return limit or DEFAULT_FOUND
