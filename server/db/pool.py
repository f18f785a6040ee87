"""Connection pools, and the one place that tells "the database is away" from "the database refused"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

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


class Database:
    """A pool of connections of one role."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection outside any transaction: each statement is its own. Errors: StoreUnavailable, StoreRejected."""
        with translated_errors():
            async with self._acquired() as connection:
                try:
                    yield connection
                except asyncpg.InterfaceError as error:
                    # asyncpg's own complaint about a connection that died between two statements; on a live one it is our bug.
                    if connection.is_closed():
                        raise StoreUnavailable from error
                    raise

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


@asynccontextmanager
async def open_database(url: str, *, name: str, size: int) -> AsyncIterator[Database]:
    """Up to `size` connections, one of them made now. Errors: StoreUnavailable, StoreRejected (also for a wrong password)."""
    pool = asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        reset=_nothing_to_reset,
        server_settings={"application_name": f"treadle {name}", "idle_in_transaction_session_timeout": "60s"},
    )
    with translated_errors():
        await pool
    try:
        yield Database(pool)
    finally:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()


async def _nothing_to_reset(_: asyncpg.Connection) -> None:
    """Everything that we set on a connection is local to a transaction; the default reset would cost a round trip per use."""
