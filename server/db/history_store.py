"""The history of sessions. Callers read it as `treadle_app`; their role may not write to logs, so what moves a head runs as
`treadle_system`, on connections that nothing but callers uses, and each statement names tenant and owner."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta

import asyncpg

from server.db.pool import Database
from server.db.queries import SQL
from server.db.rows import changes_from, changes_to, parse_uuid, session_from, snapshot_from
from server.db.session_store import insert_session, load_session, lock_session, refuse_in_the_way
from server.db.transcripts import pack
from server.kernel.errors import HeadMoved, InvalidField, SnapshotExpired, SnapshotNotFound
from server.kernel.event import Chunk
from server.kernel.history import AlreadyAnswered, Answer, LogEnd, Moment, NewFork, NewSnapshot, Snapshot, SnapshotPage
from server.kernel.identity import Principal
from server.kernel.ports.history_store import Seal
from server.kernel.push_refusal import PushOutcome
from server.kernel.retention import Policy
from server.kernel.session import NewSession, Session
from server.kernel.turn import Turn

_NUMBER = re.compile(r"[0-9]{1,9}")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
"""Or how it begins, as Git shows it."""


_ANNOUNCED_SECONDS = 3600.0


class PostgresHistoryStore:
    """Implements the port `HistoryStore`."""

    def __init__(self, app: Database, callers: Database, system: Database) -> None:
        """`callers` and `system` are of one role."""
        self._app = app
        self._callers = callers
        self._system = system

    async def record(
        self, principal: Principal, session_id: str, *, head: str, snapshot: NewSnapshot, seal: Seal, end: LogEnd | None = None
    ) -> Snapshot:
        """See HistoryStore."""
        if end is not None and snapshot.restored is None and snapshot.remembered is None:
            made = await self._record_where_seen(principal, session_id, head=head, snapshot=snapshot, seal=seal, end=end)
            if made is not None:
                return made
        remembered = snapshot.remembered
        packed = await asyncio.to_thread(pack, remembered.transcript) if remembered else None
        async with self._between(principal, session_id) as (connection, position):
            if position["head_commit"] != head:
                newest = await connection.fetchrow(SQL["newest_snapshot"], principal.tenant_id, session_id)
                if newest and (newest["commit"], newest["parent"], newest["kind"]) == (snapshot.commit, snapshot.parent, snapshot.kind):
                    return snapshot_from(newest)
                raise HeadMoved(head, position["head_commit"])
            if snapshot.restored is not None:
                await connection.execute(SQL["forget_conversations"], principal.tenant_id, session_id)
                await _recall(
                    connection, principal.tenant_id, session_id, snapshot.restored, of=session_id, number=snapshot.restored.conversation
                )
            if remembered and packed:
                told = (remembered.provider, packed.data, packed.size, head)
                await connection.execute(SQL["remember"], principal.tenant_id, principal.user_id, session_id, *told)
            made = await connection.fetchrow(
                SQL["insert_snapshot"],
                principal.tenant_id,
                principal.user_id,
                session_id,
                snapshot.kind,
                snapshot.commit,
                snapshot.parent,
                snapshot.message,
            )
            if snapshot.answer is not None:
                answer = replace(snapshot.answer, commit=made["commit"], number=made["number"])
                if not await _answer(connection, principal, session_id, answer):
                    raise AlreadyAnswered
            await _append(connection, principal, session_id, seal(position["next_seq"], position["epoch"]))
            return snapshot_from(made)

    async def _record_where_seen(
        self, principal: Principal, session_id: str, *, head: str, snapshot: NewSnapshot, seal: Seal, end: LogEnd
    ) -> Snapshot | None:
        """None, and nothing, where the session is not as it was seen."""
        chunk = seal(end.next_seq, end.epoch)
        values = (
            *(principal.tenant_id, principal.user_id, session_id),
            *(snapshot.kind, snapshot.commit, snapshot.parent, snapshot.message),
            *(end.next_seq, end.epoch, head),
            *(chunk.last_seq, chunk.data),
            *_asked(snapshot.answer),
        )
        async with self._callers.connection() as connection:
            with _answered_once():
                row = await connection.fetchrow(SQL["record_where_seen"], *values)
        return row and snapshot_from(row)

    async def answer(self, principal: Principal, session_id: str, answer: Answer) -> bool:
        """See HistoryStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            return await _answer(connection, principal, session_id, answer)

    async def answered(self, principal: Principal, session_id: str, request_id: str) -> Answer | None:
        """See HistoryStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            row = await connection.fetchrow(
                SQL["edit_answered"], principal.tenant_id, principal.user_id, parse_uuid(session_id), request_id
            )
        return row and Answer(request_id, row["digest"], changes_from(row["changes"]), row["commit"], row["number"])

    async def forget_answers(self, older: timedelta) -> None:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["forget_answers"], older)

    async def moment(self, principal: Principal, session_id: str, at: str) -> Moment:
        """See HistoryStore."""
        async with self._callers.connection() as connection:
            session = await load_session(connection, principal, session_id)
            own = (principal.tenant_id, principal.user_id, session.id)
            turn, snapshot = None, 0
            if at in {"", "head"}:
                row = await connection.fetchrow(SQL["moment_now"], *own)
            elif at == "0":
                row = await connection.fetchrow(SQL["moment_of_origin"], *own)
            elif _NUMBER.fullmatch(at):
                snapshot = int(at)
                row = await connection.fetchrow(SQL["moment_of_snapshot"], *own, snapshot)
            elif _COMMIT.fullmatch(at):
                snapshot = await connection.fetchval(SQL["snapshot_of_commit"], *own, at) or 0
                row = await connection.fetchrow(SQL["moment_of_snapshot"], *own, snapshot)
            else:
                turn = parse_uuid(at)
                row = await connection.fetchrow(SQL["moment_of_turn"], *own, turn)
            if not row:
                raise SnapshotNotFound(at)
            if row.get("state") == "EXPIRED":
                raise SnapshotExpired(at)
            conversation = row["conversation"]
            if conversation is not None and not await connection.fetchval(SQL["is_kept"], principal.tenant_id, session.id, conversation):
                conversation = None
        turn_id = str(turn) if turn else ""
        return Moment(row["commit"], row["provider"], row["model"], conversation, turn_id, snapshot)

    async def fork(
        self, principal: Principal, session: NewSession, fork: NewFork, *, request_id: str, request_digest: str, seal: Seal
    ) -> bool:
        """See HistoryStore."""
        async with self._callers.transaction() as connection:
            if not await insert_session(connection, principal, session, request_id=request_id, request_digest=request_digest):
                return False
            await _recall(connection, principal.tenant_id, session.id, fork.moment, of=fork.parent_session_id, number=0)
            if fork.moment.commit:
                await connection.execute(
                    SQL["insert_fork"], principal.tenant_id, principal.user_id, session.id, fork.moment.commit, fork.base
                )
            if fork.moment.commit and fork.base == fork.moment.commit:  # nobody made it here: it is the remote's
                await connection.execute(
                    SQL["note_push"], principal.tenant_id, principal.user_id, session.id, None, fork.moment.commit, "", ""
                )
            await _append(connection, principal, session.id, seal(1, 0))
            return True

    async def note(
        self, principal: Principal, session_id: str, seal: Seal, *, branch: str | None = None, push: PushOutcome | None = None
    ) -> None:
        """See HistoryStore."""
        async with self._between(principal, session_id) as (connection, position):
            if push is not None:
                told = (branch, push.commit, push.refusal or "", push.message)
                await connection.execute(SQL["note_push"], principal.tenant_id, principal.user_id, session_id, *told)
            await _append(connection, principal, session_id, seal(position["next_seq"], position["epoch"]))

    async def list(self, principal: Principal, session_id: str, *, page_size: int, page_token: str) -> SnapshotPage:
        """See HistoryStore."""
        if page_token and not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 10):
            raise InvalidField("page_token", "is not one that ListSnapshots returned")
        async with self._app.tenant(principal.tenant_id) as connection:
            session = await load_session(connection, principal, session_id)
            before = int(page_token) if page_token else None
            rows = await connection.fetch(SQL["list_snapshots"], principal.tenant_id, principal.user_id, session.id, before, page_size + 1)
        # Only the owner makes any, who is the one who asks.
        snapshots = tuple(replace(snapshot_from(row), actor_name=principal.name) for row in rows[:page_size])
        return SnapshotPage(snapshots, str(snapshots[-1].number) if len(rows) > page_size else "")

    async def get(self, principal: Principal, session_id: str, *, number: int = 0, turn_id: str = "") -> Snapshot:
        """See HistoryStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            session = await load_session(connection, principal, session_id)
            row = await connection.fetchrow(
                SQL["get_snapshot"], principal.tenant_id, principal.user_id, session.id, number, parse_uuid(turn_id)
            )
        if row is None:
            raise SnapshotNotFound(turn_id or str(number))
        return snapshot_from(row)

    async def chain(self, tenant_id: str, session_id: str, commit: str) -> Sequence[Snapshot]:
        """See HistoryStore."""
        async with self._callers.connection() as connection:
            return [snapshot_from(row) for row in await connection.fetch(SQL["snapshot_chain"], tenant_id, session_id, commit)]

    async def newest(self, tenant_id: str, session_id: str) -> Snapshot | None:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            row = await connection.fetchrow(SQL["newest_snapshot"], tenant_id, session_id)
        return None if row is None else snapshot_from(row)

    async def checkpoint(self, turn: Turn) -> Snapshot | None:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            row = await connection.fetchrow(SQL["newest_checkpoint"], turn.tenant_id, turn.session_id, turn.id)
        return None if row is None else snapshot_from(row)

    async def stored_checkpoints(self, turn: Turn) -> Sequence[Snapshot]:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["stored_checkpoints"], turn.tenant_id, turn.session_id, turn.id)
        return [snapshot_from(row) for row in rows]

    async def pending(self, *, limit: int, after: Snapshot | None = None) -> Sequence[Snapshot]:
        """See HistoryStore."""
        behind = (after.created_at, after.session_id, after.number) if after else (None, None, None)
        async with self._system.connection() as connection:
            return [snapshot_from(row) for row in await connection.fetch(SQL["pending_snapshots"], limit, *behind)]

    async def aged(self, policy: Policy, *, limit: int, claimed_seconds: float) -> Sequence[Session]:
        """See HistoryStore."""
        kept = (policy.kept, policy.checkpoint_kept, policy.longest_chain)
        async with self._system.connection() as connection:
            return [session_from(row) for row in await connection.fetch(SQL["aged_sessions"], *kept, claimed_seconds, limit)]

    async def waiting(self, policy: Policy, *, claimed_seconds: float) -> int:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            return int(await connection.fetchval(SQL["waiting_sessions"], policy.kept, policy.checkpoint_kept, claimed_seconds))

    async def shelf(self, session: Session, policy: Policy) -> tuple[Sequence[Snapshot], frozenset[int]]:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["shelf"], session.tenant_id, session.id, policy.kept, policy.checkpoint_kept)
        return [snapshot_from(row) for row in rows], frozenset(row["number"] for row in rows if row["old"])

    async def announce(self, session: Session, key: str) -> None:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["announce_object"], session.tenant_id, session.id, key, _ANNOUNCED_SECONDS)

    async def rebase(self, old: Snapshot, made: Snapshot) -> bool:
        """See HistoryStore."""
        own = (old.tenant_id, old.session_id, old.number)
        async with self._system.connection() as connection:
            return (
                await connection.fetchval(SQL["rebase_snapshot"], *own, old.key, made.parent, made.key, made.sha256, made.size) is not None
            )

    async def expire(self, session: Session, numbers: Sequence[int]) -> int:
        """See HistoryStore."""
        async with self._system.transaction() as connection:
            await connection.execute(SQL["lock_head"], session.tenant_id, session.id)
            return len(await connection.fetch(SQL["expire_snapshots"], session.tenant_id, session.id, numbers))

    async def stored_bytes(self, principal: Principal) -> int:
        """See HistoryStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            return int(await connection.fetchval(SQL["stored_bytes"], principal.tenant_id))

    async def doomed(self, *, limit: int, after: str) -> Sequence[str]:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            return [row["prefix"] for row in await connection.fetch(SQL["doomed_objects"], limit, after)]

    async def gone(self, prefix: str, *, again_seconds: float) -> None:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["objects_gone"], prefix, again_seconds)

    async def stored(self, snapshot: Snapshot, *, key: str, sha256: str, size: int) -> None:
        """See HistoryStore."""
        own = (snapshot.tenant_id, snapshot.session_id)
        async with self._system.connection() as connection:
            if not await connection.fetchval(SQL["snapshot_stored"], *own, snapshot.number, key, sha256, size):
                # Another server was sooner, or nobody needs it any more. A statement of its own: it sees what that one has named.
                await connection.execute(SQL["announce_object"], *own, key, _ANNOUNCED_SECONDS)

    async def lost(self, snapshot: Snapshot) -> None:
        """See HistoryStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["snapshot_lost"], snapshot.tenant_id, snapshot.session_id, snapshot.number)

    @asynccontextmanager
    async def _between(self, principal: Principal, session_id: str) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Record]]:
        """A transaction in which nobody else moves the session's head or writes to its log. Errors: SessionNotFound, TurnActive."""
        async with self._callers.transaction() as connection:
            await lock_session(connection, principal, session_id)
            await refuse_in_the_way(connection, principal, session_id)
            yield connection, await connection.fetchrow(SQL["lock_between"], principal.tenant_id, principal.user_id, session_id)


