"""Budgets with several requests under way at once. Pure, but for the waiting.

Nobody knows what a request will use before it has ended. Two rules make the limit hold all the same:

- What a request is known to have used counts at once, also while its answer still comes: the moment that the sum reaches the limit,
  the purse is empty, and everything under way is cut.
- A request counts as the most that it may use until more is known, and one that does not fit beside the others so waits for them. So near
  the limit requests come one after the other, and what is used beyond it is at most what one request uses before its use is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from server.kernel.errors import BudgetExhausted
from server.kernel.model_use import Budget, Spent
from server.kernel.wakeup import Wakeup


class Purse:
    """What one turn, or one user on one day, has used and may use."""

    def __init__(self, name: str, budget: Budget, spent: Spent) -> None:
        self.name = name
        """Whose it is, for people: `the turn` or `the user's day`."""
        self.budget = budget
        self._settled = spent
        self._running: dict[object, tuple[Spent, Spent]] = {}
        self._changes = Wakeup()
        self._watchers: set[Callable[[Purse], None]] = set()

    @property
    def used(self) -> Spent:
        """What has been used, requests under way included as far as it is known."""
        total = self._settled
        for _, counted in self._running.values():
            total += counted
        return total

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return self.budget.crossed_by(self.used)

    @property
    def left(self) -> tuple[int | None, int | None]:
        """Tokens and micros that are left; None where there is no limit."""
        used = self.used
        tokens = max(0, self.budget.tokens - used.tokens) if self.budget.tokens else None
        return tokens, max(0, self.budget.micros - used.micros) if self.budget.micros else None

    def fits(self, expected: Spent) -> bool:
        """Whether a request that may use so much may start now: beside the others, or alone."""
        if not self._running:
            return True
        total = self._settled + expected
        for guessed, counted in self._running.values():
            total += guessed.largest(counted)
        return not self.budget.crossed_by(total)

    def begin(self, key: object, expected: Spent) -> None:
        """A request starts."""
        self._running[key] = (expected, Spent())

    def count(self, key: object, counted: Spent) -> None:
        """What a request under way is known to have used by now. Watchers hear of it when the purse is empty."""
        if key in self._running:
            self._running[key] = (self._running[key][0], counted)
        if self.empty:
            self._tell()

    def end(self, key: object, used: Spent) -> None:
        """A request has ended, whoever hears of it when."""
        self._running.pop(key, None)
        self._settled += used
        self._changes.notify()
        if self.empty:
            self._tell()

    def learn(self, spent: Spent) -> None:
        """What the database knows, of all servers; it may know more than this one."""
        self._settled = self._settled.largest(spent)

    def watch(self, watcher: Callable[[Purse], None]) -> None:
        """Call it when the purse gets empty."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[Purse], None]) -> None:
        """Do not call it any more."""
        self._watchers.discard(watcher)

    @property
    def changes(self) -> Wakeup:
        """Notified whenever a request has ended."""
        return self._changes

    def _tell(self) -> None:
        for watcher in [*self._watchers]:
            watcher(self)


async def admit(purses: Sequence[Purse], key: object, expected: Spent) -> None:
    """Wait until a request may start, and start it. Errors: BudgetExhausted."""
    while True:
        for purse in purses:
            if purse.empty:
                raise BudgetExhausted(exhausted(purse))
        full = next((purse for purse in purses if not purse.fits(expected)), None)
        if full is None:
            break
        await full.changes.after(full.changes.count)
    for purse in purses:
        purse.begin(key, expected)


def exhausted(purse: Purse) -> str:
    """One sentence for a person."""
    limits = []
    if purse.budget.tokens:
        limits.append(f"{purse.budget.tokens:,} tokens")
    if purse.budget.micros:
        limits.append(f"{purse.budget.micros / 1e6:.2f} US dollars")
    return f"the model budget of {purse.name} is used up ({' or '.join(limits)})"
