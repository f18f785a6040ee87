"""Turns and leases. What a caller may do runs as `treadle_app`; what drives turns runs as `treadle_system`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from server.db.pool import Database
from server.db.queries import SQL
from server.db.rows import parse_uuid, session_from, turn_from
from server.db.session_store import insert_session, load_session, lock_session, refuse_in_the_way
from server.db.transcripts import Packed, pack, unpack
from server.db.turn_queue import has_place, load_claimed, refuse_too_many
from server.db.turn_steps import commit_changes, commit_step
from server.db.usage_store import insert_uses
from server.kernel.errors import RequestIdReused, SessionNotFound, StoreRejected
from server.kernel.event import Chunk
from server.kernel.identity import Principal
from server.kernel.ports.turn_queue import QueueLimits
from server.kernel.ports.turn_store import Changes, Claimed, Ended, Leftover, NewTurn, Reset
from server.kernel.ports.usage_store import UseRecord
from server.kernel.push_refusal import PushOutcome
from server.kernel.session import NewSession
from server.kernel.turn import Turn


class PostgresTurnStore:
    """Implements the port `TurnStore`."""

    def __init__(self, app: Database, system: Database, limits: QueueLimits) -> None:
        self._app = app
        self._system = system
        self._limits = limits

    async def find_request(self, principal: Principal, request_id: str) -> Turn | None:
        """See TurnStore."""
        if not request_id:
            return None
        async with self._app.tenant(principal.tenant_id) as connection:
            row = await connection.fetchrow(SQL["turn_of_request"], principal.tenant_id, principal.user_id, request_id)
        return None if row is None else turn_from(row)

    async def start(
        self,
        principal: Principal,
        session: NewSession | str,
        turn: NewTurn,
        *,
        replica: str,
        lease_seconds: float,
    ) -> Claimed | Turn:
        """See TurnStore."""
        async with self._app.tenant(principal.tenant_id) as connection:
            if isinstance(session, NewSession):
                session_id = session.id
                await insert_session(connection, principal, session)
            else:
                session_id = session
                await lock_session(connection, principal, session_id)
                await refuse_in_the_way(connection, principal, session_id, turn.request_id)
            place = Place(replica, lease_seconds, self._limits)
            return await insert_turn(connection, principal, session_id, turn, place)

    async def commit(
        self,
        turn: Turn,
        *,
        expected_version: int,
        epoch: int,
        chunk: Chunk | None,
        session_title: str | None = None,
        session_branch: str | None = None,
        session_head_commit: str | None = None,
        session_push: PushOutcome | None = None,
        reset: Reset | None = None,
        uses: Sequence[UseRecord] = (),
        transcript: bytes = b"",
        worker_seq: int = 0,
        changes: Changes | None = None,
    ) -> None:
        """See TurnStore."""
        packed = await asyncio.to_thread(pack, transcript) if transcript else None
        # One statement is its own transaction, and the cheapest; what needs more of them is rare enough for a second one.
        async with self._system.transaction() if uses or changes else self._system.connection() as connection:
            await commit_step(
                connection,
                turn,
                expected_version=expected_version,
                epoch=epoch,
                chunk=chunk,
                title=session_title,
                branch=session_branch,
                head_commit=session_head_commit,
                push=session_push,
                reset=reset,
                transcript=packed,
                worker_seq=worker_seq,
            )
            if uses:
                await insert_uses(connection, turn, epoch, uses)
            if changes is not None:
                await commit_changes(connection, turn, chunk, changes)

    async def transcript(self, session_id: str, provider: str) -> bytes:
        """See TurnStore."""
        async with self._system.connection() as connection:
            row = await connection.fetchrow(SQL["transcript"], parse_uuid(session_id), provider)
        if row is None:
            return b""
        try:
            return await asyncio.to_thread(unpack, Packed(row["data"], row["size"]))
        except ValueError as damage:
            raise StoreRejected(str(damage)) from damage

    async def request_interrupt(self, principal: Principal, session_id: str, turn_id: str, *, reason: str) -> Turn | None:
        """See TurnStore."""
        wanted = parse_uuid(turn_id) if turn_id else None
        async with self._app.tenant(principal.tenant_id) as connection:
            loaded = await load_session(connection, principal, session_id)
            if turn_id and wanted is None:
                return None
            row = await connection.fetchrow(SQL["request_interrupt"], principal.tenant_id, principal.user_id, loaded.id, wanted, reason)
        return None if row is None else turn_from(row)

    async def interrupts(self, replica: str) -> Sequence[tuple[str, str]]:
        """See TurnStore."""
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["interrupts"], replica)
        return [(str(row["id"]), row["interrupt_reason"]) for row in rows]

    async def claim(self, replica: str, *, lease_seconds: float, restart: bool, limit: int) -> list[Claimed]:
        """See TurnStore."""
        async with self._system.transaction() as connection:
            taken = await connection.fetch(SQL["claim_leases"], replica, lease_seconds, restart, limit)
            return await load_claimed(connection, [row["session_id"] for row in taken]) if taken else []

    async def renew(self, replica: str, session_ids: Sequence[str], *, lease_seconds: float) -> frozenset[str]:
        """See TurnStore."""
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["renew_leases"], replica, list(session_ids), lease_seconds)
        return frozenset(str(row["session_id"]) for row in rows)

    async def repository_url(self, session_id: str) -> str:
        """See TurnStore."""
        async with self._system.connection() as connection:
            url = await connection.fetchval(SQL["repository_url"], parse_uuid(session_id))
        if url is None:
            raise SessionNotFound(session_id)
        return str(url)

    async def leftover(self, turn_id: str) -> Leftover:
        """See TurnStore."""
        async with self._system.connection() as connection:
            return Leftover(await connection.fetchval(SQL["turn_leftover"], parse_uuid(turn_id)) or Leftover.NOBODYS)

    async def ended(self, turn_id: str) -> Ended | None:
        """See TurnStore."""
        async with self._system.connection() as connection:
            turn = await connection.fetchrow(SQL["ended_turn"], parse_uuid(turn_id))
            session = turn and await connection.fetchrow(SQL["claimed_sessions"], [turn["session_id"]])
        if not turn or not session:
            return None
        owner = Principal(turn["tenant_id"], turn["owner_id"], turn["owner_name"], turn["owner_email"])
        return Ended(turn_from(turn), session_from(session), owner)

    async def rescued(self, turn_id: str) -> None:
        """See TurnStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["turn_rescued"], parse_uuid(turn_id))


