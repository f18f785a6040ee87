"""Inputs and requests as whoever drives the session sees them: every statement runs as `treadle_system`."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from server.db.input_store import start_with_first
from server.db.pool import Database
from server.db.queries import SQL
from server.db.rows import input_from, parse_uuid, pull_request_from, resolution_from
from server.db.turn_store import Place
from server.kernel.agent_request import OpenRequest, RequestKind
from server.kernel.identity import Principal
from server.kernel.ports.desk_store import News
from server.kernel.ports.input_store import Starter
from server.kernel.ports.turn_queue import QueueLimits
from server.kernel.ports.turn_store import Claimed
from server.kernel.turn import Turn
from server.kernel.user_input import Delivery, InputState, UserInput


class PostgresDeskStore:
    """Implements the port `DeskStore`."""

    def __init__(self, system: Database, limits: QueueLimits) -> None:
        self._system = system
        self._limits = limits

    async def news(self, turn: Turn) -> News:
        """See DeskStore."""
        async with self._system.connection() as connection:
            inputs = [input_from(row) for row in await connection.fetch(SQL["news_of_inputs"], turn.session_id, turn.id)]
            requests = await connection.fetch(SQL["news_of_requests"], turn.tenant_id, turn.id)
            pull_request = await connection.fetchval(SQL["news_of_pull_request"], turn.tenant_id, turn.session_id)
        resolved = [row for row in requests if row["outcome"] is not None]
        return News(
            untold_inputs=[each for each in inputs if each.told_version < each.version],
            interrupting=[each for each in inputs if each.state is InputState.QUEUED and each.turn_id == turn.id],
            steering=[each for each in inputs if _steers(each, turn)],
            open=[OpenRequest(row["id"], RequestKind(row["kind"]), row["expires_at"]) for row in requests if row["outcome"] is None],
            resolved=[resolution_from(row) for row in resolved],
            untold_requests=frozenset(row["id"] for row in resolved if not row["told"]),
            untold_pull_request=pull_request_from(pull_request),
        )

    async def offer(self, turn: Turn, input_id: str, *, epoch: int) -> bool:
        """See DeskStore."""
        async with self._system.connection() as connection:
            offered = await connection.fetchval(SQL["offer_input"], turn.tenant_id, turn.session_id, epoch, turn.id, input_id)
        return offered is not None

    async def withdraw(self, turn: Turn, request_id: str, *, epoch: int) -> None:
        """See DeskStore."""
        await self._execute("withdraw_request", turn, epoch, request_id)

    async def expire(self, turn: Turn, *, epoch: int) -> None:
        """See DeskStore."""
        await self._execute("expire_requests", turn, epoch)

    async def close(self, turn: Turn, *, epoch: int) -> None:
        """See DeskStore."""
        await self._execute("close_requests", turn, epoch)
        await self._execute("take_offers_back", turn, epoch)

    async def calls(self, replica: str) -> Sequence[str]:
        """See DeskStore."""
        async with self._system.connection() as connection:
            return [str(row["session_id"]) for row in await connection.fetch(SQL["desk_calls"], replica)]

    async def start_next(self, starter: Starter, *, session_id: str = "", limit: int = 1) -> list[Claimed | Turn]:
        """See DeskStore."""
        async with self._system.connection() as connection:
            due = await connection.fetch(SQL["due_sessions"], parse_uuid(session_id), limit)
        started: list[Claimed | Turn] = []
        for row in due:
            async with self._system.transaction() as connection:
                begun = await _start(connection, row["tenant_id"], row["session_id"], starter, self._limits)
            if begun is not None:
                started.append(begun)
        return started

    async def _execute(self, statement: str, turn: Turn, epoch: int, *values: object) -> None:
        async with self._system.connection() as connection:
            await connection.execute(SQL[statement], turn.tenant_id, turn.session_id, epoch, turn.id, *values)


def _steers(each: UserInput, turn: Turn) -> bool:
    if each.state is InputState.OFFERED:
        return each.turn_id == turn.id
    return each.state is InputState.QUEUED and each.delivery is Delivery.STEER


async def _start(
    connection: asyncpg.Connection, tenant_id: str, session_id: object, starter: Starter, limits: QueueLimits
) -> Claimed | Turn | None:
    # The lock first: what the other statements see is then what nobody else can change.
    row = await connection.fetchrow(SQL["lock_due_session"], tenant_id, session_id)
    if row is None or not await connection.fetch(SQL["due_sessions"], session_id, 1):
        return None
    owner = Principal(tenant_id, row["owner_id"], row["owner_name"], row["owner_email"])
    # What was accepted when it was said is not refused now.
    place = Place(starter.replica, starter.lease_seconds, limits, bounded=False)
    return await start_with_first(connection, owner, str(session_id), (row["provider"], row["model"]), starter, place=place)
