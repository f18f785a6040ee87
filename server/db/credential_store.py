"""Users' credentials, sealed; as `treadle_app`, but for the change of the key."""

from __future__ import annotations

import asyncpg

from server.db.pool import Database
from server.db.queries import SQL
from server.db.rows import parse_uuid
from server.kernel.credential import Credential, CredentialKind
from server.kernel.ports.credential_store import Sealed


class PostgresCredentialStore:
    """Implements the port `CredentialStore`."""

    def __init__(self, app: Database, system: Database) -> None:
        self._app = app
        self._system = system

    async def find(self, tenant_id: str, owner_id: str, host: str) -> Sealed | None:
        """See CredentialStore."""
        async with self._app.tenant(tenant_id) as connection:
            row = await connection.fetchrow(SQL["find_credential"], tenant_id, owner_id, host)
        return _sealed_from(row) if row else None

    async def of_user(self, tenant_id: str, owner_id: str) -> list[Credential]:
        """See CredentialStore."""
        async with self._app.tenant(tenant_id) as connection:
            rows = await connection.fetch(SQL["list_credentials"], tenant_id, owner_id)
        return [_sealed_from(row).credential for row in rows]

    async def put(self, sealed: Sealed) -> Credential | None:
        """See CredentialStore."""
        new = sealed.credential
        whose, what = (new.tenant_id, new.owner_id, new.id), (new.kind, new.username, list(new.scopes), sealed.secret, new.expires_at)
        async with self._app.tenant(new.tenant_id) as connection:
            if new.version:
                row = await connection.fetchrow(SQL["replace_credential"], *whose, *what, new.version)
            else:
                row = await connection.fetchrow(SQL["insert_credential"], *whose, new.host, *what)
        return _sealed_from(row).credential if row else None

    async def delete(self, tenant_id: str, owner_id: str, id_: str) -> bool:
        """See CredentialStore."""
        if (uuid := parse_uuid(id_)) is None:
            return False
        async with self._app.tenant(tenant_id) as connection:
            return await connection.fetchval(SQL["delete_credential"], tenant_id, owner_id, uuid) is not None

    async def used(self, credential: Credential, *, seconds: float) -> None:
        """See CredentialStore."""
        async with self._app.tenant(credential.tenant_id) as connection:
            await connection.execute(SQL["credential_used"], credential.tenant_id, credential.owner_id, credential.id, seconds)

    async def all_sealed(self) -> list[Sealed]:
        """See CredentialStore."""
        async with self._system.connection() as connection:
            return [_sealed_from(row) for row in await connection.fetch(SQL["all_credentials"])]

    async def reseal(self, old: Sealed, secret: bytes) -> None:
        """See CredentialStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["reseal_credential"], old.credential.tenant_id, old.credential.id, old.secret, secret)


def _sealed_from(row: asyncpg.Record) -> Sealed:
    credential = Credential(
        id=str(row["id"]),
        tenant_id=row["tenant_id"],
        owner_id=row["owner_id"],
        host=row["host"],
        kind=CredentialKind(row["kind"]),
        username=row["username"],
        scopes=tuple(row["scopes"]),
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        version=row["version"],
    )
    return Sealed(credential, row["sealed"])