@dataclass(frozen=True)
class Place:
    """Where a new turn may run; it waits where `replica` is empty, or the limits say so."""

    replica: str
    lease_seconds: float
    limits: QueueLimits
    bounded: bool = True
    """Whether it is refused when too many wait."""


async def insert_turn(connection: asyncpg.Connection, principal: Principal, session_id: str, turn: NewTurn, place: Place) -> Claimed | Turn:
    """Start a turn in a session that is locked and has none, or let it wait. Errors: RequestIdReused, TooManyTurns."""
    waits = not place.replica or not await has_place(connection, principal, place.limits)
    if waits and place.bounded:
        await refuse_too_many(connection, principal, place.limits)
    try:
        row = await connection.fetchrow(
            SQL["start_turn"],
            principal.tenant_id,
            turn.id,
            session_id,
            principal.user_id,
            turn.request_id,
            turn.request_digest,
            turn.provider,
            turn.model,
            turn.prompt,
            None if waits else place.replica,
            place.lease_seconds,
            turn.trace_parent,
            turn.approvals,
            parse_uuid(turn.input_id),
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "turns_request":
            raise
        raise RequestIdReused(turn.request_id) from error
    made = _new_turn(principal, row, turn)
    return made if waits else Claimed(made, session_from(row), principal, row["epoch"])


def _new_turn(principal: Principal, row: asyncpg.Record, turn: NewTurn) -> Turn:
    return Turn(
        id=turn.id,
        tenant_id=principal.tenant_id,
        session_id=str(row["id"]),
        owner_id=principal.user_id,
        number=row["number"],
        request_id=turn.request_id,
        request_digest=turn.request_digest,
        provider=turn.provider,
        model=turn.model,
        prompt=turn.prompt,
        trace_parent=turn.trace_parent,
        approvals=turn.approvals,
        input_id=turn.input_id,
        created_at=row["turn_created_at"],
        start_seq=row["start_seq"],
    )
