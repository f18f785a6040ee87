"""Port: names by a small model, where names by rule would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from server.kernel.ports.model_gateway import ModelBill


@dataclass(frozen=True)
class Names:
    """What a model calls a session. Hostile: whatever becomes of it must pass the rules of `server/kernel/naming.py`."""

    title: str
    branch: str


class Namer(Protocol):
    """Asks a small model, within a hard time limit, without a worker. None for every kind of failure: a name is never worth an error.
    The caller has masked all secrets in what it hands over. What is used goes on the turn's bill."""

    async def session(self, prompt: str, *, base_branch: str, bill: ModelBill) -> Names | None:
        """A title and a branch name for what the user asked."""
        ...

    async def commit(self, diff: str, *, bill: ModelBill) -> str | None:
        """One line for a commit."""
        ...
