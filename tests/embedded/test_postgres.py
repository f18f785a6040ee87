"""The embedded Postgres: starts, stops, and comes back from every way to die."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from support.postgres import open_directory

from server.embedded.postgres import EmbeddedPostgres, _Cluster
from server.embedded.postgres_home import DatabaseUrls, PostgresHome
from server.embedded.postgres_runtime import Account, PostgresUnusable, choose_account, prepare_binaries


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """One data directory for all: initdb takes a second."""
    with open_directory() as directory:
        yield directory / "data"


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "cluster" / "postmaster.pid").read_text().splitlines()[0])


def processes_in(data_dir: Path) -> list[int]:
    """Everything that still works in the cluster's directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(data_dir.resolve()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def query(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_it_starts_stops_and_keeps_what_was_written(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as urls:
        assert str(await query(urls.app, "SHOW server_version")).startswith("18")
        assert await query(urls.app, "SELECT current_user") == "treadle_app"
        assert await query(urls.system, "SELECT current_user") == "treadle_system"
        await query(urls.owner, "CREATE TABLE IF NOT EXISTS kept (n int)")
        await query(urls.owner, "INSERT INTO kept VALUES (1)")
    assert processes_in(data_dir) == []
    begin = time.monotonic()
    async with EmbeddedPostgres(data_dir) as urls:
        assert time.monotonic() - begin < 2
        assert await query(urls.owner, "SELECT count(*) > 0 FROM kept")
    assert processes_in(data_dir) == []


async def test_only_its_user_gets_in_and_only_by_the_socket(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir) as urls:
        assert await query(urls.owner, "SHOW listen_addresses") == ""
        home = PostgresHome.prepare(data_dir, choose_account())
        for directory in (home.cluster, home.socket):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await query(home.url("postgres"), "SELECT 1")
        if os.geteuid() == 0:
            assert home.account.uid is not None
            refused = await asyncio.to_thread(_is_refused_as, home.account.uid, urls.owner)
            assert refused.returncode == 0, refused.stderr
        assert os.getsid(postmaster(data_dir)) == postmaster(data_dir)


async def test_others_read_no_log_and_hold_no_lock(data_dir: Path) -> None:
    """Whoever may open the lock's file may lock it, and then no Treadle starts."""
    async with EmbeddedPostgres(data_dir):
        private = [data_dir / "postgres" / name for name in ("log", "lock")]
    for path in private:
        path.chmod(0o644)  # as it was once made
    async with EmbeddedPostgres(data_dir):
        assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600, 0o600]


async def test_a_pid_file_that_goes_while_it_is_read_is_read_again(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres writes it anew while it starts."""
    whole = _Cluster._pid_file
    reads = 0

    def flickering(cluster: _Cluster) -> list[str]:
        nonlocal reads
        reads += 1
        return whole(cluster) if reads % 2 else []

    monkeypatch.setattr(_Cluster, "_pid_file", flickering)
    async with EmbeddedPostgres(data_dir) as urls:
        assert await query(urls.app, "SELECT 1") == 1


def _is_refused_as(uid: int, url: str) -> subprocess.CompletedProcess[bytes]:
    """Even the account that Postgres runs as, which may enter the socket's directory: peer authentication stops it."""
    socket = url.partition("host=")[2].replace("%2F", "/") + "/.s.PGSQL.5432"
    code = (
        "import socket, struct, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])\n"
        "body = struct.pack('!I', 196608) + b'user\\0treadle_owner\\0database\\0treadle\\0\\0'\n"
        "s.sendall(struct.pack('!I', len(body) + 4) + body); sys.exit(s.recv(1) != b'E')"
    )
    return subprocess.run(["/usr/bin/python3", "-c", code, socket], user=uid, check=False, cwd="/", capture_output=True, timeout=20)


async def test_a_second_treadle_is_told_that_there_is_one(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        with pytest.raises(PostgresUnusable, match="another Treadle"):
            async with EmbeddedPostgres(data_dir):
                pass


async def test_a_postgres_that_a_killed_treadle_left_running_is_adopted(data_dir: Path) -> None:
    code = (
        "import asyncio, os, signal, sys; from pathlib import Path; from server.embedded.postgres import EmbeddedPostgres\n"
        "async def main():\n"
        "    async with EmbeddedPostgres(Path(sys.argv[1])):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, str(data_dir)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = postmaster(data_dir)
    async with EmbeddedPostgres(data_dir) as urls:
        assert postmaster(data_dir) == left
        assert await query(urls.app, "SELECT 1") == 1
    assert processes_in(data_dir) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
async def test_what_was_committed_survives_the_death_of_postgres(data_dir: Path, number: signal.Signals) -> None:
    async with EmbeddedPostgres(data_dir) as urls:
        await query(urls.owner, "CREATE TABLE IF NOT EXISTS kept (n int)")
        await query(urls.owner, f"INSERT INTO kept VALUES ({number + 100})")
        connection = await asyncpg.connect(urls.app)
        os.kill(postmaster(data_dir), number)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
            while True:
                await connection.fetchval("SELECT pg_sleep(0.01)")
        connection.terminate()
    async with EmbeddedPostgres(data_dir) as urls:
        assert await query(urls.owner, f"SELECT count(*) FROM kept WHERE n = {number + 100}") == 1
    assert processes_in(data_dir) == []


async def test_a_pid_file_that_names_a_stranger_does_not_stop_the_start(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        lines = (data_dir / "postgres" / "cluster" / "postmaster.pid").read_text().splitlines()
    home = PostgresHome.prepare(data_dir, choose_account())
    stale = home.cluster / "postmaster.pid"
    stranger = await asyncio.to_thread(subprocess.Popen, ["sleep", "60"], user=home.account.uid)
    try:
        stale.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        home.account.give(stale)
        async with EmbeddedPostgres(data_dir) as urls:
            assert await query(urls.app, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_an_interrupted_initdb_is_begun_anew() -> None:
    with open_directory() as directory:
        unfinished = directory / "postgres" / "cluster.unfinished"
        unfinished.mkdir(parents=True)
        (unfinished / "PG_VERSION").write_text("18\n")
        async with EmbeddedPostgres(directory) as urls:
            assert await query(urls.app, "SELECT 1") == 1


async def test_a_path_that_is_too_long_for_a_socket_gets_a_short_one() -> None:
    with open_directory() as directory:
        home = PostgresHome.prepare(directory / ("long" * 30), choose_account())
        try:
            assert len(str(home.socket)) < 90
            assert isinstance(home.urls, DatabaseUrls)
            assert PostgresHome.prepare(directory / ("long" * 30), choose_account()).socket == home.socket
            home.socket.chmod(0o755)
            with pytest.raises(PostgresUnusable, match="remove it"):
                PostgresHome.prepare(directory / ("long" * 30), choose_account())
        finally:
            home.socket.rmdir()


async def test_a_data_directory_that_the_account_cannot_reach_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PostgresUnusable, match="cannot enter"):
        PostgresHome.prepare(closed / "data", Account(65534, 65534))


def test_binaries_that_the_account_cannot_reach_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(65534, 65534)
    with open_directory() as directory:
        monkeypatch.setattr(Account, "can_enter", lambda *_: False)
        binaries = prepare_binaries(account, directory / "runtime")
        made = binaries.stat().st_ino
        assert prepare_binaries(account, directory / "runtime").stat().st_ino == made
        done = subprocess.run([binaries / "initdb", "--version"], check=True, capture_output=True, text=True, timeout=20)
        assert "PostgreSQL" in done.stdout
        assert sorted(entry.name for entry in (directory / "runtime").iterdir()) == [binaries.parents[2].name]
