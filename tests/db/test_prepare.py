"""A database that was just made, and settings that do not fit it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from pydantic import SecretStr
from support.postgres import PostgresServer, database_settings

from server.config import Settings
from server.db.errors import LoginRefused
from server.db.prepare import prepare_database
from server.db.stores import open_postgres


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
