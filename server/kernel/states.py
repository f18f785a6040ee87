"""A session at any time it was at a commit, and that commit brought here when it is read."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

from server.kernel.errors import NotADirectory, PathNotFound, SnapshotNotFound, SnapshotUnavailable, StateGone
from server.kernel.identity import Principal
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.repositories import Repositories, Repository
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.trees import Trees
from server.kernel.retrieval import Retrieval
from server.kernel.session import Session

HEAD, ORIGIN = "head", "0"
COMMIT = re.compile(r"[0-9a-f]{40}")
_FRESH_SECONDS = 60.0
_REMEMBERED = 1024
_ON_ITS_WAY_SECONDS, _LOOK_SECONDS = 10.0, 0.05
_JUST_MADE = timedelta(seconds=30)

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True)
class State:
    """A session as it was at some time."""

    session: Session
    repository: Repository
    commit: str
    behind_workspace: bool = False
    """Whether "now" was asked for, and a turn runs: what its agent has changed so far is in no commit."""


class States:
    """What users read and edit, by the words that they have for it."""

    def __init__(
        self, sessions: SessionStore, history: HistoryStore, *, trees: Trees, repositories: Repositories, retrieval: Retrieval
    ) -> None:
        self._sessions = sessions
        self._history = history
        self._trees = trees
        self._repositories = repositories
        self._retrieval = retrieval
        self._tips: dict[tuple[Repository, str], tuple[float, str]] = {}

    async def at(self, principal: Principal, session_id: str, at: str) -> State:
        """A session of the caller's. `at` says when: see FileService. Errors: as `of`; SessionNotFound."""
        return await self.of(principal, await self._sessions.get(principal, session_id), at)

    async def of(self, principal: Principal, session: Session, at: str) -> State:
        """The same of a session that was read before. Errors: SnapshotNotFound, SnapshotExpired; where it has no commit yet, those of
        Repositories.fetch."""
        commit = await self._commit_at(principal, session, session.repository, at)
        return State(session, session.repository, commit, behind_workspace=not at and bool(session.active_turn_id))

    async def _commit_at(self, principal: Principal, session: Session, repository: Repository, at: str) -> str:
        if at in {"", HEAD}:
            return session.head_commit or await self._tip(repository, session)
        if at == ORIGIN:
            return await self._origin(repository, session)
        if at == session.head_commit:
            return at
        try:
            return (await self._history.moment(principal, session.id, at)).commit
        except SnapshotNotFound:
            if COMMIT.fullmatch(at) and at == await self._origin(repository, session):
                return at
            raise

    async def _origin(self, repository: Repository, session: Session) -> str:
        """What the session began from."""
        chain = await self._history.chain(session.tenant_id, session.id, session.head_commit) if session.head_commit else ()
        return chain[0].parent if chain else await self._tip(repository, session)

    async def both(self, principal: Principal, session_id: str, base: str, head: str, path: str) -> tuple[State, State]:
        """Two states to compare; at least one of them has `path`."""
        newer = await self.at(principal, session_id, head)
        if base:
            older = replace(newer, commit=await self._commit_at(principal, newer.session, newer.repository, base))
        else:
            newest = await self._history.newest(newer.session.tenant_id, newer.session.id)
            older = replace(newer, commit=newest.parent if newest else newer.commit)
        if not any([await self._has(older, path), await self._has(newer, path)]):  # asked both: it brings them here
            raise PathNotFound(path)
        return older, newer

    async def _has(self, state: State, path: str) -> bool:
        try:
            await self.reading(state, lambda: self._trees.entry(state.repository, state.commit, path))
        except (PathNotFound, NotADirectory):
            return False
        return True

    async def _tip(self, repository: Repository, session: Session) -> str:
        """Of the base branch: where the first turn will begin, if nobody pushes meanwhile."""
        key = (repository, session.base_branch)
        at, commit = self._tips.get(key, (0.0, ""))
        if not commit or time.monotonic() - at > _FRESH_SECONDS:
            commit = await self._repositories.fetch(repository, branch=session.base_branch, session_branch="", head_commit="")
            while len(self._tips) >= _REMEMBERED:
                del self._tips[next(iter(self._tips))]
            self._tips[key] = (time.monotonic(), commit)
        return commit

    async def reading(self, state: State, call: Callable[[], Awaitable[T]], *others: State) -> T:
        """What `call` gives, after the state (and those of `others`, which it reads too) was brought here if this server does not have it,
        or not all of it: another one may have made it. Errors: those of `call`, and of Retrieval; where the session has no commit yet,
        of Repositories.fetch."""
        try:
            return await call()
        except StateGone:
            if not state.session.head_commit:
                self._tips.pop((state.repository, state.session.base_branch), None)
                await self._tip(state.repository, state.session)
                return await call()
            for each in (state, *others):
                await self._brought(each)
        try:
            return await call()  # also where there was nothing to bring: another one may just have brought it
        except StateGone as error:
            await self._completed(error, state, *others)
        return await call()

    async def _completed(self, error: StateGone, *states: State) -> None:
        """See Retrieval.complete."""
        for each in states:
            log.warning("state.incomplete", session_id=each.session.id, commit=each.commit, error=error.message)
            await self._retrieval.complete(each.session, each.commit)

    async def sent(self, chunks: AsyncGenerator[bytes, None], *states: State) -> AsyncGenerator[bytes, None]:
        """The same chunks, of states that are here. What turns out to be missing is brought back for who asks again: what has been sent is
        sent. Errors: those of `chunks`; SnapshotUnavailable."""
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
        except StateGone as error:
            await self._completed(error, *states)
            state = states[0]
            if not error.missing or await self._repositories.lacks(state.repository, error.missing):
                raise
            raise SnapshotUnavailable(state.commit, "a part of it was missing on this server, and is there again: ask again") from error

    async def _brought(self, state: State) -> None:
        """See Retrieval.ensure. What another server made a moment ago is on its way into the object store: it is waited for."""
        until = time.monotonic() + _ON_ITS_WAY_SECONDS
        arrived = False
        while True:
            try:
                await self._retrieval.ensure(state.session, state.commit)
            except SnapshotUnavailable:
                if arrived or time.monotonic() > until:
                    raise
            else:
                return
            # Nothing on its way may also mean that it has come since it was looked for, so that it is there the next time.
            arrived = not await self._on_its_way(state)
            if not arrived:
                await asyncio.sleep(_LOOK_SECONDS)

    async def _on_its_way(self, state: State) -> bool:
        chain = await self._history.chain(state.session.tenant_id, state.session.id, state.commit)
        since = datetime.now(UTC) - _JUST_MADE
        return any(not each.stored and each.created_at is not None and each.created_at > since for each in chain)
