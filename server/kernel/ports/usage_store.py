"""Port: what requests to models have used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from server.kernel.model_use import ModelUse, Spent


@dataclass(frozen=True)
class UseRecord:
    """One request's use, as it is kept. It is written in the same transaction as its event (`TurnStore.commit`), so it is there
    exactly once, whatever crashes."""

    number: int
    """From 1, within the turn's epoch."""
    use: ModelUse


class UsageStore(Protocol):
    """Sums over what was used. Rows outlive their sessions: who deletes a session gets no budget back. Errors: StoreUnavailable."""

    async def of_turn(self, tenant_id: str, turn_id: str) -> Spent:
        """What a turn has used so far, in all its attempts."""
        ...

    async def of_day(self, tenant_id: str, owner_id: str, day: date) -> Spent:
        """What a user's turns have used on a day (UTC)."""
        ...

    async def forget(self, before: datetime, *, limit: int) -> int:
        """Remove up to `limit` of the rows that are older; how many it were."""
        ...
