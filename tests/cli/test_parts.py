"""A part of `treadle up` dies: it comes back, and whoever watches is told."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import urllib.request
from pathlib import Path

LIMIT_SECONDS = 30


def kill(program: str, home: object) -> None:
    """SIGKILL for the one process of this data directory that runs `program`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if arguments[0].endswith(f"/{program}") and any(str(home) in argument for argument in arguments):
            found.append(int(entry.name))
    assert len(found) == 1, found
    os.kill(found[0], signal.SIGKILL)


def get(url: str, key: str) -> bytes:
    return urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"}), timeout=10).read()


async def test_a_gateway_that_dies_comes_back_at_its_address(home) -> None:
    key = (home.data_dir / "api-key").read_text().strip()
    async with home.up() as up:
        found = re.search(r"gateway +(http://127\.0\.0\.1:\d+)", up.out)
        assert found
        for times in (1, 2):
            kill("envoy", home.data_dir)
            async with asyncio.timeout(LIMIT_SECONDS):
                while up.out.count("the gateway ended by itself (killed by signal 9); it is started again") < times:
                    await asyncio.sleep(0.01)
                while up.out.count("the gateway serves again") < times:
                    await asyncio.sleep(0.01)
            assert b"sessionId" in await asyncio.to_thread(get, f"{found[1]}/v1/sessions", key)
        log = (home.data_dir / "server.log").read_text()
        assert log.count("part.ended") == log.count("part.restarted") == 2
    assert "serves again" not in up.out.split("Stopping")[1]
    assert home.processes() == []


async def test_a_postgres_that_dies_comes_back_and_the_turn_goes_on(home, find_branch) -> None:
    async with home.up() as up, home.started("run", *home.add_gated_recording(), "go on without a database") as run:
        await run.says("first.txt")
        kill("postgres", home.data_dir)
        await up.says("the database ended by itself")
        await up.says("the database serves again")
        home.open_gate()
        told = await run.ended()
        assert (await home.run("sessions")).code == 0
        ended = await up.stop()
    assert told.code == 0, told
    assert set(home.pushed(find_branch(told.out))) == {"gated.jsonl", "first.txt", "second.txt"}
    assert ended.code == 0, ended
    # What asyncpg complains of in between is for the log.
    assert ended.err == ""
    assert "Failed to restore" not in ended.out
    assert home.processes() == []


async def test_a_postgres_that_cannot_come_back_stops_the_server(home) -> None:
    async with home.up() as up:
        cluster = home.data_dir / "postgres" / "cluster"
        (cluster / "global").rename(cluster / "elsewhere")
        kill("postgres", home.data_dir)
        ended = await up.ended()
    assert ended.code == 1
    assert "The server could not go on: the database cannot be started again" in ended.out
    assert ended.err == ""
    assert home.processes() == []


async def test_doctor_looks_at_the_parts_of_a_running_server(home) -> None:
    async with home.up() as up:
        found = re.search(r"gateway +http://(127\.0\.0\.1:\d+)", up.out)
        assert found
        fine = await home.run("doctor")
        assert fine.code == 0, fine
        assert f"ok  gateway    answers on {found[1]}" in fine.out
        (home.data_dir / "gateway" / "address").write_text("127.0.0.1:1\n")
        told = await home.run("doctor")
    assert "!   gateway    127.0.0.1:1 does not answer" in told.out
