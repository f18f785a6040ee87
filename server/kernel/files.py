"""Use cases: a session's files, at any time it was at a commit, read and changed without a worker."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import structlog

from server.kernel.errors import (
    FileTooLarge,
    HeadMoved,
    InvalidField,
    KernelError,
    MirrorBusy,
    NotADirectory,
    PathNotFound,
    RequestIdReused,
    RequestTooLarge,
    SearchTooSlow,
    SnapshotNotFound,
    SnapshotUnavailable,
    StateGone,
    TooManyEdits,
    UploadSizeWrong,
    WorkspaceFailed,
)
from server.kernel.finish import Finishing
from server.kernel.history import AlreadyAnswered, Answer, LogEnd, NewSnapshot, SnapshotKind
from server.kernel.identity import Principal
from server.kernel.journal import Notes
from server.kernel.live import Live, fitting, told
from server.kernel.places import Places
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.repositories import Author, Diff, Repositories, Repository
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.trees import (
    ArchiveFormat,
    Changes,
    Content,
    Edit,
    Entry,
    Listing,
    Match,
    Move,
    Trees,
    Write,
    WriteStaged,
)
from server.kernel.quota import Quota
from server.kernel.retrieval import Retrieval
from server.kernel.session import Session
from server.kernel.trailers import NO_TRAILERS, Trailers
from server.kernel.validation import check_page_size, check_request_id

HEAD, ORIGIN = "head", "0"
DEFAULT_PAGE, MAX_PAGE = 1000, 5000
DEFAULT_FOUND, MAX_FOUND = 100, 1000
MAX_PATTERN = 1000
MAX_MESSAGE = 1000
MAX_EDITS = 1000
MAX_AT_ONCE, MAX_BYTES_AT_ONCE = 32, 64 * 1024 * 1024
"""Edits of one user that are on their way, many of them waiting for the session's others."""
DIFF_SECONDS = 20.0
MAX_PATCH_BYTES = 1024 * 1024
MAX_LISTED_FILES = 1000
MAX_NAMES = 256 * 1024
"""Characters of all paths of edits with a request_id, whose answer is remembered."""
_TRIES = 8
"""How often an edit is made anew on a head that has moved. In one process edits take turns, so only other replicas and turns move it."""
_FRESH_SECONDS = 60.0
_KEEP_SECONDS = 5.0
"""Edits come in bursts, and the git process that keeps one takes as long as it did; Git lets go of what nobody keeps after two weeks."""
_REMEMBERED = 1024
_ON_ITS_WAY_SECONDS, _LOOK_SECONDS = 10.0, 0.05
_JUST_MADE = timedelta(seconds=30)

_VERBS = {"ADDED": "Create", "MODIFIED": "Edit", "DELETED": "Delete", "RENAMED": "Move"}
_COMMIT = re.compile(r"[0-9a-f]{40}")

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


@dataclass(frozen=True)
class Edits:
    """What was done: one change per edit (None where nothing had to change), and the newest commit (empty for a live workspace)."""

    changes: Changes
    commit: str
    number: int = 0
    """Of the snapshot that was made; 0 for none."""


@dataclass(frozen=True)
class Upload:
    """What is said of a file before its bytes come."""

    path: str
    size: int
    expected_etag: str | None = None
    executable: bool | None = None
    if_head: str = ""
    message: str = ""
    request_id: str = ""


@dataclass(frozen=True)
class _Request:
    """What a caller wants of EditFiles."""

    edits: Sequence[Edit]
    if_head: str
    message: str
    """Empty for one that says what was done."""
    request_id: str
    """Empty when it cannot come again."""
    digest: str

    def answer(self, done: Edits) -> Answer:
        """What it is answered, for who asks again."""
        return Answer(self.request_id, self.digest, done.changes, done.commit, done.number)


