"""Real Postgres servers, one per version and run, and a fresh database per test.

`stores` is what most tests want; `database` gives the URLs. Both are of Postgres 18, except in tests/db, where each test runs on 15 too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest
from pydantic import SecretStr
from support.requirements import require

from server.config import Settings
from server.db.migrate import migrate
from server.db.roles import APP, SYSTEM, ensure_roles
from server.db.stores import Stores, open_postgres
from server.embedded.postgres import EmbeddedPostgres
from server.embedded.postgres_home import OWNER, DatabaseUrls
from server.embedded.postgres_runtime import choose_account
from server.kernel.identity import Principal

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
_numbers = itertools.count(1)
_ROOM_BYTES = 8 * 1024**3
"""Of a test process a cluster takes some 300 MB, a data directory of `treadle up` some 100."""


@contextmanager
def open_directory(*, within: Path = Path("/tmp")) -> Iterator[Path]:
    """A temporary directory that another user may pass, and whose path is short enough for sockets; pytest's own is neither."""
    directory = Path(tempfile.mkdtemp(prefix="treadle-", dir=within))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        _end_workers(directory)
        _remove(directory)


def in_memory() -> Path:
    """For clusters of databases, where there is room: each new database is a copy of a thousand files, which on a disk takes ten times as
    long, most of it in the kernel."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free >= _ROOM_BYTES else Path("/tmp")


def _remove(directory: Path) -> None:
    """A server that was stopped a moment ago may still remove a slot, in a thread: what is gone already is no error."""
    while directory.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)


def _end_workers(directory: Path) -> None:
    """Workers outlive their server on purpose, but not the test: their shims, which work in the slots, end all below them."""
    deadline = time.monotonic() + 20
    while shims := [process for process in Path("/proc").glob("[0-9]*") if _is_shim_in(process, directory)]:
        assert time.monotonic() < deadline, f"workers in {directory} do not end: {shims}"
        for process in shims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGTERM)
        time.sleep(0.02)


def _is_shim_in(process: Path, directory: Path) -> bool:
    try:
        return (process / "cwd").readlink().is_relative_to(directory) and b"shim.py" in (process / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that another user may pass."""
    with open_directory() as directory:
        yield directory


@pytest.fixture
def server_data_dir() -> Iterator[Path]:
    """A data directory for a whole server with its embedded Postgres."""
    with open_directory() as directory:
        yield directory / "data"


@dataclass(frozen=True)
class PostgresServer:
    """A running server with both roles and a migrated database `template`."""

    version: int
    socket: Path

    def url(self, role: str, database: str) -> str:
        return f"postgresql://{role}@/{database}?host={quote(str(self.socket), safe='')}"

    def urls(self, database: str) -> DatabaseUrls:
        return DatabaseUrls(app=self.url(APP, database), system=self.url(SYSTEM, database), owner=self.url(OWNER, database))

    async def execute(self, statement: str) -> None:
        """As superuser, outside any database of a test."""
        connection = await asyncpg.connect(self.url(OWNER, "postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @asynccontextmanager
    async def fresh(self, name: str) -> AsyncIterator[DatabaseUrls]:
        """A migrated database, for the time of the context."""
        # Its files are copied, which is half the work of having each page in the log; the checkpoint that this takes costs nothing here.
        await self.execute(f"CREATE DATABASE {name} TEMPLATE template STRATEGY FILE_COPY")
        try:
            yield self.urls(name)
        finally:
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def prepare(self) -> PostgresServer:
        connection = await asyncpg.connect(self.url(OWNER, "postgres"))
        try:
            # Hundreds of databases are made and dropped; what survives a power cut is not what these tests ask.
            await connection.execute("ALTER SYSTEM SET fsync = off")
            await connection.execute("SELECT pg_reload_conf()")
            await ensure_roles(connection, None, None)
            await connection.execute("CREATE DATABASE template")
        finally:
            await connection.close()
        await migrate(self.url(OWNER, "template"))
        return self


@pytest.fixture(scope="session")
async def postgres18() -> AsyncIterator[PostgresServer]:
    """Postgres 18, as `treadle up` runs it."""
    with open_directory(within=in_memory()) as directory:
        async with EmbeddedPostgres(directory):
            yield await PostgresServer(18, directory / "postgres" / "socket").prepare()


@pytest.fixture(scope="session")
async def postgres15() -> AsyncIterator[PostgresServer]:
    """Debian's Postgres 15."""
    require(DEBIAN_15.exists(), "Postgres 15", "apt-get install postgresql-15")
    with open_directory(within=in_memory()) as directory:
        account = choose_account()
        account.give(directory)

        async def run(program: str, *arguments: str) -> None:
            command = [str(DEBIAN_15 / program), "-D", str(directory / "cluster"), *arguments]
            extra = {"user": account.uid, "group": account.gid, "extra_groups": []} if account.uid is not None else {}
            await asyncio.to_thread(
                subprocess.run,
                command,
                cwd="/",
                env={"LC_ALL": "C.UTF-8", "PATH": os.defpath},
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=60,
                **extra,
            )

        await run("initdb", "--username", OWNER, "--auth=trust", "--encoding=UTF8", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={directory} -c unix_socket_permissions=0777 -c fsync=off"
        await run("pg_ctl", "-w", "-l", str(directory / "log"), "-o", options, "start")
        try:
            yield await PostgresServer(15, directory).prepare()
        finally:
            await run("pg_ctl", "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="session")
def postgres(postgres18: PostgresServer) -> PostgresServer:
    """The server that the test runs on."""
    return postgres18


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[DatabaseUrls]:
    """A fresh, migrated database."""
    async with postgres.fresh(f"test_{next(_numbers)}") as urls:
        yield urls


def database_settings(urls: DatabaseUrls) -> Settings:
    """Settings with nothing but the database set."""
    return Settings(database_url=SecretStr(urls.app), database_system_url=SecretStr(urls.system), database_owner_url=SecretStr(urls.owner))


@pytest.fixture
async def stores(database: DatabaseUrls) -> AsyncIterator[Stores]:
    """All stores, on a fresh database."""
    async with open_postgres(database_settings(database)) as opened:
        yield opened


@pytest.fixture
async def alice(stores: Stores) -> Principal:
    """A user of the tenant `acme`."""
    return await _user(stores, "acme", "alice")


@pytest.fixture
async def bob(stores: Stores) -> Principal:
    """Another user of the same tenant."""
    return await _user(stores, "acme", "bob")


@pytest.fixture
async def mallory(stores: Stores) -> Principal:
    """A user of another tenant."""
    return await _user(stores, "evil", "mallory")


@asynccontextmanager
async def relayed(database: DatabaseUrls, directory: Path) -> AsyncIterator[DatabaseUrls]:
    """The database for whom it does not know: it asks the kernel who connects."""
    (there,) = parse_qs(urlsplit(database.app).query)["host"]
    name = ".s.PGSQL.5432"

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(65536):
                sink.write(piece)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, onward = await asyncio.open_unix_connection(Path(there, name))
        await asyncio.gather(pump(reader, onward), pump(back, writer))

    server = await asyncio.start_unix_server(serve, directory / name)
    (directory / name).chmod(0o666)
    try:
        here = {name: url.replace(quote(there, safe=""), quote(str(directory), safe="")) for name, url in vars(database).items()}
        yield DatabaseUrls(**here)
    finally:
        server.close()


async def _user(stores: Stores, tenant: str, name: str) -> Principal:
    user = Principal(tenant, name, name.capitalize(), f"{name}@{tenant}.invalid")
    await stores.keys.ensure_user(user)
    return user
