"""Slots belong to the spawner: whoever the server is, and whatever becomes of it, nothing else is mounted, given away or deleted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.containers import containers_of, no_containers_left, spawner_process, spawner_settings
from support.postgres import open_directory
from support.requirements import require
from support.workers import assignment, eventually, launched, launcher_in, listen, python_of

from server.door_socket import bound
from server.refusal import StartRefused
from server.spawner.serve import serving
from server.spawner.settings import SpawnerSettings
from server.workers.slot import Slot
from treadle.spawner.v1 import spawner_service_pb2 as wire
from treadle.spawner.v1 import spawner_service_pb2_grpc as stubs

SERVER = 10_000


@pytest.fixture(autouse=True)
def _root() -> None:
    require(os.geteuid() == 0, "root", "run the tests as root")


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[SpawnerSettings]:
    """A spawner that is root, for a server that is not."""
    with open_directory() as place:
        changes: dict[str, Any] = {"worker_root": place / "workers", "spawner_socket": place / "spawner.sock"}
        made = spawner_settings(tmp_path, server_user=str(SERVER), worker_memory_mib=256, **changes)
        with no_containers_left(made.slots_dir):
            yield made


@asynccontextmanager
async def called(settings: SpawnerSettings) -> AsyncIterator[Any]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{settings.spawner_address}", options=options) as channel:
        yield stubs.SpawnerServiceStub(channel)


@pytest.fixture
async def spawner(settings: SpawnerSettings) -> AsyncIterator[Any]:
    async with serving(settings), called(settings) as stub:
        yield stub


async def prepared(spawner: Any, settings: SpawnerSettings, name: str = "0123456789ab", *waiting: str) -> Slot:
    await spawner.Prepare(wire.PrepareRequest(slot=name, waiting=waiting), timeout=20)
    return Slot(settings.slots_dir / name)


def as_server(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A shell of the server's user."""
    become = ["setpriv", f"--reuid={SERVER}", f"--regid={SERVER}", "--clear-groups", "--"]
    return subprocess.run([*become, "sh", "-c", script], cwd=directory, capture_output=True, text=True, check=False)


HOSTILE = [
    "mv workspace elsewhere",
    "rmdir workspace",
    "rmdir run && ln -s /etc run",
    "ln -s /etc/shadow added",
    "mv models state/models",
    "mv -T state workspace",
    "rm secret",
    "echo 0 0 > user",
    "rm user && echo 0 0 > user",
    "echo root::0:0::/:/bin/sh > passwd",
    "echo treadle-other > container",
    "echo '{}' > exit",
    "chmod 777 .",
    "chown 10000 run",
    "mkdir ../forged",
    "mkdir ../.new-forged",
    "mv . ../ffffffffffff",
    "mv ../0123456789ab ../ffffffffffff",
    "ln -s /etc ../eeeeeeeeeeee",
    "rm -rf ../.installation",
    "mv .. ../../elsewhere",
]


async def test_a_server_of_another_user_changes_no_name_in_a_slot(spawner: Any, settings: SpawnerSettings) -> None:
    slot = await prepared(spawner, settings)

    def names() -> set[tuple[str, int, int]]:
        found = [slot.path, *slot.path.iterdir(), *settings.slots_dir.iterdir()]
        return {(path.name, path.lstat().st_uid, path.lstat().st_mode) for path in found}

    before = names()
    for script in HOSTILE:
        assert as_server(script, slot.path).returncode != 0, script
        assert names() == before, script
    done = as_server("cat secret user && ls .. && echo x > workspace/x && echo x > state/x && echo x > models/x", slot.path)
    assert done.returncode == 0, done.stderr
    assert slot.secret().hex() in done.stdout


async def test_what_a_hostile_server_puts_into_its_places_gets_nothing_mounted_or_given(spawner: Any, settings: SpawnerSettings) -> None:
    slot = await prepared(spawner, settings)
    secret = settings.slots_dir.parent / "root-only"
    secret.write_text("root's")
    secret.chmod(0o600)
    told = as_server(
        f"cd workspace && ln -s {secret} link && ln -s / up && mkdir -p a/b && ln -s ../../.. a/b/out && ln {secret} hard; cd .. "
        f"&& rmdir state && mkdir state; ln -s {secret} models/model.sock && ln -s / models/up && ln -s {secret} state/furnished",
        slot.path,
    )
    assert "state" in told.stderr, "it may not even replace a directory of its own"
    # What a kernel without fs.protected_hardlinks would let it do.
    (slot.workspace / "second").hardlink_to(secret)
    await spawner.Start(wire.StartRequest(slot=slot.path.name, provider="replay", furnished=True), timeout=30)
    (container,) = containers_of(settings.slots_dir)
    user = slot.user()
    assert user is not None
    sources = {mount["Source"] for mount in container.attrs["Mounts"]}
    assert sources == {str(slot.path / name) for name in ("workspace", "run", "models", "passwd", "group")}
    inside = container.exec_run(["cat", "/workspace/link", "/workspace/second", "/run/models/model.sock"])
    assert b"root's" not in inside.output
    assert (slot.workspace / "a" / "b").stat().st_uid == user[0]
    await spawner.Kill(wire.KillRequest(slot=slot.path.name), timeout=30)
    assert slot.workspace.stat().st_uid == (slot.workspace / "a" / "b").stat().st_uid == SERVER
    await spawner.Remove(wire.RemoveRequest(slot=slot.path.name), timeout=30)
    assert not slot.path.exists()
    assert (secret.read_text(), secret.stat().st_uid, stat.S_IMODE(secret.stat().st_mode)) == ("root's", 0, 0o600)


