"""Everything that Postgres keeps, opened and closed as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import structlog

from server.config import Settings
from server.db.credential_store import PostgresCredentialStore
from server.db.desk_store import PostgresDeskStore
from server.db.errors import SchemaBehind
from server.db.event_store import PostgresEventStore
from server.db.history_store import PostgresHistoryStore
from server.db.input_store import PostgresInputStore
from server.db.key_store import PostgresKeyStore
from server.db.legacy_store import PostgresLegacyStore
from server.db.login_store import PostgresLoginStore
from server.db.migrate import check_revision, migrate
from server.db.pool import Database, DedicatedConnection, open_database
from server.db.pull_request_store import PostgresPullRequestStore
from server.db.roles import APP, SYSTEM, check_role
from server.db.session_store import PostgresSessionStore
from server.db.turn_queue import PostgresTurnQueue
from server.db.turn_store import PostgresTurnStore
from server.db.usage_store import PostgresUsageStore
from server.kernel.errors import StoreUnavailable
from server.kernel.ports.credential_store import CredentialStore
from server.kernel.ports.desk_store import DeskStore
from server.kernel.ports.event_store import EventStore
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.input_store import InputStore
from server.kernel.ports.key_store import KeyStore
from server.kernel.ports.login_store import LoginStore
from server.kernel.ports.pull_request_store import PullRequestStore
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.turn_queue import QueueLimits, TurnQueue
from server.kernel.ports.turn_store import TurnStore
from server.kernel.ports.usage_store import UsageStore

log = structlog.get_logger()

_THERE_SECONDS = 30.0
_MIGRATED_SECONDS = 300.0
_MIGRATED_POLL_SECONDS = 0.5
_APP_CONNECTIONS = 8
_SYSTEM_CONNECTIONS = 4
_CALLER_CONNECTIONS = 4
"""Of the system's role too, for what callers ask of it: however many ask, leases are renewed and turns go on by those above."""


@dataclass(frozen=True)
class Stores:
    """The ports that Postgres implements."""

    sessions: SessionStore
    turns: TurnStore
    queue: TurnQueue
    events: EventStore
    keys: KeyStore
    usage: UsageStore
    inputs: InputStore
    desk: DeskStore
    history: HistoryStore
    credentials: CredentialStore
    logins: LoginStore
    pull_requests: PullRequestStore
    legacy: PostgresLegacyStore


@asynccontextmanager
async def open_postgres(settings: Settings) -> AsyncIterator[Stores]:
    """Migrates first if it must and may. Errors: DatabaseUnfit when the schema or a role is not as it has to be, StoreUnavailable."""
    limits = QueueLimits(
        running_of_user=settings.max_turns_per_user,
        running_of_tenant=settings.max_turns_per_tenant,
        waiting_of_user=settings.max_waiting_turns,
        waiting_of_tenant=settings.max_waiting_turns_per_tenant,
    )
    app_url, system_url = settings.database_url.get_secret_value(), settings.database_system_url.get_secret_value()
    if not settings.database_owner_url.get_secret_value():
        await _until_there(system_url)
    async with (
        open_database(system_url, name="system", setting="TREADLE_DATABASE_SYSTEM_URL", size=_SYSTEM_CONNECTIONS) as system,
        open_database(system_url, name="callers", setting="TREADLE_DATABASE_SYSTEM_URL", size=_CALLER_CONNECTIONS) as callers,
        _open_journal(system_url) as journal,
        open_database(app_url, name="app", setting="TREADLE_DATABASE_URL", size=_APP_CONNECTIONS) as app,
    ):
        await _ensure_schema(system, settings.database_owner_url.get_secret_value())
        for database, role in ((app, APP), (system, SYSTEM)):
            async with database.connection() as connection:
                await check_role(connection, role=role)
        yield Stores(
            sessions=PostgresSessionStore(app),
            turns=PostgresTurnStore(app, system, limits),
            queue=PostgresTurnQueue(system, limits),
            events=PostgresEventStore(journal, system),
            keys=PostgresKeyStore(callers),
            usage=PostgresUsageStore(system),
            inputs=PostgresInputStore(app, limits),
            desk=PostgresDeskStore(system, limits),
            history=PostgresHistoryStore(app, callers, system),
            credentials=PostgresCredentialStore(app, system),
            logins=PostgresLoginStore(app),
            pull_requests=PostgresPullRequestStore(system),
            legacy=PostgresLegacyStore(system),
        )


@asynccontextmanager
async def _open_journal(system_url: str) -> AsyncIterator[DedicatedConnection]:
    connection = DedicatedConnection(system_url, name="journal")
    try:
        yield connection
    finally:
        await connection.close()


async def _until_there(system_url: str) -> None:
    """Whoever upgrades may start it anew at the same time; a server that ended would be a failed upgrade. After that time it is for others
    to tell why. Errors: LoginRefused."""
    deadline, told = asyncio.get_running_loop().time() + _THERE_SECONDS, False
    while True:
        try:
            async with open_database(system_url, name="system", setting="TREADLE_DATABASE_SYSTEM_URL", size=1):
                return
        except StoreUnavailable as error:
            if asyncio.get_running_loop().time() >= deadline:
                return
            if not told:
                log.warning("database.waiting", why=repr(error.__cause__), seconds=_THERE_SECONDS)
                told = True
        await asyncio.sleep(_MIGRATED_POLL_SECONDS)


async def _until_migrated(connection: asyncpg.Connection, error: SchemaBehind) -> None:
    """Whoever upgrades may start the new server and what prepares its database at one time, as a Swarm does; a server that ended would be
    a failed upgrade. Errors: SchemaBehind."""
    log.warning("database.waiting_for_migration", why=str(error), seconds=_MIGRATED_SECONDS)
    deadline = asyncio.get_running_loop().time() + _MIGRATED_SECONDS
    while True:
        await asyncio.sleep(_MIGRATED_POLL_SECONDS)
        try:
            return await check_revision(connection)
        except SchemaBehind as still:
            if not still.older or asyncio.get_running_loop().time() >= deadline:
                raise


async def _ensure_schema(system: Database, owner_url: str) -> None:
    async with system.connection() as connection:
        try:
            return await check_revision(connection)
        except SchemaBehind as error:
            if not owner_url:
                if not error.older:
                    raise
                return await _until_migrated(connection, error)
    await migrate(owner_url)
    async with system.connection() as connection:
        await check_revision(connection)
    return None
