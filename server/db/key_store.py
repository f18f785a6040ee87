"""API keys and users; system role only."""

from __future__ import annotations

from datetime import datetime

from server.db.pool import Database
from server.db.queries import SQL
from server.kernel.identity import Principal
from server.kernel.ports.key_store import KeyInForce, KeyRecord


class PostgresKeyStore:
    """Implements the port `KeyStore`."""

    def __init__(self, system: Database) -> None:
        self._system = system

    async def find(self, prefix: str) -> KeyRecord | None:
        """See KeyStore."""
        async with self._system.connection() as connection:
            row = await connection.fetchrow(SQL["find_key"], prefix)
        if row is None:
            return None
        owner = Principal(row["tenant_id"], row["user_id"], row["name"], row["email"])
        return KeyRecord(owner, row["secret_sha256"], row["expires_at"], row["last_used_at"])

    async def used(self, prefix: str, *, seconds: float) -> None:
        """See KeyStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["key_used"], prefix, seconds)

    async def add(self, owner: Principal, *, prefix: str, secret_sha256: bytes, expires_at: datetime | None) -> None:
        """See KeyStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["insert_key"], owner.tenant_id, owner.user_id, prefix, secret_sha256, expires_at)

    async def in_force(self, tenant_id: str = "", user_id: str = "") -> list[KeyInForce]:
        """See KeyStore."""
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["keys_in_force"], tenant_id, user_id)
        return [KeyInForce(*row.values()) for row in rows]

    async def revoke(self, owner: Principal, prefix: str) -> bool:
        """See KeyStore."""
        async with self._system.connection() as connection:
            return await connection.fetchval(SQL["revoke_key"], owner.tenant_id, owner.user_id, prefix) is not None

    async def ensure_user(self, user: Principal) -> bool:
        """See KeyStore."""
        async with self._system.transaction() as connection:
            await connection.execute(SQL["ensure_tenant"], user.tenant_id)
            new = await connection.fetchval(SQL["ensure_user"], user.tenant_id, user.user_id, user.name, user.email)
        return bool(new)