async def _recall(connection: asyncpg.Connection, tenant_id: str, session_id: str, moment: Moment, *, of: str, number: int | None) -> None:
    """The session goes on with an agent and with what that remembered in session `of`: that is what it remembers of its turn `number`."""
    await connection.execute(
        SQL["recall_conversation"],
        tenant_id,
        session_id,
        of,
        moment.conversation,
        number,
        moment.provider,
        moment.model,
    )


@contextmanager
def _answered_once() -> Iterator[None]:
    """Of two at once with one request_id the second waits for the first, and is told so."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        if error.table_name != "edit_requests":
            raise
        raise AlreadyAnswered from error


def _asked(answer: Answer | None) -> tuple[str, str, str]:
    return ("", "", "") if answer is None else (answer.request_id, answer.digest, changes_to(answer.changes))


async def _answer(connection: asyncpg.Connection, principal: Principal, session_id: str, answer: Answer) -> bool:
    request_id, digest, changes = _asked(answer)
    where = (principal.tenant_id, principal.user_id, session_id)
    return bool(await connection.fetchval(SQL["answer_edit"], *where, request_id, digest, answer.commit, answer.number, changes))


async def _append(connection: asyncpg.Connection, principal: Principal, session_id: str, chunk: Chunk) -> None:
    await connection.execute(SQL["append_between"], principal.tenant_id, session_id, chunk.first_seq, chunk.last_seq, chunk.data)
