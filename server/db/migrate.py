"""Brings a database to the newest schema. Alembic is loaded only when something is missing: it costs half a second."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from server.db.errors import SchemaBehind

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SCRIPTS = Path(__file__).with_name("migrations")
_LOCK = 0x7472_6561_646C_65
"""The key of the advisory lock that makes servers which start together migrate one after the other: "treadle"."""


def newest_revision() -> str:
    """The revision that this code needs: the highest number that a file in `migrations/versions` begins with."""
    return max(path.name[:4] for path in (_SCRIPTS / "versions").glob("[0-9]*.py"))


async def check_revision(connection: asyncpg.Connection) -> None:
    """Errors: SchemaBehind when the database is not at the newest revision."""
    try:
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        found = None
    if found != newest_revision():
        raise SchemaBehind(found, newest_revision())


async def migrate(owner_url: str, *, seconds: float = 300) -> None:
    """Run what is missing, each migration in a transaction of its own, so that none holds what an earlier one has locked; safe to call from
    several servers at once. `owner_url` is of the tables' owner."""
    from sqlalchemy.ext.asyncio import create_async_engine

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(owner_url)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    try:
        async with asyncio.timeout(seconds), engine.connect() as connection:
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")  # it goes with the connection
    connection.commit()
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
