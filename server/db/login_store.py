"""Logins at code hosts, as `treadle_app`; by the database's clock."""

from __future__ import annotations

from server.db.pool import Database
from server.db.queries import SQL
from server.kernel.identity import Principal
from server.kernel.ports.login_store import LoginLimits, Turn


class PostgresLoginStore:
    """Implements the port `LoginStore`."""

    def __init__(self, app: Database) -> None:
        self._app = app

    async def begin(self, owner: Principal, id_: str, limits: LoginLimits, *, seconds: float) -> float:
        """See LoginStore."""
        whose = (owner.tenant_id, owner.user_id)
        async with self._app.tenant(owner.tenant_id) as connection:
            await connection.execute(SQL["lock_logins"], *whose)
            await connection.execute(SQL["forget_logins"], *whose, limits.seconds)
            wait: float | None = await connection.fetchval(SQL["login_wait"], *whose, limits.open, limits.rate, limits.seconds)
            if wait is not None:
                return wait
            await connection.execute(SQL["begin_login"], *whose, id_, seconds)
        return 0.0

    async def begun(self, owner: Principal, id_: str, *, seconds: float, interval: int) -> None:
        """See LoginStore."""
        async with self._app.tenant(owner.tenant_id) as connection:
            await connection.execute(SQL["begun_login"], owner.tenant_id, owner.user_id, id_, seconds, interval)

    async def ask(self, owner: Principal, id_: str) -> Turn | None:
        """See LoginStore."""
        whose = (owner.tenant_id, owner.user_id, id_)
        async with self._app.tenant(owner.tenant_id) as connection:
            row = await connection.fetchrow(SQL["lock_login"], *whose)
            if row is None:
                return None
            if row["wait"] <= 0:
                await connection.execute(SQL["asked_login"], *whose, row["interval_seconds"])
        return Turn(max(row["wait"], 0.0), row["interval_seconds"])

    async def asked(self, owner: Principal, id_: str, *, interval: int) -> None:
        """See LoginStore."""
        async with self._app.tenant(owner.tenant_id) as connection:
            await connection.execute(SQL["asked_login"], owner.tenant_id, owner.user_id, id_, interval)

    async def end(self, owner: Principal, id_: str) -> None:
        """See LoginStore."""
        async with self._app.tenant(owner.tenant_id) as connection:
            await connection.execute(SQL["end_login"], owner.tenant_id, owner.user_id, id_)
