"""What a tenant's snapshots may take in the object store."""

from __future__ import annotations

from collections.abc import Callable

from server.kernel.errors import StorageExhausted
from server.kernel.identity import Principal
from server.kernel.ports.history_store import HistoryStore


class Quota:
    """Asked before anything is begun that will be stored. What has begun is stored in any case: no work is lost to a quota."""

    def __init__(self, history: HistoryStore, *, tenant_bytes: int, refused: Callable[[], None]) -> None:
        """`tenant_bytes`: 0 for no limit. `refused` is told of each refusal."""
        self._history = history
        self._tenant_bytes = tenant_bytes
        self._refused = refused

    async def check(self, principal: Principal) -> None:
        """Errors: StorageExhausted."""
        if self._tenant_bytes and (used := await self._history.stored_bytes(principal)) >= self._tenant_bytes:
            self._refused()
            raise StorageExhausted(used=used, limit=self._tenant_bytes)