async def test_two_live_slots_share_no_user_though_the_spawner_is_killed(settings: SpawnerSettings, tmp_path: Path) -> None:
    few = settings.model_copy(update={"worker_uids": "20000-20003"})
    few.model_fields_set.add("worker_uids")
    names = [f"{number}23456789ab" for number in range(3)]
    async with spawner_process(few, tmp_path / "1.log") as first:
        await eventually(lambda: few.spawner_address.exists(), limit=30)
        async with called(few) as spawner:
            slots = [await prepared(spawner, few, name) for name in names]
            await spawner.Start(wire.StartRequest(slot=names[0], provider="replay"), timeout=30)
            assert {slot.user() for slot in slots} == {(uid, uid) for uid in range(20_000, 20_003)}
            with pytest.raises(grpc.aio.AioRpcError, match="TREADLE_WORKER_UIDS"):
                await prepared(spawner, few, "fourth")
        first.kill()
    few.spawner_address.unlink()
    async with spawner_process(few, tmp_path / "2.log"):
        await eventually(lambda: few.spawner_address.exists(), limit=30)
        async with called(few) as spawner:
            with pytest.raises(grpc.aio.AioRpcError, match="TREADLE_WORKER_UIDS"):
                await prepared(spawner, few, "fourth")
            freed = slots[0].user()
            await spawner.Remove(wire.RemoveRequest(slot=names[0]), timeout=30)
            assert (await prepared(spawner, few, "fourth")).user() == freed
            assert containers_of(few.slots_dir) == []


async def test_what_a_killed_spawner_was_making_or_deleting_is_cleared(settings: SpawnerSettings) -> None:
    async with serving(settings), called(settings) as spawner:
        making, deleting = [await prepared(spawner, settings, name) for name in ("making", "deleting")]
    user = deleting.user()
    for slot, name in ((making, ".new-12345678"), (deleting, ".gone-deleting12345678")):
        slot.path.rename(settings.slots_dir / name)
    async with serving(settings):
        await eventually(lambda: not [*settings.slots_dir.glob(".new-*"), *settings.slots_dir.glob(".gone-*")])
    assert user is not None


@pytest.mark.parametrize("torn", ["", "\0" * 11])
async def test_a_slot_whose_user_a_power_cut_has_torn_is_no_others_trouble(settings: SpawnerSettings, torn: str) -> None:
    async with serving(settings), called(settings) as spawner:
        slot = await prepared(spawner, settings, "torn")
        await prepared(spawner, settings, "other")
    user = slot.user()
    assert user is not None
    (slot.workspace / "work").write_text("done")
    for given in (slot.workspace / "work", slot.workspace):
        os.chown(given, *user)
    (slot.path / "user").write_text(torn)
    async with serving(settings), called(settings) as spawner:
        started = await spawner.Start(wire.StartRequest(slot="other", provider="replay", furnished=True), timeout=30)
        assert started.outcome == wire.START_OUTCOME_STARTED
        with pytest.raises(grpc.aio.AioRpcError, match="slot torn does not say any more whose it is"):
            await spawner.Start(wire.StartRequest(slot="torn", provider="replay", furnished=True), timeout=30)
        # What is in it is wanted all the same.
        await spawner.Kill(wire.KillRequest(slot="torn"), timeout=30)
        assert (slot.workspace / "work").stat().st_uid == slot.workspace.stat().st_uid == SERVER
        for name in ("torn", "other"):
            await spawner.Remove(wire.RemoveRequest(slot=name), timeout=30)
        assert not slot.path.exists()


async def test_a_slot_that_waits_is_taken_once(spawner: Any, settings: SpawnerSettings) -> None:
    waiting = await prepared(spawner, settings, "pool-replay-1")
    # Nobody waits there yet.
    assert not (await spawner.Prepare(wire.PrepareRequest(slot="none", waiting=["pool-replay-1"]), timeout=20)).taken
    await spawner.Start(wire.StartRequest(slot="pool-replay-1", provider="replay"), timeout=30)
    user = waiting.user()
    calls = [spawner.Prepare(wire.PrepareRequest(slot=f"turn-{n}", waiting=["pool-replay-1"]), timeout=20) for n in range(4)]
    taken = [answer.taken for answer in await asyncio.gather(*calls)]
    assert sorted(taken) == ["", "", "", "pool-replay-1"]
    winner = Slot(settings.slots_dir / f"turn-{taken.index('pool-replay-1')}")
    assert winner.user() == user
    # The name that it had is nobody's: whoever removes it hits no other.
    await spawner.Remove(wire.RemoveRequest(slot="pool-replay-1"), timeout=30)
    (container,) = containers_of(settings.slots_dir)
    assert container.status == "running"
    repeated = await spawner.Prepare(wire.PrepareRequest(slot=winner.path.name, waiting=["pool-replay-1"]), timeout=20)
    assert not repeated.taken


