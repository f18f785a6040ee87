"""Row-level security alone, without any WHERE clause of ours; and the roles that it depends on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
from support.logs import end_turn, new_session, open_request, run_of, send, start_turn, start_worker, use_model
from support.postgres import PostgresServer, database_settings

from server.db.errors import RoleTooPowerful
from server.db.legacy_store import Agreed, Intended
from server.db.roles import APP, SYSTEM
from server.db.stores import Stores, open_postgres
from server.embedded.postgres_home import DatabaseUrls
from server.identity.keys import create_key
from server.kernel.credential import Credential, CredentialKind
from server.kernel.credentials import LOGINS
from server.kernel.history import Answer
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.ports.credential_store import Sealed
from server.kernel.webhook import Hint

TABLES = {
    "tenants": "id",
    "users": "tenant_id",
    "api_keys": "tenant_id",
    "sessions": "tenant_id",
    "turns": "tenant_id",
    "session_heads": "tenant_id",
    "event_chunks": "tenant_id",
    "model_uses": "tenant_id",
    "transcripts": "tenant_id",
    "inputs": "tenant_id",
    "requests": "tenant_id",
    "snapshots": "tenant_id",
    "edit_requests": "tenant_id",
    "past_transcripts": "tenant_id",
    "doomed_objects": "tenant_id",
    "credentials": "tenant_id",
    "logins": "tenant_id",
    "legacy_archives": "tenant_id",
    "legacy_intents": "tenant_id",
    "pull_request_looks": "tenant_id",
}
NOBODYS = {"webhook_deliveries"}
"""Tables that no tenant sees."""


@pytest.fixture
async def owner(database: DatabaseUrls) -> AsyncIterator[asyncpg.Connection]:
    """The superuser, with every right granted to the app role: what is left is row-level security."""
    connection = await asyncpg.connect(database.owner)
    await connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {APP}")
    yield connection
    await connection.close()


@pytest.fixture
async def app(owner: asyncpg.Connection, database: DatabaseUrls) -> AsyncIterator[asyncpg.Connection]:
    """A raw connection of the app role."""
    connection = await asyncpg.connect(database.app)
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
async def _rows_of_two_tenants(stores: Stores, alice: Principal, mallory: Principal, database: DatabaseUrls) -> None:
    for user in (alice, mallory):
        await create_key(stores.keys, user)
        credential = Credential(new_id(), user.tenant_id, user.user_id, "github.com", CredentialKind.TOKEN, "x")
        await stores.credentials.put(Sealed(credential, b"sealed"))
        assert not await stores.logins.begin(user, new_id(), LOGINS, seconds=60)
        claimed = await start_worker(stores, user)
        await stores.events.append([run_of(claimed, 1, 2)])
        await use_model(stores, claimed, version=2)
        await open_request(stores, claimed, first_seq=3, version=3)
        await send(stores, user, claimed.session.id)
        assert await stores.history.answer(user, claimed.session.id, Answer("request", "digest", ()))
        await stores.legacy.agree(user, claimed.session.id, "key", Agreed("version", "sha256", "commit"))
        await stores.legacy.intend(user, claimed.session.id, Intended("another", "commit", replaces="version"))
        await end_turn(stores, await start_turn(stores, user), transcript=b"remember", commit="c" * 40)
        await stores.sessions.delete(user, (await stores.sessions.create(user, new_session(), request_id="", request_digest="")).id)
    connection = await asyncpg.connect(database.owner)
    await connection.execute("UPDATE sessions SET branch = 'treadle/work'")
    await connection.close()
    await stores.pull_requests.heard("first", Hint("https://github.com/Acme/app.git", "treadle/work", 7))


async def test_the_matrix_covers_every_table(owner: asyncpg.Connection) -> None:
    rows = await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row["tablename"] for row in rows} == {*TABLES, *NOBODYS, "alembic_version"}


@pytest.mark.parametrize("table", TABLES)
async def test_a_tenant_sees_changes_and_deletes_its_own_rows_only(app: asyncpg.Connection, table: str) -> None:
    column = TABLES[table]
    for tenant in ("acme", "evil"):
        async with app.transaction():
            await app.execute("SELECT set_config('app.tenant', $1, true)", tenant)
            assert {row[0] for row in await app.fetch(f"SELECT {column} FROM {table}")} == {tenant}
    for tenant in ("nobody", "", "acme' OR true --"):
        async with app.transaction():
            await app.execute("SELECT set_config('app.tenant', $1, true)", tenant)
            assert await app.fetch(f"SELECT FROM {table}") == []
            assert await app.execute(f"UPDATE {table} SET {column} = {column}") == "UPDATE 0"
            assert await app.execute(f"DELETE FROM {table}") == "DELETE 0"
    assert await app.fetch(f"SELECT FROM {table}") == []


@pytest.mark.parametrize("table", NOBODYS)
async def test_no_tenant_sees_what_is_nobody_s(app: asyncpg.Connection, stores: Stores, table: str) -> None:
    assert await stores.pull_requests.heard("a-delivery", None)
    async with app.transaction():
        await app.execute("SELECT set_config('app.tenant', 'acme', true)")
        assert await app.fetch(f"SELECT FROM {table}") == []


@pytest.mark.parametrize("table", TABLES)
async def test_no_row_can_be_moved_or_written_into_another_tenant(app: asyncpg.Connection, table: str) -> None:
    column = TABLES[table]
    moves = [(f"UPDATE {table} SET {column} = 'evil'", [])]
    if table != "turns":  # its generated column cannot be inserted
        copy = f"INSERT INTO {table} SELECT (jsonb_populate_record(t, $1::jsonb)).* FROM {table} t"
        moves.append((copy, [json.dumps({column: "evil"})]))
    for statement, arguments in moves:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with app.transaction():
                await app.execute("SELECT set_config('app.tenant', 'acme', true)")
                await app.execute(statement, *arguments)


async def test_the_app_role_has_no_rights_that_handlers_do_not_need(database: DatabaseUrls) -> None:
    """Without the fixture's grants."""
    connection = await asyncpg.connect(database.app)
    try:
        for table in (
            "tenants",
            "users",
            "api_keys",
            "event_chunks",
            "model_uses",
            "transcripts",
            "past_transcripts",
            "doomed_objects",
            "pull_request_looks",
            "webhook_deliveries",
            "alembic_version",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT FROM {table}")
        for statement in (
            "UPDATE turns SET state = 'COMPLETED'",
            "UPDATE session_heads SET next_seq = 1",
            "UPDATE sessions SET owner_id = 'x'",
            "DELETE FROM turns",
            "UPDATE snapshots SET commit = ''",
            "SET ROLE treadle_system",
            "ALTER TABLE sessions DISABLE ROW LEVEL SECURITY",
            "SET SESSION AUTHORIZATION treadle_owner",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_server_refuses_roles_that_see_too_much(
    database: DatabaseUrls, postgres: PostgresServer, owner: asyncpg.Connection
) -> None:
    settings = database_settings(database)

    async def refused(reason: str) -> None:
        with pytest.raises(RoleTooPowerful, match=reason):
            async with open_postgres(settings):
                pass

    for grant, revoke, reason in (
        (f"ALTER ROLE {APP} SUPERUSER", f"ALTER ROLE {APP} NOSUPERUSER", "superuser"),
        (f"ALTER ROLE {APP} BYPASSRLS", f"ALTER ROLE {APP} NOBYPASSRLS", "BYPASSRLS"),
        (f"ALTER ROLE {SYSTEM} BYPASSRLS", f"ALTER ROLE {SYSTEM} NOBYPASSRLS", "BYPASSRLS"),
        (f"GRANT {SYSTEM} TO {APP}", f"REVOKE {SYSTEM} FROM {APP}", f"member of {SYSTEM}"),
        (f"ALTER TABLE turns OWNER TO {APP}", "ALTER TABLE turns OWNER TO treadle_owner", "owns the tables"),
        ("ALTER TABLE turns NO FORCE ROW LEVEL SECURITY", "ALTER TABLE turns FORCE ROW LEVEL SECURITY", "off on turns"),
    ):
        await owner.execute(grant)
        try:
            await refused(reason)
        finally:
            await owner.execute(revoke)
    async with open_postgres(settings):
        pass


async def test_callers_queries_never_run_as_the_role_that_sees_everything(database: DatabaseUrls) -> None:
    with pytest.raises(RoleTooPowerful, match=APP):
        async with open_postgres(database_settings(DatabaseUrls(app=database.system, system=database.system, owner=database.owner))):
            pass
