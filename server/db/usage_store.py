"""Sums over what models were used, and the rows that a step adds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

import asyncpg

from server.db.pool import Database
from server.db.queries import SQL
from server.db.rows import parse_uuid
from server.kernel.model_use import Spent
from server.kernel.ports.usage_store import UseRecord
from server.kernel.turn import Turn


class PostgresUsageStore:
    """Implements the port `UsageStore` with the system role."""

    def __init__(self, system: Database) -> None:
        self._system = system

    async def of_turn(self, tenant_id: str, turn_id: str) -> Spent:
        """See UsageStore."""
        async with self._system.connection() as connection:
            row = await connection.fetchrow(SQL["uses_of_turn"], tenant_id, parse_uuid(turn_id))
        return Spent(row["tokens"], row["micros"])

    async def of_day(self, tenant_id: str, owner_id: str, day: date) -> Spent:
        """See UsageStore."""
        begin = datetime.combine(day, time(), UTC)
        async with self._system.connection() as connection:
            row = await connection.fetchrow(SQL["uses_of_day"], tenant_id, owner_id, begin, begin + timedelta(days=1))
        return Spent(row["tokens"], row["micros"])

    async def forget(self, before: datetime, *, limit: int) -> int:
        """See UsageStore."""
        async with self._system.connection() as connection:
            done: str = await connection.execute(SQL["forget_uses"], before, limit)
        return int(done.rpartition(" ")[2])


async def insert_uses(connection: asyncpg.Connection, turn: Turn, epoch: int, uses: Sequence[UseRecord]) -> None:
    """Add a step's uses, in the step's transaction."""
    rows = [
        (
            turn.tenant_id,
            turn.id,
            epoch,
            record.number,
            turn.session_id,
            turn.owner_id,
            turn.provider,
            record.use.model,
            record.use.purpose,
            record.use.tokens.input,
            record.use.tokens.output,
            record.use.tokens.cache_read,
            record.use.tokens.cache_write,
            record.use.tokens.cache_write_hour,
            record.use.tokens.reasoning,
            record.use.tokens.total,
            record.use.cost_micros,
            record.use.partial,
        )
        for record in uses
    ]
    await connection.executemany(SQL["insert_use"], rows)
