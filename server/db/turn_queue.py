"""Turns that wait for a place. Who looks at all tenants runs as `treadle_system`; a caller's own limits are looked at as `treadle_app`."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from server.db.pool import Database
from server.db.queries import SQL
from server.db.rows import claimed_from
from server.kernel.errors import TooManyTurns
from server.kernel.identity import Principal
from server.kernel.ports.turn_queue import Look, QueueLimits, Telling, Waiting, WaitReason
from server.kernel.ports.turn_store import Claimed

_STOPPED_AT_ONCE = 64
"""Their prompts are read, and each has a task while it ends; others wait for the lock meanwhile."""


class PostgresTurnQueue:
    """Implements the port `TurnQueue`."""

    def __init__(self, system: Database, limits: QueueLimits) -> None:
        self._system = system
        self._limits = limits

    async def look(self, *, limit: int) -> Look:
        """See TurnQueue."""
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["waiting_turns"], *self._running_limits, 0, limit, 0)
            due = {str(row["session_id"]): row for row in rows if row["session_id"] is not None}
            stands = {each.turn.session_id: each for each in await load_claimed(connection, list(due))} if due else {}
        return Look(
            waiting=rows[0]["waiting"],
            startable=rows[0]["startable"],
            stopped=rows[0]["stopped"],
            due=[_waiting(row, stands[session_id]) for session_id, row in due.items() if session_id in stands],
        )

    async def tell(self, tellings: Sequence[Telling]) -> frozenset[str]:
        """See TurnQueue."""
        stands = [each.waiting.stands for each in tellings]
        async with self._system.connection() as connection:
            rows = await connection.fetch(
                SQL["tell_waiting"],
                [each.turn.session_id for each in stands],
                [each.turn.id for each in stands],
                [each.epoch for each in stands],
                [each.chunk.first_seq for each in tellings],
                [each.chunk.last_seq for each in tellings],
                [each.chunk.data for each in tellings],
                [each.waiting.ahead for each in tellings],
                [each.waiting.reason for each in tellings],
                [each.title for each in tellings],
            )
        return frozenset(str(row["session_id"]) for row in rows)

    async def take(self, replica: str, *, lease_seconds: float, limit: int) -> list[Claimed]:
        """See TurnQueue."""
        async with self._system.transaction() as connection:
            # A statement of its own: the next one sees what those who had the lock before have written.
            await connection.execute(SQL["lock_queue"])
            rows = await connection.fetch(SQL["waiting_turns"], *self._running_limits, limit, 0, _STOPPED_AT_ONCE)
            chosen = [row["turn_id"] for row in rows if row["turn_id"] is not None]
            taken = await connection.fetch(SQL["take_waiting"], chosen, replica, lease_seconds) if chosen else []
            return await load_claimed(connection, [row["session_id"] for row in taken]) if taken else []

    @property
    def _running_limits(self) -> tuple[int, int]:
        return self._limits.running_of_user, self._limits.running_of_tenant


async def has_place(connection: asyncpg.Connection, owner: Principal, limits: QueueLimits) -> bool:
    """Whether one more turn of its user may run. Until the transaction ends nobody else's answer can change that."""
    if not limits.running_of_user and not limits.running_of_tenant:
        return True
    await connection.execute(SQL["lock_queue"])
    running = await connection.fetchrow(SQL["running_of"], owner.tenant_id, owner.user_id)
    return _below(running["of_user"], limits.running_of_user) and _below(running["of_tenant"], limits.running_of_tenant)


async def refuse_too_many(connection: asyncpg.Connection, owner: Principal, limits: QueueLimits) -> None:
    """Before one more turn waits. Errors: TooManyTurns."""
    await connection.execute(SQL["lock_queue"])
    waiting = await connection.fetchrow(SQL["waiting_of"], owner.tenant_id, owner.user_id)
    for whose, limit in (("user", limits.waiting_of_user), ("tenant", limits.waiting_of_tenant)):
        if not _below(waiting[f"of_{whose}"], limit):
            raise TooManyTurns(limit, whose=whose)


async def load_claimed(connection: asyncpg.Connection, session_ids: Sequence[object]) -> list[Claimed]:
    """The active turns of sessions, with all that whoever drives them needs."""
    turns = await connection.fetch(SQL["claimed_turns"], session_ids)
    sessions = {row["id"]: row for row in await connection.fetch(SQL["claimed_sessions"], session_ids)}
    return [claimed_from(row, sessions[row["session_id"]]) for row in turns if row["session_id"] in sessions]


def _below(count: int, limit: int) -> bool:
    return not limit or count < limit


def _waiting(row: asyncpg.Record, stands: Claimed) -> Waiting:
    return Waiting(stands, row["ahead"], WaitReason(row["reason"]))
