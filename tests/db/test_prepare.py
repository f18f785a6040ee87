"""A database that was just made, and settings that do not fit it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.postgres import PostgresServer, database_settings

from server.config import Settings
from server.db import stores as stores_module
from server.db.errors import LoginRefused
from server.db.pool import open_database
from server.db.prepare import prepare_database
from server.db.stores import open_postgres
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import StoreUnavailable


@pytest.fixture
async def empty(postgres: PostgresServer) -> AsyncIterator[Settings]:
    await postgres.execute("CREATE DATABASE empty")
    try:
        yield database_settings(postgres.urls("empty"))
    finally:
        await postgres.execute("DROP DATABASE empty WITH (FORCE)")


async def test_a_server_runs_on_what_was_prepared_without_being_its_owner(empty: Settings) -> None:
    for _ in range(2):
        await prepare_database(empty)
    async with open_postgres(empty.model_copy(update={"database_owner_url": SecretStr("")})):
        pass


async def test_a_role_gets_the_password_that_the_server_will_show(empty: Settings, postgres: PostgresServer) -> None:
    with_password = empty.database_url.get_secret_value().replace("treadle_app@", "treadle_app:p%27s@")
    await prepare_database(empty.model_copy(update={"database_url": SecretStr(with_password)}))
    owner = await asyncpg.connect(empty.database_owner_url.get_secret_value())
    try:
        assert await owner.fetchval("SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'treadle_app'")
        await owner.execute("ALTER ROLE treadle_app PASSWORD NULL")
    finally:
        await owner.close()


@pytest.mark.parametrize("name", ["database_url", "database_system_url"])
async def test_who_is_not_let_in_is_told_by_which_setting(empty: Settings, name: str) -> None:
    await prepare_database(empty)
    url = getattr(empty, name).get_secret_value()
    with pytest.raises(LoginRefused, match=f"^TREADLE_{name.upper()}: the database lets nobody in"):
        async with open_postgres(empty.model_copy(update={name: SecretStr(url.replace("/empty?", "/elsewhere?"))})):
            pass


async def test_a_database_that_is_not_there_yet_is_waited_for_and_not_for_ever(
    database: DatabaseUrls, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment may replace both at once."""
    soon = tmp_path / "soon"
    urls = replace(postgres, socket=soon).urls(urlsplit(database.app).path[1:])
    settings = Settings(database_url=SecretStr(urls.app), database_system_url=SecretStr(urls.system))
    with capture_logs() as logs:
        opening = asyncio.create_task(opened(settings))
        async with asyncio.timeout(30):
            while not logs and not opening.done():
                await asyncio.sleep(0.01)
    assert [line["event"] for line in logs] == ["database.waiting"]
    soon.symlink_to(postgres.socket)
    await opening
    soon.unlink()
    monkeypatch.setattr(stores_module, "_THERE_SECONDS", 0.0)
    with pytest.raises(StoreUnavailable):
        await opened(settings)


async def test_who_is_not_let_in_any_more_may_be_again(database: DatabaseUrls) -> None:
    """A password is changed before the servers have it."""
    owner = await asyncpg.connect(database.owner)
    try:
        async with open_database(database.app, name="app", setting="TREADLE_DATABASE_URL", size=2) as app, app.connection():
            await owner.execute("ALTER ROLE treadle_app NOLOGIN")
            with pytest.raises(StoreUnavailable):
                async with app.connection():
                    pass
            await owner.execute("ALTER ROLE treadle_app LOGIN")
            async with app.connection() as connection:
                assert await connection.fetchval("SELECT 1") == 1
    finally:
        await owner.execute("ALTER ROLE treadle_app LOGIN")
        await owner.close()


async def opened(settings: Settings) -> None:
    async with open_postgres(settings):
        pass
