"""What the spawner makes, what it refuses, and what becomes of its containers when nobody asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import grpc
import pytest
from support.containers import (
    containers_of,
    no_containers_left,
    require_engine,
    socket_for,
    spawner_process,
    spawner_settings,
    spawning,
)
from support.requirements import require
from support.workers import assignment, eventually, launched, launcher_in, listen, new_worker, spec

from server.kernel.errors import WorkerLost
from server.kernel.event import WorkerBatch
from server.kernel.ports.launcher import WorkerExit, WorkerId
from server.sandbox.calls import profile
from server.spawner import containers
from server.spawner.containers import Containers, Started
from server.spawner.engine import Engine, EngineAway, State
from server.spawner.root import held_root
from server.spawner.serve import serving
from server.spawner.settings import SpawnerSettings
from server.spawner.slots import Slots
from server.spawner.template import Template
from server.workers.docker import DockerLauncher
from server.workers.slot import Slot, slot_of
from treadle.spawner.v1 import spawner_service_pb2 as wire
from treadle.spawner.v1 import spawner_service_pb2_grpc as stubs

WAITS = [{"say": "hello"}, {"wait_ms": 60_000}]


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[DockerLauncher]:
    async with spawning(tmp_path), launcher_in(tmp_path, "docker") as opened:
        assert isinstance(opened, DockerLauncher)
        yield opened


@pytest.fixture
async def spawner(tmp_path: Path) -> AsyncIterator[Any]:
    """The calls themselves."""
    async with spawning(tmp_path), called(tmp_path) as stub:
        yield stub


@asynccontextmanager
async def called(folder: Path) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"unix:{socket_for(folder)}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield stubs.SpawnerServiceStub(channel)


def container_of(root: Path) -> Any:
    (container,) = containers_of(root)
    return container


async def prepared(launcher: DockerLauncher) -> tuple[WorkerId, Slot]:
    worker = new_worker()
    await launcher.workspace(spec(worker))
    await launcher.furnished(worker)
    return worker, slot_of(launcher._root, worker)


async def test_a_workers_container_is_sealed(launcher: DockerLauncher, tmp_path: Path) -> None:
    async with launched(launcher) as (worker, _, workspace):
        told = container_of(tmp_path / "workers").attrs
        user = slot_of(tmp_path / "workers", worker).user()
    host, config = told["HostConfig"], told["Config"]
    assert (host["NetworkMode"], list(told["NetworkSettings"]["Networks"])) == ("none", ["none"])
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False)
    assert host["SecurityOpt"] == ["no-new-privileges:true", f"seccomp={profile()}"]
    assert (host["ReadonlyRootfs"], host["Init"], host["AutoRemove"]) == (True, True, False)
    assert (host["IpcMode"], host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("private", "", "", "")
    assert host["Memory"] == host["MemorySwap"] == 8192 * 1024**2
    assert (host["NanoCpus"], host["PidsLimit"], host["OomScoreAdj"]) == (10**9, 1024, 500)
    assert (host["Devices"], host["DeviceRequests"], host["VolumesFrom"], host["Binds"]) == (None, None, None, None)
    assert {(limit["Name"], limit["Hard"]) for limit in host["Ulimits"]} == {("nofile", 16_384), ("core", 0)}
    assert (host["LogConfig"]["Type"], host["LogConfig"]["Config"]["max-size"]) == ("local", "1m")
    assert host["RestartPolicy"]["Name"] == "no"
    assert set(host["Tmpfs"]) == {"/tmp", "/home/agent"}
    assert {(mount["Source"], mount["Destination"], mount["RW"]) for mount in told["Mounts"]} == {
        (str(workspace), "/workspace", True),
        (str(workspace.with_name("run")), "/run/treadle", True),
        (str(workspace.with_name("models")), "/run/models", False),
        (str(workspace.with_name("passwd")), "/etc/passwd", False),
        (str(workspace.with_name("group")), "/etc/group", False),
    }
    assert user is not None
    assert user[0] in (range(20_000, 29_999) if os.geteuid() == 0 else [os.geteuid()])
    assert config["User"] == f"{user[0]}:{user[1]}"
    assert {name: value for name, value in config["Labels"].items() if name in ("treadle.turn", "treadle.attempt", "treadle.provider")} == {
        "treadle.turn": worker.turn_id,
        "treadle.attempt": "1",
        "treadle.provider": "replay",
    }


async def test_the_engine_never_learns_a_secret(launcher: DockerLauncher, tmp_path: Path) -> None:
    async with launched(launcher, [{"run": "env"}]) as (worker, link, _):
        slot = slot_of(tmp_path / "workers", worker)
        await listen(link.execute(assignment(worker)), link)
        container = container_of(tmp_path / "workers")
        secrets = [slot.secret().hex(), slot.model_token()]
        places = [json.dumps(container.attrs), container.logs().decode()]
        files = Path(require_engine().info()["DockerRootDir"], "containers", container.id)
        require(os.access(files, os.R_OK), "the engine's own files", "run the tests as root, with the engine on this machine")
        places += [path.read_bytes().decode(errors="replace") for path in files.rglob("*") if path.is_file()]
        assert len(places) > 5
        for secret in secrets:
            assert not [place[:80] for place in places if secret in place]


async def test_a_container_that_somebody_removed_is_a_lost_worker_and_no_other_is_started(launcher: DockerLauncher, tmp_path: Path) -> None:
    async with launched(launcher, WAITS) as (worker, link, _):
        async with aclosing(link.execute(assignment(worker))) as items:
            assert isinstance(await anext(items), WorkerBatch)
            await asyncio.to_thread(container_of(tmp_path / "workers").remove, force=True)
            with pytest.raises(WorkerLost):
                await listen(items, limit=5)
        with pytest.raises(WorkerLost):
            await launcher.launch(worker)
        assert (await launcher.collect(worker)).code is None
        assert containers_of(tmp_path / "workers") == []


async def test_a_container_that_went_while_nobody_looked_is_not_started_again(launcher: DockerLauncher, tmp_path: Path) -> None:
    worker, slot = await prepared(launcher)
    slot.hold("treadle-gone")
    with pytest.raises(WorkerLost):
        await launcher.launch(worker)


async def test_a_spawner_that_is_started_again_knows_its_containers(tmp_path: Path) -> None:
    settings = spawner_settings(tmp_path)
    async with contextlib.AsyncExitStack() as first, contextlib.AsyncExitStack() as second:
        await first.enter_async_context(serving(settings))
        launcher = await second.enter_async_context(launcher_in(tmp_path, "docker"))
        async with launched(launcher, [{"say": "hello"}, {"run": "until test -e go; do sleep 0.05; done"}]) as (worker, link, workspace):
            items = link.execute(assignment(worker))
            await anext(items)
            await first.aclose()
            await first.enter_async_context(serving(settings))
            (workspace / "go").write_text("")
            assert (await listen(items, link)).result is not None
            again = await launcher.launch(worker)
            assert again.has_turn
            await again.close()
            assert (await launcher.collect(worker)).code == 137
            assert (await link.exited()).code == 137
        assert containers_of(tmp_path / "workers") == []


async def test_a_start_that_broke_off_is_finished_by_the_next(
    launcher: DockerLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container was made, and did not run yet."""
    start, broken = Engine.start, []

    async def breaks_once(self: Engine, name: str, line: bytes) -> None:
        if not broken:
            broken.append(name)
            raise EngineAway("just now")
        await start(self, name, line)

    monkeypatch.setattr(Engine, "start", breaks_once)
    async with launched(launcher) as (worker, link, _):
        assert (await listen(link.execute(assignment(worker, model="")), link)).result is not None
        assert len(broken) == 1


