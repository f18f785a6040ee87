"""The purses that turns pay from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from server.kernel.budget import Purse
from server.kernel.model_use import Budget, Spent
from server.kernel.ports.usage_store import UsageStore
from server.kernel.turn import Turn

_ROWS_AT_ONCE = 10_000


class Treasury:
    """Every turn has a purse of its own; all turns of a user share one for each day (UTC).

    The database is the authority. This process adds what its own turns use before it is written, and before each request asks what
    other servers have written: several servers overdraw a user's day by at most what is under way on the others.
    """

    def __init__(self, usage: UsageStore, *, turn: Budget, day: Budget, kept: timedelta) -> None:
        self._usage = usage
        self._turn = turn
        self._day = day
        self._kept = kept
        self._days: dict[tuple[str, str, date], Purse] = {}

    @property
    def costs_are_limited(self) -> bool:
        """Whether there is a budget of money."""
        return bool(self._turn.micros or self._day.micros)

    async def forget(self) -> int:
        """Remove what is older than it is kept, a piece at a time; how many rows. Errors: StoreUnavailable."""
        before, removed = datetime.now(UTC) - self._kept, 0
        while piece := await self._usage.forget(before, limit=_ROWS_AT_ONCE):
            removed += piece
        return removed

    async def of_turn(self, turn: Turn) -> Purse:
        """A new purse, with what the turn has used already, perhaps under another server. Errors: StoreUnavailable."""
        spent = await self._usage.of_turn(turn.tenant_id, turn.id) if self._turn else Spent()
        return Purse("the turn", self._turn, spent)

    async def of_day(self, turn: Turn) -> Sequence[Purse]:
        """The purse of the turn's user for today, as the database has it now; none when days are not limited. Errors: StoreUnavailable."""
        if not self._day:
            return ()
        today = datetime.now(UTC).date()
        key = (turn.tenant_id, turn.owner_id, today)
        if key not in self._days:
            # Requests of yesterday hold on to their purse themselves.
            self._days = {known: purse for known, purse in self._days.items() if known[2] == today}
            self._days[key] = Purse("the user's day", self._day, Spent())
        purse = self._days[key]
        purse.learn(await self._usage.of_day(*key))
        return (purse,)
