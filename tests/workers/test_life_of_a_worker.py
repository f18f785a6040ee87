"""A worker from launch to removal, with the real process, sandbox, socket and agent."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from contextlib import ExitStack, aclosing
from pathlib import Path

import pytest
from support.launchers import ALL_KINDS, KINDS, opened
from support.workers import alive, assignment, eventually, launched, launcher_in, listen, new_worker, play, processes_with, python_of, spec

from server.kernel.errors import LaunchFailed, WorkerLost
from server.kernel.event import WorkerBatch
from server.kernel.ports.launcher import WorkerExit, WorkerId, WorkerResult
from server.kernel.turn import TurnCode, TurnState
from server.sandbox.bubblewrap import SANDBOX_ID
from server.sandbox.probe import Unavailable
from server.workers import process
from server.workers.local import LocalLauncher
from server.workers.slot import slot_of

FIFTY = [step for n in range(10) for step in ({"say": f"message {n}", "ms": 100}, {"think": f"{n}"}, {"run": f"echo {n}"})]


async def test_a_turn_runs_and_its_files_are_there(launcher: LocalLauncher) -> None:
    async with launched(launcher) as (worker, link, workspace):
        assert not link.has_turn
        heard = await listen(link.execute(assignment(worker, model="")), link)
        assert heard.result is not None
        assert heard.result.outcome.status is TurnState.COMPLETED
        assert heard.result.last_worker_seq == len(heard.bodies)
        await launcher.collect(worker)
        assert (workspace / "treadle-notes" / "turn-1.md").read_text().count("please do it") == 1
        assert (0, "ok 1 - turn-1.md\n1..1\n") in heard.outputs()


async def test_the_workspace_of_a_worker_that_never_started_can_be_read_back(launcher: LocalLauncher) -> None:
    worker = new_worker()
    workspace = await launcher.workspace(spec(worker))
    (workspace / "docs").mkdir()
    (workspace / "docs" / "a.md").write_text("a\n")
    await launcher.furnished(worker)
    assert (await launcher.collect(worker)).code is None
    left = await launcher.left(worker)
    # Whoever reads hostile trees.
    reader = SANDBOX_ID if os.geteuid() == 0 else os.geteuid()
    assert {path.stat().st_uid for path in (left, left / "docs", left / "docs" / "a.md")} == {reader}
    await launcher.remove(worker)


async def test_every_event_can_be_resumed_from(launcher: LocalLauncher) -> None:
    async with launched(launcher, FIFTY) as (worker, link, _):
        whole = await listen(link.execute(assignment(worker)))
        assert len(whole.bodies) >= 50
        for after in range(len(whole.bodies) + 1):
            rest = await listen(link.resume(after))
            assert rest.bodies == whole.bodies[after:]
            assert rest.result == whole.result


async def test_a_stream_cut_again_and_again_while_it_grows_loses_nothing(launcher: LocalLauncher) -> None:
    async with launched(launcher, FIFTY) as (worker, link, _):
        bodies: list[bytes] = []
        result, cuts = None, 0
        while result is None:
            items = link.resume(len(bodies)) if cuts else link.execute(assignment(worker))
            cuts += 1
            async with aclosing(items) as stream:
                async for item in stream:
                    if isinstance(item, WorkerResult):
                        result = item
                        break
                    assert item.first_worker_seq == len(bodies) + 1
                    bodies += item.bodies
                    await link.acknowledge(item.last_worker_seq)
                    break
        assert cuts > 10
        assert result.last_worker_seq == len(bodies)


async def test_two_servers_that_launch_the_same_worker_start_one(launcher: LocalLauncher, tmp_path: Path) -> None:
    async with launcher_in(tmp_path, launcher.capability.name) as other:
        worker = new_worker()
        await launcher.workspace(spec(worker))
        await launcher.furnished(worker)
        links = await asyncio.gather(launcher.launch(worker), other.launch(worker), launcher.launch(worker))
        assert len({link._connection.metadata for link in links}) == 1, "one nonce, so one worker"
        for link in links:
            await link.close()
        await launcher.remove(worker)


async def test_a_killed_worker_is_lost_within_five_seconds(launcher: LocalLauncher) -> None:
    async with launched(launcher, [{"say": "hello"}, {"wait_ms": 60_000}]) as (worker, link, _):
        async with aclosing(link.execute(assignment(worker))) as items:
            assert isinstance(await anext(items), WorkerBatch)
            os.kill(python_of(launcher, worker), signal.SIGKILL)
            killed = time.monotonic()
            with pytest.raises(WorkerLost):
                await listen(items)
            assert time.monotonic() - killed < 5
        assert (await link.exited()).code == 137
        with pytest.raises(WorkerLost):
            await launcher.launch(worker)


async def test_interrupt_ends_the_agent_and_its_commands_within_a_second(launcher: LocalLauncher) -> None:
    naps = "sleep 1000.25 & sh -c 'sleep 1000.25' & echo started; exec sleep 1000.25"
    async with launched(launcher, [{"run": naps}]) as (worker, link, _):
        async with aclosing(link.execute(assignment(worker))) as items:
            seen = b""
            while b"started" not in seen:
                item = await anext(items)
                assert isinstance(item, WorkerBatch)
                seen += b"".join(item.bodies)
            await eventually(lambda: processes_with("1000.25"))
            asked = time.monotonic()
            await link.interrupt("the user said so")
            heard = await listen(items)
            assert time.monotonic() - asked < 1
        assert heard.result is not None
        assert heard.result.outcome.status is TurnState.INTERRUPTED
        assert heard.result.outcome.message == "the user said so"
        assert not processes_with("1000.25")


async def test_what_got_away_by_forking_twice_is_gone_after_the_turn(launcher: LocalLauncher) -> None:
    escape = "(setsid sh -c 'while :; do date +%N > late; sleep 0.01; done' >/dev/null 2>&1 &) ; sleep 0.1"
    async with launched(launcher, [{"run": escape}]) as (worker, link, workspace):
        await listen(link.execute(assignment(worker)), link)
        await launcher.collect(worker)
        last = (workspace / "late").read_bytes()
        await asyncio.sleep(0.1)
        assert (workspace / "late").read_bytes() == last


async def test_collect_ends_a_running_worker_and_everything_below(launcher: LocalLauncher) -> None:
    escape = "(setsid sleep 1000.75 >/dev/null 2>&1 &); echo up; sleep 1000.75"
    async with launched(launcher, [{"run": escape}]) as (worker, link, _):
        async with aclosing(link.execute(assignment(worker))) as items:
            seen = b""
            while b"up" not in seen:
                item = await anext(items)
                assert isinstance(item, WorkerBatch)
                seen += b"".join(item.bodies)
            await eventually(lambda: len(processes_with("\0001000.75")) == 2)
            pid = python_of(launcher, worker)
            exit_ = await launcher.collect(worker)
        assert exit_.code == 137
        assert not processes_with("1000.75")
        assert not alive(pid)
        assert await launcher.collect(worker) == exit_


def shim_of(launcher: LocalLauncher, worker: WorkerId) -> int:
    process = slot_of(launcher._root, worker).process()
    assert process is not None
    return process[0]


@pytest.mark.parametrize("launcher", ["process"], indirect=True)
async def test_a_shim_that_was_killed_takes_its_worker_along(launcher: LocalLauncher) -> None:
    async with launched(launcher, [{"run": "echo up; sleep 1000.5"}]) as (worker, link, _):
        async with aclosing(link.execute(assignment(worker))) as items:
            seen = b""
            while b"up" not in seen:
                item = await anext(items)
                assert isinstance(item, WorkerBatch)
                seen += b"".join(item.bodies)
            os.kill(shim_of(launcher, worker), signal.SIGKILL)
            with pytest.raises(WorkerLost):
                await listen(items, limit=5)
        assert (await launcher.collect(worker)).code is None
        assert not processes_with("1000.5")


async def test_no_worker_starts_in_a_slot_that_was_collected(launcher: LocalLauncher) -> None:
    worker = new_worker()
    await launcher.workspace(spec(worker))
    await launcher.furnished(worker)
    assert await launcher.collect(worker) == WorkerExit(code=None)
    with pytest.raises(WorkerLost):
        await launcher.launch(worker)
    assert await launcher.leftovers() == [worker]
    await launcher.remove(worker)
    await launcher.remove(worker)
    assert await launcher.leftovers() == []


async def test_the_secret_is_in_no_command_line_and_no_environment(launcher: LocalLauncher, tmp_path: Path) -> None:
    async with launched(launcher, [{"wait_ms": 5}]) as (worker, _, _):
        secret = slot_of(tmp_path / "workers", worker).secret()
        for entry in Path("/proc").iterdir():
            for name in ("cmdline", "environ"):
                try:
                    content = (entry / name).read_bytes()
                except OSError:
                    continue
                assert secret not in content
                assert secret.hex().encode() not in content


async def test_an_agent_waits_while_nothing_is_acknowledged(launcher: LocalLauncher) -> None:
    """After 2,048 events the agent stands still; the file after the burst appears only when the server has caught up."""
    async with launched(launcher, [{"burst": 3000, "text": "x"}, {"write": "after", "content": "y"}]) as (worker, link, workspace):
        async with aclosing(link.execute(assignment(worker))) as items:
            count = 0
            while count < 2048:
                item = await anext(items)
                assert isinstance(item, WorkerBatch)
                count = item.last_worker_seq
            assert count == 2048
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(items)
            assert not (workspace / "after").exists()
        await link.acknowledge(count)
        heard = await listen(link.resume(count), link)
        assert heard.result is not None
        assert heard.result.last_worker_seq == count + len(heard.bodies) == 3003
        await launcher.collect(worker)
        assert (workspace / "after").exists()


async def test_a_failing_agent_is_a_failed_turn_with_its_words(launcher: LocalLauncher) -> None:
    heard = await play(launcher, {"say": "well"}, {"fail": "the model is out of ideas"})
    assert heard.result is not None
    outcome = heard.result.outcome
    assert (outcome.status, outcome.code, outcome.message) == (TurnState.FAILED, TurnCode.PROVIDER, "the model is out of ideas")


async def test_a_provider_that_is_not_there_fails_the_turn(launcher: LocalLauncher) -> None:
    async with launched(launcher) as (worker, link, _):
        heard = await listen(link.execute(assignment(worker, provider="nobody")))
        assert heard.result is not None
        assert "nobody" in heard.result.outcome.message


@pytest.mark.parametrize("kind", ALL_KINDS)
async def test_a_worker_without_a_server_gives_up(kind: str, tmp_path: Path) -> None:
    # Long enough for the server to come at all, on a busy machine.
    async with opened(kind, tmp_path, worker_orphan_seconds=3) as launcher, launched(launcher) as (_, link, _):
        async with asyncio.timeout(60):
            assert (await link.exited()).code == 0


async def test_without_a_sandbox_only_bundled_recordings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "probe", lambda: Unavailable("no bubblewrap", "install bubblewrap"))
    async with launcher_in(tmp_path) as launcher:
        assert not launcher.capability.sandboxed
        assert launcher.capability.remedy == "install bubblewrap"
        async with launched(launcher) as (worker, link, workspace):
            for refused in (assignment(worker), assignment(worker, model="", provider="claude")):
                with pytest.raises(LaunchFailed):
                    await listen(link.execute(refused))
            heard = await listen(link.execute(assignment(worker, model="")), link)
            assert heard.result is not None
            assert heard.result.outcome.status is TurnState.COMPLETED
            assert (workspace / "treadle-notes" / "turn-1.md").exists()


def has_reader(fifo: Path, opened_files: ExitStack) -> bool:
    """Whether somebody reads the FIFO; it is then held open for writing, so that the reader waits, until the stack is closed."""
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    opened_files.callback(os.close, descriptor)
    return True


@pytest.mark.parametrize("launcher", KINDS, indirect=True)
async def test_a_fork_bomb_is_stopped_and_its_neighbour_is_not(launcher: LocalLauncher) -> None:
    """The limit counts within one sandbox, although all workers have the same uid."""
    bomb = "(i=0; while [ $i -lt 1100 ]; do sleep 1000.375 & i=$((i+1)); done); code=$?; read go < gate; exit $code"
    async with (
        launched(launcher, [{"run": "sleep 0"}]) as (neighbour, near, _),
        launched(launcher, [{"run": bomb}]) as (worker, link, workspace),
    ):
        gate = workspace / "gate"
        os.mkfifo(gate)
        gate.chmod(0o644)
        bombing = asyncio.create_task(listen(link.execute(assignment(worker)), link, limit=100))
        with ExitStack() as opened_files:
            # A shell that reads the gate has met the limit, and all that it started is still there.
            await eventually(lambda: has_reader(gate, opened_files), limit=90)
            assert len(processes_with("\0001000.375")) > 500
            heard = await listen(near.execute(assignment(neighbour)), near)
            assert heard.outputs()[0][0] == 0
        # Closed: the shell reads the end of the file, and goes on.
        ((code, output),) = (await bombing).outputs()
        assert code != 0
        assert "fork" in output.lower()


async def test_an_acknowledgement_that_was_lost_can_be_repeated(launcher: LocalLauncher) -> None:
    """A worker whose window is full stands still until it hears; so the server must know that it was not heard."""
    async with launched(launcher, [{"burst": 3000, "text": "x"}]) as (worker, link, _):
        pid = python_of(launcher, worker)
        async with aclosing(link.execute(assignment(worker))) as items:
            last = 0
            while last < 2048:
                item = await anext(items)
                assert isinstance(item, WorkerBatch)
                last = item.last_worker_seq
            os.kill(pid, signal.SIGSTOP)
            try:
                assert not await link.acknowledge(last)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert await link.acknowledge(last)
            async with asyncio.timeout(10):
                await anext(items)


async def test_half_a_surrogate_pair_ends_no_turn_without_a_result(launcher: LocalLauncher) -> None:
    heard = await play(launcher, {"say": "\ud800 hello"})
    assert heard.result is not None
    assert "? hello" in "".join(event.content_delta.data for event in heard.events)