class Files:
    """Every call asks first whether the session is the caller's."""

    def __init__(
        self,
        sessions: SessionStore,
        history: HistoryStore,
        notes: Notes,
        *,
        quota: Quota,
        trees: Trees,
        repositories: Repositories,
        retrieval: Retrieval,
        live: Live,
        codec: EventCodec,
        trailers: Trailers = NO_TRAILERS,
        upload_bytes: int,
    ) -> None:
        self._sessions = sessions
        self._history = history
        self._notes = notes
        self._quota = quota
        self._trees = trees
        self._repositories = repositories
        self._retrieval = retrieval
        self._live = live
        self._codec = codec
        # The agents' co-authors had no part in what a user edits.
        self._trailers = replace(trailers, coauthor="", coauthors={})
        self._editing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tips: dict[tuple[Repository, str], tuple[float, str]] = {}
        self._under_way: dict[str, tuple[int, int]] = {}
        """By user: edits, and bytes of them."""
        self._diffs = Places(most=4, each=2)
        self._upload_bytes = upload_bytes
        self._uploads = Places(most=8, each=4)
        self._to_keep: dict[str, tuple[State, str]] = {}
        """By session: its newest edit, until the mirror keeps it."""
        self._finishing = Finishing()
        self._ending = asyncio.Event()

    # -- reading ------------------------------------------------------------------------------------------------------------

    async def list(
        self, principal: Principal, session_id: str, *, path: str, at: str, recursive: bool, page_size: int, page_token: str
    ) -> tuple[Listing, str]:
        """A page of a directory, and the commit. Errors: as listed at FileService."""
        limit = check_page_size(page_size, default=DEFAULT_PAGE, limit=MAX_PAGE)
        session = await self._sessions.get(principal, session_id)
        commit, _, behind = page_token.partition(".")
        if behind and not _COMMIT.fullmatch(commit):
            raise InvalidField("page_token", "is not one of this call's")
        if not at and not behind and (workspace := await self._live.workspace(session)) is not None:
            if recursive:
                raise InvalidField(
                    "recursive", "a turn runs, and its workspace is listed one directory at a time; or ask for what is committed, `head`"
                )
            return await self._live.listing(workspace, path, after=page_token, limit=limit), ""
        if page_token and not behind:
            raise InvalidField("page_token", "is not one of this call's, or of a turn's workspace that is gone: list it anew")
        state = await self._state_of(principal, session, commit if behind else at)
        listing = await self._reading(
            state, lambda: self._trees.listing(state.repository, state.commit, path, recursive=recursive, after=behind, limit=limit)
        )
        # All pages are of one state, whatever becomes of the session meanwhile.
        return replace(listing, next_path=listing.next_path and f"{state.commit}.{listing.next_path}"), state.commit

    async def read(self, principal: Principal, session_id: str, *, path: str, at: str, offset: int, length: int | None) -> Content:
        """A file, or a part of it. Errors: as listed at FileService."""
        session = await self._sessions.get(principal, session_id)
        if not at and (workspace := await self._live.workspace(session)) is not None:
            return await self._live.read(workspace, path, offset=offset, length=length)
        state = await self._state_of(principal, session, at)
        return await self._reading(
            state, lambda: self._trees.read(state.repository, state.commit, path, offset=offset, length=length)
        )  # fmt: skip

    async def archive(
        self, principal: Principal, session_id: str, *, path: str, at: str, archive: ArchiveFormat
    ) -> tuple[AsyncGenerator[bytes, None], State]:
        """A directory, packed. Errors: as listed at FileService."""
        state = await self._state(principal, session_id, at)
        chunks = await self._reading(state, lambda: self._trees.archive(state.repository, state.commit, path, archive))
        return self._sent(chunks, state), state

    async def find(self, principal: Principal, session_id: str, *, pattern: str, path: str, at: str, limit: int) -> Found[Entry]:
        """Files by their names. Errors: as listed at FileService."""
        limit = _checked(pattern, limit)
        state = await self._state(principal, session_id, at)
        found = await self._reading(
            state, lambda: self._trees.names(state.repository, state.commit, pattern, path=path, limit=limit + 1)
        )  # fmt: skip
        return Found(found[:limit], len(found) > limit, state.commit, state.behind_workspace)

    async def search(
        self, principal: Principal, session_id: str, *, pattern: str, regex: bool, ignore_case: bool, path: str, at: str, limit: int
    ) -> Found[Match]:
        """Lines. Errors: as listed at FileService."""
        limit = _checked(pattern, limit)
        state = await self._state(principal, session_id, at)
        found, more = await self._reading(
            state,
            lambda: self._trees.grep(state.repository, state.commit, pattern, path=path, regex=regex, ignore_case=ignore_case, limit=limit),
        )
        return Found(found, more, state.commit, state.behind_workspace)

    async def diff(self, principal: Principal, session_id: str, *, base: str, head: str, path: str) -> Compared:
        """Two states, file by file. Errors: as listed at FileService."""
        older, newer = await self._both(principal, session_id, base, head, path)
        with self._diffs.taken(principal.user_id):
            diff = await self._reading(newer, lambda: self._difference(older, newer, path), older)
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
            raise StateGone(newer.commit, error.message) from error

    async def patch(
        self, principal: Principal, session_id: str, *, base: str, head: str, path: str
    ) -> tuple[AsyncGenerator[bytes, None], State]:
        """The same as one patch. Errors: as listed at FileService."""
        older, newer = await self._both(principal, session_id, base, head, path)
        patch = self._trees.patch
        chunks = await self._reading(newer, lambda: patch(newer.repository, older.commit, newer.commit, path=path), older)
        return self._sent(chunks, newer, older), newer

    # -- writing ------------------------------------------------------------------------------------------------------------

    async def edit(
        self, principal: Principal, session_id: str, edits: Sequence[Edit], *, if_head: str, message: str, request_id: str = ""
    ) -> Edits:
        """Errors: as listed at FileService.EditFiles."""
        check_request_id(request_id)
        if not 0 < len(edits) <= MAX_EDITS:
            raise InvalidField("edits", f"1 to {MAX_EDITS:,}")
        for edit in edits:
            if isinstance(edit, Write) and len(edit.content) > self._upload_bytes:
                raise FileTooLarge(edit.path, limit=self._upload_bytes)
        _check_message(message)
        session = await self._sessions.get(principal, session_id)
        digest = await asyncio.to_thread(_digest, edits, if_head, message) if request_id else ""
        request = _Request(edits, if_head, message, request_id, digest)
        call = self._once(principal, session, request) if request_id else self._edit(principal, session, request)
        # A caller who leaves takes nothing back: a head that has moved is told of, and what waits counts until it is done.
        return await self._finishing.run(self._counted(principal.user_id, edits, call))

    async def upload(self, principal: Principal, session_id: str, upload: Upload, chunks: AsyncIterator[bytes]) -> Edits:
        """One write, with a content that comes piece by piece. Errors: as listed at FileService.UploadFile, and those of `chunks`."""
        check_request_id(upload.request_id)
        _check_message(upload.message)
        if upload.size > self._upload_bytes:
            raise FileTooLarge(upload.path, limit=self._upload_bytes)
        with self._uploads.taken(principal.user_id):
            session = await self._sessions.get(principal, session_id)
            await self._quota.check(principal)
            # What comes again may have been done, and then nothing is any more as it expected.
            if not upload.request_id or await self._history.answered(principal, session.id, upload.request_id) is None:
                await self._check(principal, session, upload)
            pieces = _exactly(chunks, upload)
            async with aclosing(pieces), self._trees.staged(session.repository, upload.size, pieces) as staged:
                edit = WriteStaged(upload.path, staged, upload.expected_etag, upload.executable)
                call = self.edit(
                    principal, session_id, [edit], if_head=upload.if_head, message=upload.message, request_id=upload.request_id
                )  # fmt: skip
                return await self._finishing.run_holding(call)

    async def _check(self, principal: Principal, session: Session, upload: Upload) -> None:
        """What would be refused at the end, before the bytes come."""
        if session.active_turn_id:
            if upload.if_head:
                raise InvalidField("if_head", "a turn runs, and its workspace is no commit")
            await self._live.check(session, upload.path, upload.expected_etag)
            return
        state = await self._state_of(principal, session, HEAD)
        if upload.if_head not in {"", state.commit}:
            raise HeadMoved(upload.if_head, state.commit)
        await self._reading(state, lambda: self._trees.check(state.repository, state.commit, upload.path, upload.expected_etag))

    async def finished(self) -> None:
        """Wait for the edits that are under way, at the server's end."""
        self._ending.set()
        await self._finishing.finished()

    async def _counted(self, user_id: str, edits: Sequence[Edit], call: Coroutine[Any, Any, Edits]) -> Edits:
        """Errors: TooManyEdits; those of the call."""
        size = sum(len(edit.content) for edit in edits if isinstance(edit, Write))
        count, held = self._under_way.get(user_id, (0, 0))
        if count >= MAX_AT_ONCE or (count and held + size > MAX_BYTES_AT_ONCE):
            call.close()
            raise TooManyEdits(MAX_AT_ONCE)
        self._under_way[user_id] = (count + 1, held + size)
        try:
            return await call
        finally:
            count, held = self._under_way.pop(user_id)
            if count > 1:
                self._under_way[user_id] = (count - 1, held - size)

    async def _once(self, principal: Principal, session: Session, request: _Request) -> Edits:
        """The first answer, if there is one. Where edits are commits that is only seen when they are made again, and come to nothing: by
        an answer that cannot be given twice, or because something is not as they expect it any more. Errors: RequestIdReused, those of
        `_edit`."""
        names = sum(len(edit.path) + len(edit.to if isinstance(edit, Move) else "") for edit in request.edits)
        if names > MAX_NAMES:
            raise RequestTooLarge("edits with a request_id: their paths", size=names, limit=MAX_NAMES)
        if session.active_turn_id and (first := await self._answered(principal, session, request)):
            return first
        try:
            done = await self._edit(principal, session, request)
        except (AlreadyAnswered, KernelError):
            first = await self._answered(principal, session, request)
            if first is None:
                raise
            return first
        if not done.number and not await self._history.answer(principal, session.id, request.answer(done)):
            return await self._answered(principal, session, request) or done
        return done

    async def _answered(self, principal: Principal, session: Session, request: _Request) -> Edits | None:
        first = await self._history.answered(principal, session.id, request.request_id)
        if first and first.digest != request.digest:
            raise RequestIdReused(request.request_id)
        return None if first is None else Edits(first.changes, first.commit, first.number)

    async def _edit(self, principal: Principal, session: Session, request: _Request) -> Edits:
        await self._quota.check(principal)
        if not session.active_turn_id:
            return await self._commit(principal, session, request)
        if request.if_head:
            raise InvalidField("if_head", "a turn runs, and its workspace is no commit")
        return Edits(await self._live.edit(principal, session, request.edits), "")

    async def _commit(self, principal: Principal, session: Session, request: _Request) -> Edits:
        lock = self._editing.setdefault(session.id, asyncio.Lock())
        fresh = not lock.locked()
        async with lock:
            for tried in range(_TRIES):
                if not fresh or tried:
                    session = await self._sessions.get(principal, session.id)
                state = await self._state_of(principal, session, HEAD)
                if request.if_head not in {"", state.commit}:
                    raise HeadMoved(request.if_head, state.commit)
                try:
                    return await self._edited(principal, state, request)
                except HeadMoved:
                    if tried + 1 == _TRIES:
                        raise
            raise AssertionError("the last try returns or raises")

    async def _edited(self, principal: Principal, state: State, request: _Request) -> Edits:
        author, now = Author(principal.name, principal.email), datetime.now(UTC)

        def message(changes: Changes) -> str:
            return self._trailers.below(request.message or _subject(changes), session_id=state.session.id, provider="")

        edited = await self._reading(
            state, lambda: self._trees.edit(state.repository, state.commit, request.edits, author=author, at=now, message=message)
        )
        if edited.commit != state.commit:
            said = message(edited.changes)
            answer = request.answer(Edits(edited.changes, edited.commit)) if request.request_id else None
            snapshot = NewSnapshot(SnapshotKind.EDIT, edited.commit, state.commit, said, answer)
            diff = fitting(edited.diff) if edited.diff else told(edited.changes)
            facts = [
                self._codec.file_changed(diff, turn_total=False),
                self._codec.git_updated(
                    "COMMITTED",
                    repository=state.repository.url,
                    branch=state.session.branch,
                    sha=edited.commit,
                    message=said,
                    diff=diff,
                ),
            ]
            session = state.session
            recorded = await self._notes.record(
                principal,
                session.id,
                head=session.head_commit,
                snapshot=snapshot,
                facts=facts,
                end=None if session.active_turn_id else LogEnd(session.last_seq + 1, session.epoch),
            )
            self._keep_soon(state, edited.commit)
            return Edits(edited.changes, edited.commit, recorded.number)
        return Edits(edited.changes, edited.commit)

    def _keep_soon(self, state: State, commit: str) -> None:
        """The database has it: this only keeps the mirror from letting go of it some weeks later. Of several edits the last counts."""
        first = state.session.id not in self._to_keep
        self._to_keep[state.session.id] = (state, commit)
        if first:
            self._finishing.begin(self._keep_last(state.session.id))

    async def _keep_last(self, session_id: str) -> None:
        kept = None
        try:
            while (wanted := self._to_keep[session_id]) is not kept:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), _KEEP_SECONDS)
                wanted = self._to_keep[session_id]
                await self._keep(*wanted)
                kept = wanted
        finally:
            del self._to_keep[session_id]

    async def _keep(self, state: State, commit: str) -> None:
        try:
            await self._trees.keep(state.repository, state.session.id, commit)
        except (StateGone, MirrorBusy) as error:
            log.warning("edit.not_kept", session_id=state.session.id, error=error.message)

    # -- states -------------------------------------------------------------------------------------------------------------

    async def _state(self, principal: Principal, session_id: str, at: str) -> State:
        return await self._state_of(principal, await self._sessions.get(principal, session_id), at)

    async def _state_of(self, principal: Principal, session: Session, at: str) -> State:
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
            if _COMMIT.fullmatch(at) and at == await self._origin(repository, session):
                return at
            raise

    async def _origin(self, repository: Repository, session: Session) -> str:
        """What the session began from."""
        chain = await self._history.chain(session.tenant_id, session.id, session.head_commit) if session.head_commit else ()
        return chain[0].parent if chain else await self._tip(repository, session)

    async def _both(self, principal: Principal, session_id: str, base: str, head: str, path: str) -> tuple[State, State]:
        """Two states to compare; at least one of them has `path`."""
        newer = await self._state(principal, session_id, head)
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
            await self._reading(state, lambda: self._trees.entry(state.repository, state.commit, path))
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

    async def _reading(self, state: State, call: Callable[[], Awaitable[T]], *others: State) -> T:
        """The same, after the state (and those of `others`, which it reads too) was brought here if this server does not have it, or not
        all of it: another one may have made it."""
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

    async def _sent(self, chunks: AsyncGenerator[bytes, None], *states: State) -> AsyncGenerator[bytes, None]:
        """The same, of states that are here. What turns out to be missing is brought back for who asks again: what has been sent is sent.
        Errors: those of `chunks`; SnapshotUnavailable."""
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


