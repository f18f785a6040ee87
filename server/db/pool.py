"""Connection pools, and the one place that tells "the database is away" from "the database refused"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from server.db.errors import LoginRefused
from server.kernel.errors import StoreRejected, StoreUnavailable

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 15.0
"""Limit for one statement; its outcome is unknown then, as after a lost connection."""
ACQUIRE_SECONDS = 10.0
"""Limit for the wait for a free connection."""
CLOSE_SECONDS = 5.0

_AWAY = (
    OSError,  # no socket, reset, and TimeoutError
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutdown, crash of another backend, cancelled, starting up
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # deadlock or serialization failure: nothing was written
    asyncpg.ReadOnlySQLTransactionError,  # a replica, before it is promoted
    # Of a server that was let in before: its password is being changed, and another one with the new password will take its place.
    asyncpg.InvalidAuthorizationSpecificationError,
)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Errors: StoreUnavailable when a retry may help, StoreRejected when none will."""
    try:
        yield
    except _AWAY as error:
        raise StoreUnavailable from error
    except asyncpg.PostgresError as error:
        raise StoreRejected(f"{error.sqlstate}: {error}") from error


@contextmanager
def _closed_is_away(connection: asyncpg.Connection) -> Iterator[None]:
    """asyncpg's own complaints about a connection that died between two statements; on a live one the complaint is our bug."""
    try:
        yield
    except asyncpg.InternalClientError as error:
        # What asyncpg says when the server's farewell arrived just before the statement was to be sent.
        connection.terminate()
        raise StoreUnavailable from error
    except asyncpg.InterfaceError as error:
        if connection.is_closed():
            raise StoreUnavailable from error
        raise


class Database:
    """A pool of connections of one role."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection outside any transaction: each statement is its own. Errors: StoreUnavailable, StoreRejected."""
        with translated_errors():
            async with self._acquired() as connection:
                with _closed_is_away(connection):
                    yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection in a transaction that ends with the context. Errors: StoreUnavailable, StoreRejected."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def tenant(self, tenant_id: str) -> AsyncIterator[asyncpg.Connection]:
        """A transaction that sees one tenant's rows. Errors: StoreUnavailable, StoreRejected."""
        async with self.transaction() as connection:
            await connection.execute("SELECT set_config('app.tenant', $1, true)", tenant_id)
            yield connection

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[asyncpg.Connection]:
        try:
            connection = await self._pool.acquire(timeout=ACQUIRE_SECONDS)
        except asyncpg.InterfaceError as error:  # the pool is closing
            raise StoreUnavailable from error
        try:
            yield connection
        finally:
            await self._pool.release(connection)


class DedicatedConnection:
    """One connection for one writer, made anew after it was lost. A pool would cost half a millisecond of CPU per use."""

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: asyncpg.Connection | None = None
        self._one_at_a_time = asyncio.Lock()

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Run a statement in its own transaction. Errors: StoreUnavailable, its outcome unknown; StoreRejected."""
        async with self._one_at_a_time:
            with translated_errors():
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(
                        self._url, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS, server_settings=_session_settings(self._name)
                    )
                with _closed_is_away(self._connection):
                    return list(await self._connection.fetch(statement, *values))

    async def close(self) -> None:
        """Bounded; the server notices the end by itself when it does not answer."""
        if self._connection is not None:
            try:
                await self._connection.close(timeout=CLOSE_SECONDS)
            except (*_AWAY, asyncpg.InterfaceError):
                self._connection.terminate()


@contextmanager
def refused_logins(setting: str) -> Iterator[None]:
    """Errors: LoginRefused, which names the setting."""
    try:
        yield
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise LoginRefused(setting, error) from error


@asynccontextmanager
async def open_database(url: str, *, name: str, setting: str, size: int) -> AsyncIterator[Database]:
    """Up to `size` connections, one of them made now. `setting` is where the URL is from. Errors: StoreUnavailable, StoreRejected,
    LoginRefused."""
    pool = asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        reset=_nothing_to_reset,
        server_settings=_session_settings(name),
    )
    with translated_errors(), refused_logins(setting):
        await pool
    try:
        yield Database(pool)
    finally:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()


def _session_settings(name: str) -> dict[str, str]:
    return {"application_name": f"treadle {name}", "idle_in_transaction_session_timeout": "60s"}


async def _nothing_to_reset(_: asyncpg.Connection) -> None:
    """Everything that we set on a connection is local to a transaction; the default reset would cost a round trip per use."""