async def test_the_disk_is_seen_by_the_spawner(spawner: Any, settings: SpawnerSettings) -> None:
    slot = await prepared(spawner, settings)
    (slot.workspace / "closed").mkdir(mode=0)
    (slot.workspace / "closed" / "large").write_bytes(b"x" * 2_000_000)
    told = await spawner.Occupied(wire.OccupiedRequest(slot=slot.path.name), timeout=20)
    assert 2_000_000 <= told.bytes < 4_000_000
    assert (told.files, told.uncounted) == (3, False)


async def test_a_place_for_the_socket_that_others_can_change_is_refused(settings: SpawnerSettings) -> None:
    shared = settings.slots_dir.parent / "shared"
    shared.mkdir()
    os.chown(shared, SERVER, SERVER)
    with pytest.raises(StartRefused, match=r"TREADLE_SPAWNER_SOCKET: the spawner is root, and .*shared can be changed by others"):
        async with serving(settings.model_copy(update={"spawner_socket": shared / "spawner.sock"})):
            pass


EXHAUST = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
while libc.inotify_init1(0) >= 0: pass
print("none left" if libc.inotify_init1(0) < 0 else "some left", flush=True)
open("/workspace/exhausted", "w").close()
time.sleep(60)
"""
TRY = "import ctypes; print('one more' if ctypes.CDLL(None).inotify_init1(0) >= 0 else 'none left')"


async def test_what_the_kernel_counts_by_user_is_each_workers_own(tmp_path: Path) -> None:
    settings = spawner_settings(tmp_path, worker_memory_mib=256)
    with no_containers_left(settings.slots_dir):
        async with serving(settings), launcher_in(tmp_path, "docker") as launcher:
            greedy = [{"run": ["python3", "-c", EXHAUST]}]
            async with launched(launcher, greedy) as (worker, link, workspace):
                exhausting = asyncio.create_task(listen(link.execute(assignment(worker)), link))
                await eventually(lambda: (workspace / "exhausted").exists(), limit=20)
                async with launched(launcher, [{"run": ["python3", "-c", TRY]}]) as (other, link_to_other, _):
                    heard = await listen(link_to_other.execute(assignment(other)), link_to_other)
                    assert heard.outputs() == [(0, "one more\n")]
                exhausting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await exhausting


HOGS = """
import subprocess, sys
hog = [sys.executable, "-c", "x = bytearray(12 << 20); print(flush=True); input()"]
running = []
while all(each.poll() is None for each in running):
    running.append(subprocess.Popen(hog, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    running[-1].stdout.readline()
for each in running:
    each.kill()
print(open("/proc/self/oom_score_adj").read(), end="")
"""


async def test_an_agent_goes_before_its_worker_when_memory_runs_out(tmp_path: Path) -> None:
    """Many that take a little each: the largest process of all is the worker."""
    settings = spawner_settings(tmp_path, worker_memory_mib=256)
    job = [{"run": ["python3", "-c", HOGS]}, {"say": "still here"}]
    with no_containers_left(settings.slots_dir):
        async with serving(settings), launcher_in(tmp_path, "docker") as launcher, launched(launcher, job) as (worker, link, _):
            own = Path(f"/proc/{python_of(launcher, worker)}/oom_score_adj")
            heard = await listen(link.execute(assignment(worker)), link, limit=90)
            assert own.read_text() == "500\n"
            assert heard.result is not None
            assert heard.outputs() == [(0, "1000\n")]
            assert (await launcher.collect(worker)).oom_killed


def test_at_a_door_only_its_owner_is_served(tmp_path: Path) -> None:
    """Also where the server cannot give the socket away, so that anybody can open it."""
    with open_directory() as place:
        os.chown(place, SERVER, SERVER)
        os.seteuid(SERVER)
        try:
            with bound(place / "door.sock", (20_000, 20_000)) as listener, listener:
                os.seteuid(0)
                assert stat.S_IMODE((place / "door.sock").stat().st_mode) == 0o666
                with knocking(place / "door.sock", 20_001), pytest.raises(BlockingIOError):
                    listener.accept()
                with knocking(place / "door.sock", 20_000):
                    listener.accept()[0].close()
                os.seteuid(SERVER)
        finally:
            os.seteuid(0)


@contextlib.contextmanager
def knocking(door: Path, uid: int) -> Iterator[None]:
    """Somebody has connected, and stays."""
    script = (
        "import os, socket, sys; os.setresuid(*[int(sys.argv[1])] * 3); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[2]); "
        "print(flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(uid), door], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"\n"
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()