async def _exactly(chunks: AsyncIterator[bytes], upload: Upload) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in chunks:
        received += len(chunk)
        if received > upload.size:
            break
        yield chunk
    if received != upload.size:
        raise UploadSizeWrong(upload.path, size=upload.size, received=received)


def _check_message(message: str) -> None:
    if len(message) > MAX_MESSAGE:
        raise RequestTooLarge("message", size=len(message), limit=MAX_MESSAGE)


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


def _digest(edits: Sequence[Edit], if_head: str, message: str) -> str:
    whole = hashlib.sha256(json.dumps([if_head, message]).encode())
    for edit in edits:
        fields = {**vars(edit), "": type(edit).__name__}
        if isinstance(edit, WriteStaged):
            fields["staged"] = edit.staged.id
        whole.update(hashlib.sha256(fields.pop("content", b"")).digest() + json.dumps(fields, sort_keys=True).encode())
    return whole.hexdigest()


def _subject(changes: Changes) -> str:
    """What Git's log says of edits that come without a message."""
    made = [change for change in changes if change is not None]
    verbs = {_VERBS[change.operation] for change in made}
    verb = verbs.pop() if len(verbs) == 1 else "Edit"
    # Of a new directory the entry names it, and the path what makes Git keep it.
    names = list({change.entry.path if change.entry else change.path: change for change in made})
    if len(names) > 1:
        return f"{verb} {len(names)} files"
    return f"Move {made[0].old_path} to {names[0]}" if verb == "Move" else f"{verb} {names[0]}"
