"""`treadle up`: its first start, its other starts, and all the ways in which it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import sys
import urllib.request
from contextlib import ExitStack

import pytest
from support.git_server import git

LIMIT_SECONDS = 60


async def test_the_first_start_plays_one_session_and_later_ones_do_not(first_start, home, find_branch) -> None:
    first = first_start.first_words
    assert "plays a recorded session through the real worker" in first
    assert "No model is called" in first
    commit = re.search(r"commit +([0-9a-f]{12})  ", first)
    assert commit
    assert git(first_start.sample, "rev-parse", find_branch(first)).startswith(commit[1])
    assert "as recorded; none were used now" in first
    assert "diff --git a/treadle-notes/turn-1.md" in first
    assert "+# Turn 1" in first
    assert first_start.processes() == []

    async with home.up() as up:
        assert (home.data_dir / "address").read_text().strip() in up.out
        assert "plays a recorded session" not in up.out
        assert "agent     replay: it calls no model; with ANTHROPIC_API_KEY it would be claude" in up.out
        listed = await home.run("sessions")
    assert listed.code == 0
    assert listed.out.count("idle") == 1


async def test_the_key_is_private_and_the_metrics_are_served(home) -> None:
    async with home.up() as up:
        others = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in home.data_dir.iterdir()}
        assert {name for name, mode in others.items() if mode} <= {"address", "gateway", "postgres", "runtime"}
        assert not stat.S_IMODE(home.data_dir.stat().st_mode) & 0o066
        metrics = re.search(r"metrics +(http://\S+)", up.out)
        assert metrics
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(metrics[1], timeout=10).read())
        assert b"treadle_turns_active 0.0" in page
    assert (home.data_dir / "api-key").read_text().strip() not in up.out + up.err


async def test_the_three_commands_that_it_prints_work(home) -> None:
    async with home.up() as up:
        commands = [line.strip() for line in up.out.split("Try, in another terminal:")[1].splitlines() if line.strip()]
        assert len(commands) == 3
        # One after the other: the second lists what the first made.
        told = ["Add a note", "Add a note", "The server that runs has what it needs"]
        widest = commands[0].replace(f"--data-dir {home.data_dir} ", "").replace(commands[0].split(" run ")[0], ".venv/bin/treadle")
        assert re.sub(r":\d+/", ":7435/", widest) == '.venv/bin/treadle run --repo http://127.0.0.1:7435/sample.git "Add a note"'
        assert len(f"  {widest}") < 80, "broken in mid-word it could not be copied"
        for command, expected in zip(commands, told, strict=True):
            process = await asyncio.create_subprocess_shell(
                command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                env=home.environment,
            )  # fmt: skip
            output, _ = await asyncio.wait_for(process.communicate(), LIMIT_SECONDS)
            assert process.returncode == 0, f"{command}\n{output.decode()}"
            assert expected in output.decode()


async def test_ctrl_c_publishes_running_turns_and_leaves_nothing(home, find_branch) -> None:
    async with home.up() as up, home.started("run", *home.add_gated_recording(), "go on for ever") as run:
        await run.says("first.txt")
        ended = await up.stop()
        told = await run.ended()
    assert ended.code == 0, ended
    assert "1 running turn is being stopped" in ended.out
    assert told.code == 1
    assert "interrupted" in told.out
    assert set(home.pushed(find_branch(told.out))) == {"gated.jsonl", "first.txt"}
    assert home.processes() == []
    assert home.sockets() == []
    assert not (home.data_dir / "address").exists()


async def test_a_second_ctrl_c_leaves_at_once_and_the_next_start_publishes(home, find_branch) -> None:
    async with home.up() as up, home.started("run", *home.add_gated_recording(), "go on for ever") as run:
        await run.says("first.txt")
        up.process.send_signal(signal.SIGINT)
        await up.says("Stopping")
        ended = await up.stop()
        assert ended.code == 0, ended
        assert home.processes() == []
        run.process.kill()
    async with home.up():
        session = (await home.run("sessions")).out.split()[0]
        told = await home.run("resume", session)
    assert set(home.pushed(find_branch(told.out))) == {"gated.jsonl", "first.txt"}, told


async def test_after_sigterm_the_worker_goes_on_and_the_client_with_it(home, find_branch) -> None:
    async with home.up() as up:
        listen = (home.data_dir / "address").read_text().strip()
        async with home.started("run", *home.add_gated_recording(), "go on through a restart") as run:
            await run.says("first.txt")
            ended = await up.stop(signal.SIGTERM)
            assert ended.code == 0, ended
            assert "1 running turn is left to go on" in ended.out
            assert not [line for line in home.processes() if "postgres" in line]
            assert home.processes(), "the worker is gone"
            await run.says("the connection is lost", within="err")
            async with home.up(listen=listen):
                await run.says("goes on after a restart of the server")
                home.open_gate()
                told = await run.ended()
    assert told.code == 0, told
    assert "connected again" in told.err
    assert set(home.pushed(find_branch(told.out))) == {"gated.jsonl", "first.txt", "second.txt"}
    assert home.processes() == []


async def test_after_kill_9_the_next_start_serves(home) -> None:
    async with home.up() as up:
        await up.stop(signal.SIGKILL)
    async with home.up():
        assert (await home.run("sessions")).code == 0
    assert home.processes() == []


async def test_two_on_one_data_directory_are_refused(home) -> None:
    async with home.up():
        second = await home.run("up", "--listen", "127.0.0.1:0")
        demo = await home.run("up", "--listen", "127.0.0.1:0", "--demo")
        assert (await home.run("sessions")).code == 0
    assert second.code == 2
    assert second.err.count("\n") == 1
    assert "another server runs on" in second.err
    assert "to play the demo session there: " in demo.err


async def test_ctrl_c_while_it_starts_stops_it(unused) -> None:
    async with unused.started("up", "--listen", "127.0.0.1:0") as up:
        await up.says("Treadle")
        ended = await up.stop()
    assert ended.code == 0, ended
    assert "stopping as soon as it has started" in ended.out
    assert "A session" not in ended.out
    assert unused.processes() == []


@pytest.mark.parametrize(
    "setting", ["TREADLE_LISTEN", "TREADLE_METRICS_LISTEN", "TREADLE_GATEWAY_LISTEN", "TREADLE_GATEWAY_METRICS_LISTEN"]
)
async def test_a_taken_port_is_named(home, setting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await home.run("up", **({"TREADLE_LISTEN": "127.0.0.1:0"} | {setting: address}))
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert address in ended.err
    assert setting in ended.err
    assert home.processes() == []


async def test_all_taken_ports_are_named_at_once(home) -> None:
    settings = ("TREADLE_LISTEN", "TREADLE_METRICS_LISTEN", "TREADLE_GATEWAY_LISTEN")
    with ExitStack() as stack:
        taken = {}
        for setting in settings:
            taking = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            taken[setting] = f"127.0.0.1:{taking.getsockname()[1]}"
        ended = await home.run("up", **taken)
    assert ended.code == 2
    lines = ended.err.splitlines()
    assert len(lines) == len(settings)
    for line, (setting, address) in zip(lines, taken.items(), strict=True):
        assert address in line
        assert setting in line


async def test_a_setting_that_does_not_fit_is_named(home) -> None:
    ended = await home.run("up", TREADLE_MAX_TURNS="many")
    assert ended.code == 2
    assert "TREADLE_MAX_TURNS" in ended.err
    assert "Traceback" not in ended.err


async def test_a_slip_in_the_name_of_a_setting_stops_the_server_and_no_client(home) -> None:
    """A limit that nobody sees costs money; other versions' settings must not be in the way of a client."""
    slip = {"TREADLE_BUDGET_TURN_USDS": "5"}
    told = "TREADLE_BUDGET_TURN_USDS: there is no such setting; is TREADLE_BUDGET_TURN_USD meant?"
    refused = await home.run("up", **slip)
    assert (refused.code, refused.err) == (2, f"treadle: {told}\n")
    doctor = await home.run("doctor", **slip)
    assert doctor.code == 1
    assert f"no  settings   {told}\n" in doctor.out
    async with home.up():
        listed = await home.run("sessions", **slip)
    assert (listed.code, listed.err) == (0, "")