async def test_an_end_is_recorded_though_nobody_waits(launcher: DockerLauncher, tmp_path: Path) -> None:
    worker, slot = await prepared(launcher)
    link = await launcher.launch(worker)
    await link.close()
    await asyncio.to_thread(container_of(tmp_path / "workers").kill, "SIGKILL")
    await eventually(lambda: slot.exit() is not None)
    recorded = slot.exit()
    assert recorded is not None
    assert (recorded.code, recorded.oom_killed) == (137, False)
    await launcher.remove(worker)


async def test_a_container_that_somebody_paused_is_ended_too(launcher: DockerLauncher, tmp_path: Path) -> None:
    """The kernel ends no frozen process."""
    async with launched(launcher, WAITS) as (worker, _, _):
        await asyncio.to_thread(container_of(tmp_path / "workers").pause)
        ended = await launcher.collect(worker)
        assert (ended.code, ended.stopped) == (137, True)


async def test_a_root_spawner_uses_no_slot_that_others_can_change(spawner: Any, tmp_path: Path) -> None:
    """Who owns it could swap what is in it for links, while root gives it away and mounts it."""
    require(os.geteuid() == 0, "root", "run the tests as root")
    root = tmp_path / "workers"
    theirs, shared, linked, made = (Slot(root / f"{number}23456789ab") for number in range(4))
    for slot in (theirs, shared):
        await spawner.Prepare(wire.PrepareRequest(slot=slot.path.name), timeout=20)
    os.chown(theirs.path, 65534, 65534)
    shared.path.chmod(0o777)
    linked.path.symlink_to(tmp_path)
    made.make()
    for slot in (theirs, shared, linked, made):
        for call, request in (
            (spawner.Start, wire.StartRequest(slot=slot.path.name, provider="replay")),
            (spawner.Kill, wire.KillRequest(slot=slot.path.name)),
            (spawner.Seal, wire.SealRequest(slot=slot.path.name)),
            (spawner.Remove, wire.RemoveRequest(slot=slot.path.name)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(request, timeout=20)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "was not made by a spawner" in (refused.value.details() or "")
        assert slot.exit() is None
    assert containers_of(root) == []


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[tuple[Containers, Path]]:
    """The containers without a service before them, and their root."""
    settings = spawner_settings(tmp_path)
    root = settings.slots_dir
    with no_containers_left(root), held_root(root) as installation:
        engine = Engine(settings.docker_host)
        looked = Containers(engine, Template(settings), Slots(settings), installation=installation, providers=["replay"])
        await looked.begin()
        after = asyncio.create_task(looked.look_after())
        try:
            yield looked, root
        finally:
            after.cancel()
            await asyncio.wait({after})
            engine.close()


async def furnished(looked: Containers, root: Path) -> Slot:
    worker = new_worker()
    slot = slot_of(root, worker)
    await looked.prepare(slot.path.name)
    slot.furnish()
    return slot


async def test_a_start_that_was_given_up_does_not_happen_after_the_kill(
    held: tuple[Containers, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is slow, and a thread that waits for it cannot be stopped."""
    looked, root = held
    slot, start, entered, go = await furnished(looked, root), docker.APIClient.start, threading.Event(), threading.Event()

    def slow(self: docker.APIClient, *arguments: Any, **options: Any) -> None:
        entered.set()
        go.wait(30)
        start(self, *arguments, **options)

    monkeypatch.setattr(docker.APIClient, "start", slow)
    starting = asyncio.create_task(looked.start(slot.path.name, "replay", {}, furnished=True))
    await asyncio.to_thread(entered.wait, 30)
    starting.cancel()
    killing = asyncio.create_task(looked.kill(slot.path.name))
    await asyncio.wait({killing}, timeout=1)
    assert not killing.done(), "it may still start"
    go.set()
    await asyncio.wait_for(killing, 30)
    assert starting.cancelled()
    assert container_of(root).status == "exited"
    assert slot.exit() is not None


async def test_a_start_that_was_given_up_while_the_engine_made_it_is_finished_by_the_next(
    held: tuple[Containers, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server was killed. Found by killing servers."""
    looked, root = held
    slot, create = await furnished(looked, root), Engine.create

    async def given_up(self: Engine, *arguments: Any) -> None:
        await create(self, *arguments)
        raise asyncio.CancelledError

    monkeypatch.setattr(Engine, "create", given_up)
    with pytest.raises(asyncio.CancelledError):
        await looked.start(slot.path.name, "replay", {}, furnished=True)
    monkeypatch.setattr(Engine, "create", create)
    assert await looked.start(slot.path.name, "replay", {}, furnished=True) is Started.NOW
    assert container_of(root).status == "running"
    assert slot.container() == container_of(root).name


async def test_a_container_that_was_made_and_never_started_goes_with_the_kill(
    held: tuple[Containers, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, root = held
    slot = await furnished(looked, root)

    async def away(self: Engine, name: str, line: bytes) -> None:
        raise EngineAway("just now")

    monkeypatch.setattr(Engine, "start", away)
    with pytest.raises(EngineAway):
        await looked.start(slot.path.name, "replay", {}, furnished=True)
    assert container_of(root).status == "created"
    await looked.kill(slot.path.name)
    assert containers_of(root) == []
    assert slot.exit() is not None


async def test_what_runs_though_its_end_was_told_is_ended(
    launcher: DockerLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spawner was killed while the engine was starting it."""
    monkeypatch.setattr(containers, "_SWEEP_SECONDS", 0.1)
    worker, slot = await prepared(launcher)
    link = await launcher.launch(worker)
    await link.close()
    slot.record(WorkerExit(code=None))
    await eventually(lambda: container_of(tmp_path / "workers").status == "exited", limit=30)
    await launcher.remove(worker)


async def test_an_end_that_takes_long_to_record_keeps_nobody_else_waiting(
    held: tuple[Containers, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, root = held
    slow, quick = await furnished(looked, root), await furnished(looked, root)
    for slot in (slow, quick):
        await looked.start(slot.path.name, "replay", {}, furnished=True)
    output, read, go = Engine.output, asyncio.Event(), asyncio.Event()

    async def slow_for_one(self: Engine, name: str) -> str:
        if name == slow.container():
            read.set()
            await go.wait()
        return await output(self, name)

    monkeypatch.setattr(Engine, "output", slow_for_one)
    monkeypatch.setattr(containers, "_LAST_WORD_SECONDS", 60.0)
    waiting = asyncio.create_task(looked.wait(quick.path.name))
    by_slot = {each.labels["treadle.slot"]: each for each in containers_of(root)}
    await asyncio.to_thread(by_slot[slow.path.name].kill)
    await asyncio.wait_for(read.wait(), 10)
    # Why it ends is known: on a busy machine the kernel's count may go unseen, and then the engine is asked for the time above.
    looked._stopping.add(quick.container())
    await asyncio.to_thread(by_slot[quick.path.name].kill)
    await asyncio.wait_for(waiting, 10)
    assert slow.exit() is None
    go.set()
    await asyncio.wait_for(looked.wait(slow.path.name), 10)


async def test_an_end_whose_slot_is_busy_keeps_nobody_else_waiting(held: tuple[Containers, Path]) -> None:
    looked, root = held
    looked._recording = asyncio.Semaphore(1)
    busy, other = await furnished(looked, root), await furnished(looked, root)
    for slot in (busy, other):
        await looked.start(slot.path.name, "replay", {}, furnished=True)
    waiting = asyncio.create_task(looked.wait(other.path.name))
    by_slot = {each.labels["treadle.slot"]: each for each in containers_of(root)}
    # As for the time of a call that the engine takes long for.
    async with looked._locked(busy.path.name):
        await asyncio.to_thread(by_slot[busy.path.name].kill)
        await asyncio.wait_for(looked._seen[busy.container()].ended(), 10)
        await asyncio.to_thread(by_slot[other.path.name].kill)
        await asyncio.wait_for(waiting, 10)
    await asyncio.wait_for(looked.wait(busy.path.name), 10)


async def test_labels_that_somebody_else_wrote_stop_no_start(held: tuple[Containers, Path]) -> None:
    looked, root = held
    image, installation = looked._template.image("replay"), (root / ".installation").read_text()
    labels = {"treadle.installation": installation, "treadle.uid": "anybody's"}
    stranger = await asyncio.to_thread(require_engine().containers.create, image, labels=labels)
    try:
        await looked.begin()
    finally:
        await asyncio.to_thread(stranger.remove)


async def test_who_waits_no_more_asks_no_more(held: tuple[Containers, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an engine that says of a container that it runs, long after it has ended."""
    looked, root = held
    slot, late, inspect = await furnished(looked, root), asyncio.Event(), Engine.inspect
    await looked.start(slot.path.name, "replay", {}, furnished=True)
    before = asyncio.all_tasks()

    async def behind(self: Engine, name: str) -> State | None:
        late.set()
        state = await inspect(self, name)
        return state and replace(state, status="running")

    monkeypatch.setattr(Engine, "inspect", behind)
    monkeypatch.setattr(containers, "_LAST_WORD_SECONDS", 60.0)
    container_of(root).kill()
    await asyncio.wait_for(looked._seen[slot.container()].ended(), 10)
    waiting = asyncio.create_task(looked.wait(slot.path.name))
    await asyncio.wait_for(late.wait(), 10)
    waiting.cancel()
    await asyncio.wait({waiting})
    monkeypatch.undo()
    await asyncio.wait_for(looked.wait(slot.path.name), 10)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before


async def test_what_a_killed_probe_left_is_removed_by_any_spawner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_SWEEP_SECONDS", 0.1)
    settings = spawner_settings(tmp_path)
    image = settings.worker_image.replace("{provider}", "replay")
    # It says that it is old; probes of other tests run at the same time.
    engine, listed, name = require_engine(), Engine.list, f"treadle-probe-{tmp_path.name[-12:].replace('_', '-')}-{os.getpid()}"

    async def aged(self: Engine, label: str) -> list[State]:
        return [replace(each, created_at=each.created_at - 3600) if each.name == name else each for each in await listed(self, label)]

    monkeypatch.setattr(Engine, "list", aged)
    left, young = (engine.containers.create(image, name=each, labels={"treadle.probe": ""}) for each in (name, f"{name}-young"))
    try:
        async with spawning(tmp_path):
            await eventually(lambda: left.id not in {each.id for each in engine.containers.list(all=True, ignore_removed=True)}, limit=15)
            young.reload()
    finally:
        young.remove(force=True)
        with contextlib.suppress(docker.errors.NotFound):
            left.remove(force=True)


@pytest.mark.parametrize("limit", ["size=8m", "size=64m,nr_inodes=300"], ids=["bytes", "files"])
async def test_a_full_disk_ends_no_spawner_and_what_fills_it_can_be_deleted(tmp_path: Path, limit: str) -> None:
    """Nothing bounds what an agent writes to its workspace."""
    require(os.geteuid() == 0, "root", "run the tests as root")
    root = tmp_path / "workers"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{limit}", "tmpfs", root], check=True)
    try:
        await fill_and_clear(spawner_settings(tmp_path), root, tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)


async def fill_and_clear(settings: SpawnerSettings, root: Path, folder: Path) -> None:
    with no_containers_left(root):
        async with launcher_beside(settings, folder / "first.log") as (launcher, process):
            worker, slot = await prepared(launcher)
            link = await launcher.launch(worker)
            fill = "head -c 100M /dev/zero > /workspace/fill; for i in $(seq 1000); do : > /workspace/$i || break; done"
            await asyncio.to_thread(container_of(root).exec_run, ["sh", "-c", fill])
            await asyncio.to_thread(container_of(root).kill)
            await asyncio.wait_for(link.exited(), 20)
            assert slot.exit() is not None
            assert process.returncode is None
            await link.close()
        async with launcher_beside(settings, folder / "second.log") as (launcher, process):
            assert "wall.untried" in (folder / "second.log").read_text()
            await launcher.remove(worker)
            assert containers_of(root) == []
            async with launched(launcher) as (worker, link, _):
                assert (await listen(link.execute(assignment(worker, model="")), link)).result is not None
            assert process.returncode is None


@asynccontextmanager
async def launcher_beside(settings: SpawnerSettings, log: Path) -> AsyncIterator[tuple[DockerLauncher, asyncio.subprocess.Process]]:
    """A launcher, and the spawner's own process."""
    async with spawner_process(settings, log) as process:
        await eventually(lambda: socket_for(settings.data_dir).exists() or process.returncode is not None, limit=20)
        assert process.returncode is None, log.read_text()
        async with launcher_in(settings.data_dir, "docker") as opened:
            assert isinstance(opened, DockerLauncher)
            yield opened, process


MEMORY = {"worker_memory_mib": 256, "worker_tmp_mib": 512}
# What is in /tmp stays when the program that wrote it is killed, so the next to be killed is the worker.
FILL = {"run": "head -c 400M /dev/zero > /tmp/full; head -c 400M /dev/zero > /tmp/full; true"}


async def test_out_of_memory_is_told_apart_though_the_worker_lives(tmp_path: Path) -> None:
    async with spawning(tmp_path, **MEMORY), launcher_in(tmp_path, "docker") as launcher:
        steps = [{"run": ["python3", "-c", "bytearray(400 << 20)"]}, {"say": "what was that?"}]
        async with launched(launcher, steps) as (worker, link, _):
            heard = await listen(link.execute(assignment(worker)), link)
            assert heard.outputs()[0][0] == 137
            assert heard.result is not None
            assert (await launcher.collect(worker)).oom_killed
        async with launched(launcher, WAITS) as (worker, _, _):
            assert not (await launcher.collect(worker)).oom_killed


async def test_a_worker_that_runs_out_of_memory_is_lost_for_that_reason(tmp_path: Path) -> None:
    async with (
        spawning(tmp_path, **MEMORY),
        launcher_in(tmp_path, "docker") as launcher,
        launched(launcher, [FILL, *([{"burst": 1000, "text": "x" * 10_000}] * 20)]) as (worker, link, _),
    ):
        with pytest.raises(WorkerLost):
            await listen(link.execute(assignment(worker)), link)
        assert (await launcher.collect(worker)).oom_killed


@pytest.mark.parametrize("says", ["kernel", "engine"])
async def test_why_it_was_killed_is_known_though_the_engine_is_late_to_learn_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """Its end and the lack of memory reach it on two ways. With a runtime of the operator's choice, and where the spawner does not see the
    processes, it is the only one that knows."""
    inspect, hear, ended = Engine.inspect, Engine.happenings, []

    async def late(self: Engine, name: str) -> State | None:
        state = await inspect(self, name)
        if state is not None and state.status == "exited":
            ended.append(name)
        return replace(state, oom_killed=state.oom_killed and says == "engine" and len(ended) > 5) if state else None

    @asynccontextmanager
    async def deaf(self: Engine, label: str) -> AsyncIterator[asyncio.Queue[tuple[str, str] | None]]:
        heard: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()
        async with hear(self, label) as all_of_it:

            async def pass_on() -> None:
                while True:
                    each = await all_of_it.get()
                    if each is None or each[0] != "oom":
                        heard.put_nowait(each)

            passing = asyncio.create_task(pass_on())
            try:
                yield heard
            finally:
                passing.cancel()

    monkeypatch.setattr(Engine, "inspect", late)
    monkeypatch.setattr(Engine, "happenings", deaf)
    if says == "engine":
        monkeypatch.setattr(containers, "first_process", lambda state, ended: None)
    async with (
        spawning(tmp_path, **MEMORY),
        launcher_in(tmp_path, "docker") as launcher,
        launched(launcher, [FILL, *([{"burst": 1000, "text": "x" * 10_000}] * 20)]) as (worker, link, _),
    ):
        with pytest.raises(WorkerLost):
            await listen(link.execute(assignment(worker)), link)
        assert (await launcher.collect(worker)).oom_killed


async def test_a_worker_that_is_too_old_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_SWEEP_SECONDS", 0.1)
    async with (
        spawning(tmp_path, worker_seconds=6),
        launcher_in(tmp_path, "docker") as launcher,
        launched(launcher, WAITS) as (worker, link, _),
    ):
        with pytest.raises(WorkerLost):
            await listen(link.execute(assignment(worker)), link, limit=20)
        assert (await link.exited()).code == 137


async def test_what_has_no_slot_is_removed_and_what_is_others_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_SWEEP_SECONDS", 0.1)
    engine = require_engine()
    async with spawning(tmp_path) as settings, launcher_in(tmp_path, "docker") as launcher:
        image = settings.worker_image.replace("{provider}", "replay")
        mine, slot = (tmp_path / "workers" / ".installation").read_text(), "0123456789ab"
        forged = {"treadle.installation": mine, "treadle.slot": slot, "treadle.seal": "0" * 32}
        strangers = [
            engine.containers.run(image, ["-c", "import time; time.sleep(60)"], entrypoint="python3", detach=True, labels=labels, name=name)
            for name, labels in (
                (None, {}),
                (f"treadle-{mine[::-1]}-{slot}", {"treadle.installation": "another", "treadle.slot": slot}),
                # By a program that has read our labels.
                (f"treadle-{mine}-{slot}", forged),
                (None, forged),
            )
        ]
        try:
            worker, made = await prepared(launcher)
            link = await launcher.launch(worker)
            await link.close()
            made.delete()
            others = {stranger.id for stranger in strangers}
            await eventually(lambda: not {each.id for each in containers_of(tmp_path / "workers")} - others, limit=15)
            for stranger in strangers:
                stranger.reload()
                assert stranger.status == "running"
        finally:
            for stranger in strangers:
                stranger.remove(force=True)


@pytest.mark.parametrize("slot", ["", ".", "..", "../x", "/etc", "a/b", "A", ".installation", "-x", "x" * 41, "a\n", "slot\0"])
async def test_only_slots_can_be_named(spawner: Any, slot: str) -> None:
    for call, request in (
        (spawner.Start, wire.StartRequest(slot=slot, provider="replay")),
        (spawner.Prepare, wire.PrepareRequest(slot=slot)),
        (spawner.Prepare, wire.PrepareRequest(slot="0123456789ab", waiting=[slot])),
        (spawner.Seal, wire.SealRequest(slot=slot)),
        (spawner.Occupied, wire.OccupiedRequest(slot=slot)),
        (spawner.Wait, wire.WaitRequest(slot=slot)),
        (spawner.Kill, wire.KillRequest(slot=slot)),
        (spawner.Remove, wire.RemoveRequest(slot=slot)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(request, timeout=20)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_asked_for_must_be_there(spawner: Any, tmp_path: Path) -> None:
    root = tmp_path / "workers"
    slot = Slot(root / "0123456789ab")
    with pytest.raises(grpc.aio.AioRpcError) as none:
        await spawner.Start(wire.StartRequest(slot=slot.path.name, provider="replay"), timeout=20)
    assert none.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "TREADLE_WORKER_ROOT" in (none.value.details() or "")
    await spawner.Prepare(wire.PrepareRequest(slot=slot.path.name), timeout=20)
    for fields, code, said in (
        ({"provider": "nobody"}, grpc.StatusCode.FAILED_PRECONDITION, "there is no image for the agent 'nobody'"),
        ({"provider": "../replay"}, grpc.StatusCode.FAILED_PRECONDITION, "there is no image"),
        ({"provider": "replay", "labels": wire.WorkerLabels(turn_id="a b")}, grpc.StatusCode.INVALID_ARGUMENT, "turn"),
        ({"provider": "replay", "labels": wire.WorkerLabels(tenant_id="x" * 65)}, grpc.StatusCode.INVALID_ARGUMENT, "tenant"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await spawner.Start(wire.StartRequest(slot=slot.path.name, **fields), timeout=20)
        assert refused.value.code() is code
        assert said in (refused.value.details() or "")
    assert containers_of(root) == []


async def test_all_containers_are_listed(launcher: DockerLauncher, tmp_path: Path) -> None:
    async with called(tmp_path) as spawner, launched(launcher) as (worker, _, _):
        (found,) = (await spawner.List(wire.ListRequest(), timeout=20)).containers
        assert (found.slot, found.provider, found.running) == (slot_of(tmp_path / "workers", worker).path.name, "replay", True)
        assert (found.labels.turn_id, found.labels.attempt, found.labels.tenant_id) == (worker.turn_id, 1, "t")
        await launcher.collect(worker)
        (found,) = (await spawner.List(wire.ListRequest(), timeout=20)).containers
        assert not found.running
        await launcher.remove(worker)
        assert not (await spawner.List(wire.ListRequest(), timeout=20)).containers
