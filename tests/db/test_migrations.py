"""The schema: made from nothing, once, by whoever comes first."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.postgres import PostgresServer, database_settings

from server.config import Settings
from server.db import migrate as module
from server.db import stores as stores_module
from server.db.errors import SchemaBehind
from server.db.migrate import check_revision, migrate, newest_revision
from server.db.queries import SQL
from server.db.stores import open_postgres
from server.embedded.postgres_home import DatabaseUrls


@pytest.fixture
async def empty(postgres: PostgresServer) -> AsyncIterator[DatabaseUrls]:
    """A database without tables."""
    await postgres.execute("CREATE DATABASE empty")
    yield postgres.urls("empty")
    await postgres.execute("DROP DATABASE empty WITH (FORCE)")


async def test_servers_that_start_together_on_an_empty_database_all_come_up(empty: DatabaseUrls) -> None:
    await asyncio.gather(*(migrate(empty.owner) for _ in range(3)))
    async with open_postgres(database_settings(empty)) as stores:
        assert await stores.turns.interrupts("r") == []


async def test_without_the_owner_an_old_schema_stops_the_start(empty: DatabaseUrls) -> None:
    settings = Settings(database_url=SecretStr(empty.app), database_system_url=SecretStr(empty.system))
    with pytest.raises(SchemaBehind, match="TREADLE_DATABASE_OWNER_URL"):
        async with open_postgres(settings):
            pass


async def test_a_newer_schema_stops_the_start(database: DatabaseUrls) -> None:
    owner = await asyncpg.connect(database.owner)
    try:
        await owner.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(SchemaBehind, match="9999"):
            await check_revision(owner)
    finally:
        await owner.close()


def test_the_newest_revision_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(module._SCRIPTS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [newest_revision()]


def test_a_server_on_a_current_database_never_loads_alembic() -> None:
    code = "import sys, server.db.stores; sys.exit(bool({'alembic', 'sqlalchemy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_every_statement_is_one_that_postgres_understands(database: DatabaseUrls) -> None:
    """Under the role that may do least of what it needs: the system's, or the callers'."""
    system, app = await asyncpg.connect(database.system), await asyncpg.connect(database.app)
    try:
        for name, statement in SQL.items():
            try:
                await system.prepare(statement)
            except asyncpg.InsufficientPrivilegeError:
                await app.prepare(statement)
            assert name
    finally:
        await system.close()
        await app.close()


async def test_a_server_that_is_not_the_owner_waits_for_older_tables_to_be_migrated(empty: DatabaseUrls) -> None:
    await migrate(empty.owner)
    owner = await asyncpg.connect(empty.owner)
    try:
        await owner.execute("UPDATE alembic_version SET version_num = $1", f"{int(newest_revision()) - 1:04}")
        settings = Settings(database_url=SecretStr(empty.app), database_system_url=SecretStr(empty.system))
        with capture_logs() as logs:
            opening = asyncio.create_task(_opened(settings))
            async with asyncio.timeout(30):
                while not logs and not opening.done():
                    await asyncio.sleep(0.01)
        assert [line["event"] for line in logs] == ["database.waiting_for_migration"]
        assert "TREADLE_DATABASE_OWNER_URL" in logs[0]["why"]
        await owner.execute("UPDATE alembic_version SET version_num = $1", newest_revision())
        await opening
    finally:
        await owner.close()


async def test_it_does_not_wait_for_ever(empty: DatabaseUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores_module, "_MIGRATED_SECONDS", 0.0)
    await migrate(empty.owner)
    owner = await asyncpg.connect(empty.owner)
    try:
        await owner.execute("UPDATE alembic_version SET version_num = '0001'")
        with pytest.raises(SchemaBehind, match="0001"):
            await _opened(Settings(database_url=SecretStr(empty.app), database_system_url=SecretStr(empty.system)))
    finally:
        await owner.close()


@pytest.mark.parametrize("table", ["sessions", "turns"])
async def test_a_migration_that_cannot_have_its_lock_lets_servers_at_work_go_on(empty: DatabaseUrls, table: str) -> None:
    """A backup reads every table for hours; whoever waits for it with a lock makes all others wait behind."""
    await _migrate_to(empty.owner, "0014")
    backup, watch, work = [await asyncpg.connect(empty.owner) for _ in range(3)]
    try:
        reading = backup.transaction()
        await reading.start()
        await backup.execute(f"SELECT FROM {table} LIMIT 1")
        async with asyncio.timeout(60):
            migrating = asyncio.create_task(migrate(empty.owner))
            while not await watch.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::text::regclass", table):
                assert not migrating.done()
                await asyncio.sleep(0.01)
            await work.execute("SET statement_timeout = '5s'")
            for each in ("sessions", "turns", "snapshots"):
                await work.execute(f"SELECT FROM {each} LIMIT 1")
            await reading.rollback()
            await migrating
        await check_revision(work)
    finally:
        for connection in (backup, watch, work):
            await connection.close()


async def _migrate_to(owner_url: str, revision: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        upgrade = command.upgrade
        patch.setattr(command, "upgrade", lambda config, _: upgrade(config, revision))
        await migrate(owner_url)


async def _opened(settings: Settings) -> None:
    async with open_postgres(settings):
        pass