async def test_it_goes_on_when_nobody_reads_what_it_says(home, find_branch) -> None:
    """`treadle up --demo | head -1`"""
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.cli", "up", "--demo", "--data-dir", str(home.data_dir), "--listen", "127.0.0.1:0",
        stdin=asyncio.subprocess.DEVNULL, stdout=writing, stderr=writing, env=home.environment,
    )  # fmt: skip
    os.close(writing)
    try:
        with os.fdopen(reading, "rb", buffering=0) as screen:
            assert b"Treadle" in await asyncio.to_thread(screen.readline)
        async with asyncio.timeout(LIMIT_SECONDS):
            while (listed := await home.run("sessions")).out.count("Write down what was asked for") < 2:
                await asyncio.sleep(0.05)
            session = listed.out.split()[0]
            told = await home.run("resume", session)
        assert find_branch(told.out)
        assert process.returncode is None
    finally:
        process.send_signal(signal.SIGINT)
        code = await asyncio.wait_for(process.wait(), LIMIT_SECONDS)
    assert code == 0
    assert home.processes() == []


async def test_all_settings_that_do_not_fit_are_named_at_once(home) -> None:
    ended = await home.run("up", "--listen", "nonsense", TREADLE_LOG_LEVEL="bogus", TREADLE_LEASE_SECONDS="-3")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 3
    for setting in ("TREADLE_LISTEN: 'nonsense' is not host:port", "TREADLE_LOG_LEVEL: ", "TREADLE_LEASE_SECONDS: "):
        assert setting in ended.err


@pytest.mark.parametrize("place", ["{data}/replica", "{data}/replica/below", "/proc/treadle"])
async def test_a_data_directory_that_cannot_be_one_is_refused(home, place) -> None:
    place = place.format(data=home.data_dir)
    ended = await home.run("up", TREADLE_DATA_DIR=place)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert place.removesuffix("/below") in ended.err
    assert "--data-dir" in ended.err


async def test_the_gateway_serves_and_goes_with_the_server_also_when_that_is_killed(home) -> None:
    async with home.up() as up:
        found = re.search(r"gateway +http://127\.0\.0\.1:(\d+)", up.out)
        assert found
        key = (home.data_dir / "api-key").read_text().strip()
        request = urllib.request.Request(f"http://127.0.0.1:{found[1]}/v1/sessions", headers={"Authorization": f"Bearer {key}"})
        listed = await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=10).read())
        assert b"sessionId" in listed
        assert any("envoy" in line for line in home.processes())
        await up.stop(signal.SIGKILL)
    async with asyncio.timeout(LIMIT_SECONDS):
        while any("envoy" in line for line in home.processes()):
            await asyncio.sleep(0.01)
