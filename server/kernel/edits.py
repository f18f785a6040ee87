"""Use cases: a session's files are changed without a worker, as a commit or in the workspace of its running turn."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

import structlog

from server.kernel.errors import (
    FileTooLarge,
    HeadMoved,
    InvalidField,
    KernelError,
    MirrorBusy,
    RequestIdReused,
    RequestTooLarge,
    StateGone,
    TooManyEdits,
    UploadSizeWrong,
)
from server.kernel.finish import Finishing
from server.kernel.history import AlreadyAnswered, Answer, LogEnd, NewSnapshot, SnapshotKind
from server.kernel.identity import Principal
from server.kernel.journal import Notes
from server.kernel.live import Live, fitting, told
from server.kernel.places import Places
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.repositories import Author
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.trees import Changes, Edit, Move, Trees, Write, WriteStaged
from server.kernel.quota import Quota
from server.kernel.session import Session
from server.kernel.states import HEAD, State, States
from server.kernel.trailers import NO_TRAILERS, Trailers
from server.kernel.validation import check_request_id

MAX_MESSAGE = 1000
MAX_EDITS = 1000
MAX_AT_ONCE, MAX_BYTES_AT_ONCE = 32, 64 * 1024 * 1024
"""Edits of one user that are on their way, many of them waiting for the session's others."""
MAX_NAMES = 256 * 1024
"""Characters of all paths of edits with a request_id, whose answer is remembered."""
_TRIES = 8
"""How often an edit is made anew on a head that has moved. In one process edits take turns, so only other replicas and turns move it."""
_KEEP_SECONDS = 5.0
"""Edits come in bursts, and the git process that keeps one takes as long as it did; Git lets go of what nobody keeps after two weeks."""

_VERBS = {"ADDED": "Create", "MODIFIED": "Edit", "DELETED": "Delete", "RENAMED": "Move"}

log = structlog.get_logger()


@dataclass(frozen=True)
class Done:
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

    def answer(self, done: Done) -> Answer:
        """What it is answered, for who asks again."""
        return Answer(self.request_id, self.digest, done.changes, done.commit, done.number)


class Edits:
    """Every call asks first whether the session is the caller's."""

    def __init__(
        self,
        sessions: SessionStore,
        history: HistoryStore,
        notes: Notes,
        states: States,
        *,
        quota: Quota,
        trees: Trees,
        live: Live,
        codec: EventCodec,
        trailers: Trailers = NO_TRAILERS,
        upload_bytes: int,
    ) -> None:
        self._sessions = sessions
        self._history = history
        self._notes = notes
        self._states = states
        self._quota = quota
        self._trees = trees
        self._live = live
        self._codec = codec
        # The agents' co-authors had no part in what a user edits.
        self._trailers = replace(trailers, coauthor="", coauthors={})
        self._editing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way: dict[str, tuple[int, int]] = {}
        """By user: edits, and bytes of them."""
        self._upload_bytes = upload_bytes
        self._uploads = Places(most=8, each=4)
        self._to_keep: dict[str, tuple[State, str]] = {}
        """By session: its newest edit, until the mirror keeps it."""
        self._finishing = Finishing()
        self._ending = asyncio.Event()

    async def edit(
        self, principal: Principal, session_id: str, edits: Sequence[Edit], *, if_head: str, message: str, request_id: str = ""
    ) -> Done:
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

    async def upload(self, principal: Principal, session_id: str, upload: Upload, chunks: AsyncIterator[bytes]) -> Done:
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
        state = await self._states.of(principal, session, HEAD)
        if upload.if_head not in {"", state.commit}:
            raise HeadMoved(upload.if_head, state.commit)
        await self._states.reading(state, lambda: self._trees.check(state.repository, state.commit, upload.path, upload.expected_etag))

    async def finished(self) -> None:
        """Wait for the edits that are under way, at the server's end."""
        self._ending.set()
        await self._finishing.finished()

    async def _counted(self, user_id: str, edits: Sequence[Edit], call: Coroutine[Any, Any, Done]) -> Done:
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

    async def _once(self, principal: Principal, session: Session, request: _Request) -> Done:
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

    async def _answered(self, principal: Principal, session: Session, request: _Request) -> Done | None:
        first = await self._history.answered(principal, session.id, request.request_id)
        if first and first.digest != request.digest:
            raise RequestIdReused(request.request_id)
        return None if first is None else Done(first.changes, first.commit, first.number)

    async def _edit(self, principal: Principal, session: Session, request: _Request) -> Done:
        await self._quota.check(principal)
        if not session.active_turn_id:
            return await self._commit(principal, session, request)
        if request.if_head:
            raise InvalidField("if_head", "a turn runs, and its workspace is no commit")
        return Done(await self._live.edit(principal, session, request.edits), "")

    async def _commit(self, principal: Principal, session: Session, request: _Request) -> Done:
        lock = self._editing.setdefault(session.id, asyncio.Lock())
        fresh = not lock.locked()
        async with lock:
            for tried in range(_TRIES):
                if not fresh or tried:
                    session = await self._sessions.get(principal, session.id)
                state = await self._states.of(principal, session, HEAD)
                if request.if_head not in {"", state.commit}:
                    raise HeadMoved(request.if_head, state.commit)
                try:
                    return await self._edited(principal, state, request)
                except HeadMoved:
                    if tried + 1 == _TRIES:
                        raise
            raise AssertionError("the last try returns or raises")

    async def _edited(self, principal: Principal, state: State, request: _Request) -> Done:
        author, now = Author(principal.name, principal.email), datetime.now(UTC)

        def message(changes: Changes) -> str:
            return self._trailers.below(request.message or _subject(changes), session_id=state.session.id, provider="")

        edited = await self._states.reading(
            state, lambda: self._trees.edit(state.repository, state.commit, request.edits, author=author, at=now, message=message)
        )
        if edited.commit != state.commit:
            said = message(edited.changes)
            answer = request.answer(Done(edited.changes, edited.commit)) if request.request_id else None
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
            return Done(edited.changes, edited.commit, recorded.number)
        return Done(edited.changes, edited.commit)

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
