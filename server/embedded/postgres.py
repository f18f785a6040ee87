"""A private Postgres for `treadle up`: the wheel's binaries, one directory, one unix socket, no password and no port.

Who may connect is decided by the kernel (peer authentication): only the user that runs Treadle, as one of three roles. When that is
root, Postgres itself runs as an unprivileged account that exists already.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

import asyncpg

from server.db.roles import ensure_roles
from server.embedded.postgres_home import DATABASE, OWNER, DatabaseUrls, PostgresHome
from server.embedded.postgres_process import WatchedProcess
from server.embedded.postgres_runtime import PostgresUnusable, choose_account, prepare_binaries

START_SECONDS = 60.0
"""Limit for initdb, and for a start: recovery after a crash replays the log first."""
STOP_SECONDS = 10.0
"""Limit for each way to stop, before the next harder one."""
_POLL_SECONDS = 0.01
_STOP_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
"""Fast shutdown: sessions are cut, everything is written. Then immediate: the next start recovers."""

# Small, since it shares a developer's machine; durable, since it holds their work.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_worker_processes": "2",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "jit": "off",
    "huge_pages": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
}


class EmbeddedPostgres:
    """Postgres under `<data_dir>/postgres` for the time of the context: made when missing, adopted when a killed Treadle left it
    running, stopped at the end.

    Entering gives the URLs. The schema is not its matter: `server.db` migrates. Errors: PostgresUnusable, which says what to change;
    TimeoutError when it is not ready within START_SECONDS. It is a Part (server.embedded.keeping), which the user keeps going or not.
    """

    name = "the database"

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._stack = AsyncExitStack()
        self._cluster: _Cluster | None = None

    async def __aenter__(self) -> DatabaseUrls:
        async with AsyncExitStack() as stack:
            account = choose_account()
            home = PostgresHome.prepare(self._data_dir, account)
            stack.enter_context(home.locked())
            binaries = await asyncio.to_thread(prepare_binaries, account, self._data_dir / "runtime")
            cluster = self._cluster = _Cluster(home, binaries)
            stack.push_async_callback(cluster.stop)
            await cluster.start()
            await _ensure_database(home)
            self._stack = stack.pop_all()
        return home.urls

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    async def ended(self) -> int | None:
        """See Part."""
        assert self._cluster is not None  # noqa: S101 - it was entered
        return await self._cluster.ended()

    async def restart(self) -> None:
        """See Part. What was committed is there again."""
        assert self._cluster is not None  # noqa: S101 - it was entered
        await self._cluster.stop()
        await self._cluster.start()


class _Cluster:
    """One data directory and the postmaster that serves it."""

    def __init__(self, home: PostgresHome, binaries: Path) -> None:
        self._home = home
        self._binaries = binaries
        self._process: WatchedProcess | None = None

    async def start(self) -> None:
        if not self._home.cluster.exists():
            await self._initialise()
        self._process = self._running()
        if self._process is not None and await self._adopted(self._process):
            return
        await self._leftovers_gone()
        self._home.write_access_rules()
        self._home.rotate_log()
        self._process = await self._spawn("postgres", "-D", self._home.cluster, *self._options())
        await self._ready(self._process)

    async def ended(self) -> int | None:
        assert self._process is not None  # noqa: S101 - it was started
        return await self._process.wait()

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop(_STOP_SIGNALS, seconds_each=STOP_SECONDS)
            self._process.close()
            self._process = None

    async def _initialise(self) -> None:
        """Under another name first, so that an interrupted initdb is never taken for a database."""
        unfinished = self._home.owned_directory(self._home.cluster.with_name("cluster.unfinished"))
        options = (
            "--username",
            OWNER,
            "--auth=peer",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        )
        process = await self._spawn("initdb", "-D", unfinished, "--no-instructions", *options)
        try:
            async with asyncio.timeout(START_SECONDS):
                status = await process.wait()
        finally:
            await process.stop((), seconds_each=STOP_SECONDS)
            process.close()
        if status != 0:
            raise PostgresUnusable(f"initdb failed with status {status}; see {self._home.log}")
        unfinished.rename(self._home.cluster)

    def _running(self) -> WatchedProcess | None:
        """The postmaster that a killed Treadle left behind; only one that works in our directory is ours."""
        lines = self._pid_file()
        return self._in_cluster(lines[0]) if lines else None

    def _in_cluster(self, pid: str) -> WatchedProcess | None:
        try:
            process = WatchedProcess(int(pid))
        except (ValueError, ProcessLookupError):
            return None
        if process.working_directory() == self._home.cluster:
            return process
        process.close()
        return None

    async def _adopted(self, process: WatchedProcess) -> bool:
        """Keep the running one if it is of this version and answers where we look; else stop it."""
        if process.executable() == (self._binaries / "postgres").resolve() and self._pid_file()[4:5] == [str(self._home.socket)]:
            with contextlib.suppress(TimeoutError):
                await self._ready(process)
                return True
        await self.stop()
        return False

    async def _leftovers_gone(self) -> None:
        """After a kill -9 of the postmaster its children end by themselves, soon; a new one refuses to start before.

        Nothing works in the directory then, so a pid file that is still there names a process of somebody else.
        """
        async with asyncio.timeout(STOP_SECONDS):
            for worker in self._workers():
                try:
                    await worker.wait()
                finally:
                    worker.close()
        (self._home.cluster / "postmaster.pid").unlink(missing_ok=True)

    def _workers(self) -> Iterator[WatchedProcess]:
        """Processes that work in the data directory."""
        for entry in Path("/proc").glob("[0-9]*"):
            process = self._in_cluster(entry.name)
            if process is not None:
                yield process

    async def _ready(self, process: WatchedProcess) -> None:
        """Until it accepts connections, which it tells in its pid file only. Errors: PostgresUnusable when it ends instead."""
        ended = asyncio.ensure_future(process.wait())
        try:
            async with asyncio.timeout(START_SECONDS):
                while not _says_ready(self._pid_file(), process.pid):
                    await asyncio.wait({ended}, timeout=_POLL_SECONDS)
                    if ended.done():
                        raise PostgresUnusable(f"Postgres ended while it started; see {self._home.log}")
        finally:
            ended.cancel()

    def _pid_file(self) -> list[str]:
        """The lines of postmaster.pid: pid, data directory, start time, port, socket directory, address, shared memory, status."""
        try:
            return (self._home.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _options(self) -> Iterator[str]:
        settings = _SETTINGS | {
            "unix_socket_directories": str(self._home.socket),
            "hba_file": str(self._home.config / "pg_hba.conf"),
            "ident_file": str(self._home.config / "pg_ident.conf"),
        }
        for name, value in settings.items():
            yield "-c"
            yield f"{name}={value}"

    async def _spawn(self, program: str, *arguments: str | Path) -> WatchedProcess:
        account = self._home.account
        return await WatchedProcess.spawn(
            (self._binaries / program, *arguments),
            user=account.uid,
            group=account.gid,
            env={"LC_ALL": "C", "PATH": os.defpath},
            cwd=self._home.root,
            log=self._home.log,
        )


def _says_ready(pid_file: list[str], pid: int) -> bool:
    return pid_file[:1] == [str(pid)] and [line.strip() for line in pid_file[7:8]] == ["ready"]


async def _ensure_database(home: PostgresHome) -> None:
    owner = await asyncpg.connect(home.url(OWNER, "postgres"), timeout=START_SECONDS)
    try:
        if not await owner.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", DATABASE):
            await ensure_roles(owner, None, None)
            await owner.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await owner.close(timeout=STOP_SECONDS)
