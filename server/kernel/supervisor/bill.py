"""A turn's bill: what its requests to models use, told as events and kept as rows; and the end of the turn when its budget is used up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from server.kernel.budget import Purse, admit, exhausted
from server.kernel.errors import BudgetExhausted, Fenced
from server.kernel.model_use import ModelUse, Spent
from server.kernel.ports.model_gateway import Cut, ModelTrouble
from server.kernel.ports.usage_store import UseRecord
from server.kernel.turn import Outcome, TurnCode, TurnState

if TYPE_CHECKING:
    from server.kernel.supervisor.drive import Drive
    from server.kernel.supervisor.treasury import Treasury

MAX_TROUBLES = 100
"""An agent that asks for forbidden things in a loop must not fill the log."""

log = structlog.get_logger()


class TurnBill:
    """See ModelBill. One per drive of a turn; `close` lets go of the purses."""

    def __init__(self, drive: Drive, treasury: Treasury, purse: Purse) -> None:
        self._drive = drive
        self._treasury = treasury
        self._purse = purse
        self._watched: set[Purse] = {purse}
        self._cuts: list[Cut] = []
        self._numbers = 0
        self._troubles = 0
        purse.watch(self._emptied)

    @property
    def costs_are_limited(self) -> bool:
        """See ModelBill."""
        return self._treasury.costs_are_limited

    @property
    def trace_parent(self) -> str:
        """See ModelBill."""
        return self._drive.agent_trace

    async def admit(self, expected: ModelUse) -> TurnReservation:
        """See ModelBill."""
        purses = [self._purse, *await self._treasury.of_day(self._drive.turn)]
        for purse in purses:
            self._watched.add(purse)
            purse.watch(self._emptied)
        reservation = TurnReservation(self, purses)
        try:
            await admit(purses, reservation, Spent.of(expected))
        except BudgetExhausted:
            # It was empty before this turn asked for anything, so nobody has been told.
            for purse in purses:
                if purse.empty:
                    self._emptied(purse)
            raise
        return reservation

    async def trouble(self, trouble: ModelTrouble) -> None:
        """See ModelBill."""
        self._troubles += 1
        if self._troubles > MAX_TROUBLES:
            return
        log.info("model.trouble", code=trouble.code, attempt=trouble.attempt, provider_status=trouble.provider_status)
        message = trouble.message if self._troubles < MAX_TROUBLES else f"{trouble.message} (and more of this turn, which is not told)"
        fact = self._drive.ports.codec.error(
            trouble.code,
            message,
            retryable=trouble.retryable,
            fatal=False,
            attempt=trouble.attempt,
            provider_status=trouble.provider_status,
        )
        await self._drive.step("trouble", fact, key=f"trouble.{self._drive.log.epoch}.{self._troubles}")

    def secrets_changed(self) -> None:
        """See ModelBill."""
        self._drive.redactor.learn(self._drive.ports.secrets())

    def on_exhausted(self, cut: Cut) -> None:
        """See ModelBill."""
        self._cuts.append(cut)

    async def record(self, use: ModelUse) -> None:
        """Make one request's use durable, with its event."""
        self._numbers += 1
        lefts = [purse.left for purse in self._watched]
        fact = self._drive.ports.codec.usage_updated(
            use,
            tokens_left=min((tokens for tokens, _ in lefts if tokens is not None), default=None),
            micros_left=min((micros for _, micros in lefts if micros is not None), default=None),
        )
        key = f"usage.{self._drive.log.epoch}.{self._numbers}"
        try:
            await self._drive.step("usage", fact, key=key, uses=(UseRecord(self._numbers, use),))
        except Fenced as error:
            # Another server has the turn: this one cannot write for it any more. At most what was under way here stays uncounted.
            log.warning("model.use_not_recorded", error=error.message, tokens=use.tokens.total)

    def close(self) -> None:
        """The turn asks for nothing more."""
        for purse in self._watched:
            purse.unwatch(self._emptied)

    def _emptied(self, purse: Purse) -> None:
        """Nothing is left: end what is under way, and the turn."""
        for cut in self._cuts:
            cut()
        self._drive.fail(Outcome(TurnState.FAILED, TurnCode.BUDGET, exhausted(purse)))


class TurnReservation:
    """See Reservation."""

    def __init__(self, bill: TurnBill, purses: Sequence[Purse]) -> None:
        self._bill = bill
        self._purses = purses

    def count(self, use: ModelUse) -> None:
        """See Reservation."""
        spent = Spent.of(use)
        for purse in self._purses:
            purse.count(self, spent)

    async def settle(self, use: ModelUse | None) -> None:
        """See Reservation."""
        # Added here before it is written: a purse that has just asked the database must not count it twice.
        for purse in self._purses:
            purse.end(self, Spent.of(use) if use else Spent())
        if use is not None:
            await self._bill.record(use)
