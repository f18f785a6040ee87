"""Workers in a Swarm: what is true of them alone."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.containers import require_engine
from support.launchers import opened
from support.registry import registry
from support.swarm import client, container_of_slot, containers_of_slot, services_of, swarm, swarm_settings, swarm_spawning
from support.workers import assignment, eventually, launched, launcher_in, listen, new_worker, play, processes_with, python_of, spec

from server.door_socket import bound
from server.kernel.errors import NoRoom, WorkerLost
from server.kernel.event import WorkerBatch
from server.refusal import StartRefused
from server.spawner import swarm as spawned
from server.spawner.containers import Refused
from server.spawner.engine import Engine
from server.spawner.swarm_readiness import look_at_swarm
from server.workers import spawner_key
from server.workers.carriage import PORT, Carrier, CarrierAway
from server.workers.credentials import kept_credentials, new_credentials
from server.workers.local import LocalLauncher
from server.workers.slot import EGRESS_SOCKET_NAME, MODEL_SOCKET_NAME, Slot, slot_of

pytestmark = pytest.mark.timeout(300)

CONNECT = """
import socket, ssl, sys
for address in sys.argv[1:]:
    try:
        with socket.create_connection((address, {port}), 5) as raw:
            context = ssl._create_unverified_context()
            with context.wrap_socket(raw) as tls:
                tls.sendall(b'{{"do": "state"}}\\n')
                print("answered" if tls.recv(100) else "hung up")
    except OSError as error:
        print(type(error).__name__, error.errno)
"""


PAST_ROUTES = """
import json, os, socket, sys
found = {{"interfaces": [name for _, name in socket.if_nameindex()]}}
def tried(name, deed):
    try:
        found[name] = deed() or "DONE"
    except OSError as error:
        found[name] = type(error).__name__ if error.errno is None else os.strerror(error.errno)
def bound(kind=socket.SOCK_STREAM, device=b"eth0"):
    made = socket.socket(socket.AF_INET, kind)
    made.settimeout(5)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    return made
def to(kind=socket.SOCK_DGRAM):
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    made.settimeout(5)
    return made
other = sys.argv[1]
tried("by a device", lambda: bound().connect((other, {port})))
number = (socket.IPPROTO_IP, 8, (2).to_bytes(4, sys.byteorder) + bytes(8))
tried("by its number", lambda: to().sendmsg([b"x"], [number], 0, (other, 9)) and None)
tried("to all", lambda: to().sendto(b"x", ("255.255.255.255", 9)) and None)
tried("to a group", lambda: to().sendto(b"x", ("224.0.0.1", 9)) and None)
tried("to the engine's resolver", lambda: to(socket.SOCK_STREAM).connect(("127.0.0.11", 53)))
open("found.json", "w").write(json.dumps(found))
"""

SWAPS = """
import os, socket
os.rename("/run/treadle/worker.sock", "/run/treadle/old")
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/treadle/worker.sock")
listener.listen()
print("swapped", flush=True)
while True:
    listener.accept()[0].sendall(b"mine")
"""
ASKS = """
import socket
for name in ("model", "egress"):
    door = socket.socket(socket.AF_UNIX)
    door.connect(f"/run/models/{name}.sock")
    door.sendall(b"all that I have to say")
    door.shutdown(socket.SHUT_WR)
    print(door.makefile("rb").read().decode())
"""
HIDES = (
    "echo up; head -c 20M /dev/urandom > seen; mkdir hidden; head -c 20M /dev/urandom > hidden/a; chmod 0 hidden; "
    "while :; do pkill -STOP du; pkill -KILL du; done & sleep 1000.375"
)


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[LocalLauncher]:
    async with opened("swarm", tmp_path) as launcher:
        yield launcher


def carrier_of(slot: Slot) -> Carrier:
    return Carrier((slot.path / "address").read_text(), kept_credentials((slot.path / "carrier").read_text()))


async def test_the_whole_tree_goes_there_and_comes_back(launcher: LocalLauncher) -> None:
    def furnish(_: object, workspace: Path) -> None:
        (workspace / "a" / "b").mkdir(parents=True)
        (workspace / "a" / "b" / "run.sh").write_text("#!/bin/sh\necho ran\n")
        (workspace / "a" / "b" / "run.sh").chmod(0o755)
        (workspace / "link").symlink_to("a/b/run.sh")
        (workspace / "big").write_bytes(os.urandom(3_000_000))
        with (workspace / "sparse").open("wb") as sparse:
            sparse.truncate(1 << 40)

    changes = "./link; mkdir new; mv a new/a; ln -s /etc/passwd out; mkfifo pipe; cp big copy; chmod 000 big"
    changes += "; mkdir shut; touch shut/x; chmod 0 shut"
    async with launched(launcher, [{"run": changes}], furnish) as (worker, link, workspace):
        big = (workspace / "big").read_bytes()
        heard = await listen(link.execute(assignment(worker)), link)
        assert heard.outputs() == [(0, "ran\n")]
        assert (workspace / "a").exists(), "what is there is not here"
        await launcher.collect(worker)
        assert await launcher.left(worker) == workspace
        found = sorted(str(path.relative_to(workspace)) for path in workspace.rglob("*"))
        names = "big copy link new new/a new/a/b new/a/b/run.sh out shut shut/x sparse .recording.jsonl"
        assert found == sorted(names.split())
        assert (workspace / "big").read_bytes() == (workspace / "copy").read_bytes() == big
        assert (workspace / "out").readlink() == Path("/etc/passwd")
        assert (workspace / "new/a/b/run.sh").stat().st_mode & 0o777 == 0o755
        assert (workspace / "sparse").stat().st_size == 1 << 40


async def test_cancel_ends_the_container_within_ten_seconds(launcher: LocalLauncher, tmp_path: Path) -> None:
    """A job's container would live on; so this looks at the engine, and not at what the Swarm says."""
    async with launched(launcher, [{"run": "echo so far > partial; (setsid sleep 1000.125 &); echo up; sleep 1000.125"}]) as (
        worker,
        link,
        workspace,
    ):
        async with aclosing(link.execute(assignment(worker))) as items:
            seen = b""
            while b"up" not in seen:
                item = await anext(items)
                assert isinstance(item, WorkerBatch)
                seen += b"".join(item.bodies)
            slot = slot_of(tmp_path / "workers", worker).path.name
            begun = time.monotonic()
            assert (await launcher.collect(worker)).code == 137
            assert not processes_with("1000.125")
        await eventually(lambda: not any(each.status == "running" for each in containers_of_slot(slot)), limit=10)
        print(f"no container ran {time.monotonic() - begun:.1f} s after the cancel")
        await eventually(lambda: not containers_of_slot(slot), limit=30)
        assert (workspace / "partial").read_text() == "so far\n"
        assert services_of(tmp_path / "workers") == []


async def test_a_carrier_that_was_killed_is_a_lost_worker(launcher: LocalLauncher, tmp_path: Path) -> None:
    async with launched(launcher, [{"say": "hello"}, {"wait_ms": 60_000}]) as (worker, link, _):
        async with aclosing(link.execute(assignment(worker))) as items:
            assert isinstance(await anext(items), WorkerBatch)
            container_of_slot(slot_of(tmp_path / "workers", worker).path.name).kill()
            killed = time.monotonic()
            with pytest.raises(WorkerLost):
                await listen(items)
            assert time.monotonic() - killed < 5
        await launcher.collect(worker)
        with pytest.raises(WorkerLost, match="not fetched"):
            await launcher.left(worker)


async def test_a_worker_that_was_killed_leaves_what_it_did(launcher: LocalLauncher) -> None:
    async with launched(launcher, [{"write": "partial", "content": "so far\n"}, {"say": "it is written"}, {"wait_ms": 60_000}]) as (
        worker,
        link,
        workspace,
    ):
        async with aclosing(link.execute(assignment(worker))) as items:
            while b"it is written" not in b"".join((await anext(items)).bodies):
                pass
            os.kill(python_of(launcher, worker), signal.SIGKILL)
            with pytest.raises(WorkerLost):
                await listen(items)
        assert (await launcher.collect(worker)).code == 137
        assert (workspace / "partial").read_text() == "so far\n"


async def test_out_of_memory_is_told_and_the_work_is_not_lost(launcher: LocalLauncher) -> None:
    steps = [{"write": "partial", "content": "so far\n"}, {"run": ["python3", "-c", "bytearray(700 << 20)"]}]
    async with launched(launcher, steps) as (worker, link, workspace):
        with_result = await listen(link.execute(assignment(worker)), link)
        assert with_result.result is not None
        assert (await launcher.collect(worker)).oom_killed
        assert (workspace / "partial").read_text() == "so far\n"


async def test_who_has_another_certificate_is_refused_on_both_sides(launcher: LocalLauncher, tmp_path: Path) -> None:
    async with launched(launcher) as (first, _, _), launched(launcher) as (second, _, _):
        ours, theirs = (slot_of(tmp_path / "workers", worker) for worker in (first, second))
        assert (await carrier_of(ours).ask("state"))["phase"] == "running"
        address, right = (ours.path / "address").read_text(), kept_credentials((ours.path / "carrier").read_text())
        wrong, others = new_credentials(), kept_credentials((theirs.path / "carrier").read_text())
        for stranger in (wrong, others):
            # The carrier lets in nobody but its server, whatever they know of the carrier.
            with pytest.raises(CarrierAway):
                await Carrier(address, replace(right, server=stranger.server, server_key=stranger.server_key)).ask("state")
            # And the server speaks to nobody but this worker's carrier.
            with pytest.raises(CarrierAway):
                await Carrier(address, replace(right, carrier=stranger.carrier)).ask("state")
        # Nor without any certificate.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises(OSError):
            reader, writer = await asyncio.open_connection(address, PORT, ssl=context)
            writer.write(b'{"do": "state"}\n')
            if not await reader.read():
                raise ConnectionResetError
        writer.close()


async def test_the_agent_reaches_no_carrier(launcher: LocalLauncher, tmp_path: Path) -> None:
    async with launched(launcher) as (other, _, _):
        address = (slot_of(tmp_path / "workers", other).path / "address").read_text()
        run = {"run": ["python3", "-c", CONNECT.format(port=PORT), address, "172.29.239.250", "127.0.0.1"]}
        async with launched(launcher, [run]) as (worker, link, _):
            ((code, output),) = (await listen(link.execute(assignment(worker)), link)).outputs()
    assert code == 0, output
    anothers, servers, own = output.splitlines()
    assert anothers == servers == "OSError 101", "no route"
    assert "answered" not in own


async def test_no_way_past_the_routes_leads_out(launcher: LocalLauncher, tmp_path: Path) -> None:
    """Binding to a device, naming it with a datagram, and speaking to all or to a group need neither a route nor a capability."""
    async with launched(launcher) as (other, _, _):
        address = (slot_of(tmp_path / "workers", other).path / "address").read_text()
        async with launched(launcher, [{"run": ["python3", "-c", PAST_ROUTES.format(port=PORT), address]}]) as (worker, link, workspace):
            ((code, output),) = (await listen(link.execute(assignment(worker)), link)).outputs()
            assert code == 0, output
            await launcher.collect(worker)
            found = json.loads((workspace / "found.json").read_text())
    assert "eth0" not in found.pop("interfaces")
    # Kernels with tunnels have some of their own there, which lead nowhere either.
    assert found.pop("by its number") in {os.strerror(errno.ENODEV), os.strerror(errno.ENETUNREACH)}
    assert found == {
        "by a device": os.strerror(errno.ENODEV),
        "to all": os.strerror(errno.ENETUNREACH),
        "to a group": os.strerror(errno.ENETUNREACH),
        "to the engine's resolver": os.strerror(errno.ECONNREFUSED),
    }


async def test_what_the_agent_hides_is_counted(launcher: LocalLauncher) -> None:
    async with launched(launcher, [{"run": HIDES}]) as (worker, link, _), aclosing(link.execute(assignment(worker))) as items:
        assert isinstance(await anext(items), WorkerBatch)
        seen = 0
        async with asyncio.timeout(30):
            while seen < 40 << 20:
                took = await launcher.occupied(worker)
                assert took.counted
                seen = took.bytes
        await launcher.collect(worker)


async def test_another_socket_in_the_place_of_the_workers_gets_no_connection(launcher: LocalLauncher, tmp_path: Path) -> None:
    run = {"run": ["python3", "-c", SWAPS]}
    async with launched(launcher, [run]) as (worker, link, _), aclosing(link.execute(assignment(worker))) as items:
        seen = b""
        while b"swapped" not in seen:
            item = await anext(items)
            assert isinstance(item, WorkerBatch)
            seen += b"".join(item.bodies)
        async with carrier_of(slot_of(tmp_path / "workers", worker)).opened("worker") as (reader, _), asyncio.timeout(10):
            # The worker itself, by the settings of HTTP/2.
            assert await reader.read(1) == b"\0"
        await launcher.collect(worker)


async def test_an_agent_that_has_said_all_hears_the_answer_at_a_door(launcher: LocalLauncher, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"to: " + await reader.read())
        writer.close()

    async with launched(launcher, [{"run": ["python3", "-c", ASKS]}]) as (worker, link, _), AsyncExitStack() as doors:
        for name in (MODEL_SOCKET_NAME, EGRESS_SOCKET_NAME):
            listener = doors.enter_context(bound(slot_of(tmp_path / "workers", worker).models / name, None))
            await doors.enter_async_context(await asyncio.start_unix_server(answer, sock=listener))
        heard = await listen(link.execute(assignment(worker)), link)
    assert heard.outputs() == [(0, "to: all that I have to say\n" * 2)]


async def test_what_the_worker_left_is_fetched_again_where_that_broke_off(launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    take, broken = Carrier.take, []

    async with AsyncExitStack() as stuck:

        async def breaks_off(carrier: Carrier, *given: Any) -> None:
            if broken:
                return await take(carrier, *given)
            # And nobody has told the carrier: it still tries to hand out the rest.
            reader, _ = await stuck.enter_async_context(carrier.opened("take"))
            broken.append(await reader.readexactly(1000))
            raise CarrierAway("it broke off")

        monkeypatch.setattr(Carrier, "take", breaks_off)
        async with launched(launcher, [{"run": "head -c 40M /dev/zero > large"}]) as (worker, link, workspace):
            await listen(link.execute(assignment(worker)), link)
            await launcher.collect(worker)
            assert broken
            assert await launcher.left(worker) == workspace
            assert (workspace / "large").stat().st_size == 40 << 20


async def test_a_carrier_without_a_server_gives_up(tmp_path: Path) -> None:
    async with opened("swarm", tmp_path, worker_orphan_seconds=2) as launcher:
        worker = new_worker()
        await launcher.workspace(spec(worker))
        await launcher.furnished(worker)
        link = await launcher.launch(worker)
        container = container_of_slot(slot_of(tmp_path / "workers", worker).path.name)
        assert container.status == "running"
        await link.close()
        await asyncio.to_thread(container.wait, timeout=60)
        await launcher.remove(worker)


async def test_nothing_is_left(launcher: LocalLauncher, tmp_path: Path) -> None:
    worker = new_worker()
    await launcher.workspace(spec(worker))
    await launcher.furnished(worker)
    await (await launcher.launch(worker)).close()
    slot = slot_of(tmp_path / "workers", worker)
    client = container_of_slot(slot.path.name).client
    volumes = {mount["Name"] for mount in container_of_slot(slot.path.name).attrs["Mounts"] if mount["Type"] == "volume"}
    assert len(volumes) == 3
    await launcher.remove(worker)
    await eventually(lambda: not containers_of_slot(slot.path.name), limit=10)
    # The engine takes them away after the container.
    await eventually(lambda: not volumes & {volume.name for volume in client.volumes.list()}, limit=30)
    assert not [secret for secret in client.secrets.list() if slot.path.name in secret.name]
    assert not slot.path.exists()


async def test_a_spawner_on_another_machine_lets_in_who_has_the_servers_key(tmp_path: Path, unused_tcp_port: int) -> None:
    """Who else is not let in: tests/spawner/test_by_tcp.py."""
    subprocess.run(["sh", "-c", spawner_key.COMMAND], cwd=tmp_path, check=True, capture_output=True)
    there, data = f"127.0.0.1:{unused_tcp_port}", tmp_path / "data"
    async with (
        swarm_spawning(data, spawner_tcp=there, spawner_key=tmp_path / "spawner.pem"),
        launcher_in(data, "swarm", spawner_tcp=there, spawner_key=tmp_path / "server.pem") as launcher,
    ):
        assert (await play(launcher, {"say": "hello"})).result is not None


async def why_it_ended(services: spawned.Services, slot: str, provider: str) -> str:
    """The start's refusal or, where it was seen to run for a moment, the exit code."""
    try:
        await services.start(slot, provider, {}, b"told")
    except Refused as refused:
        return str(refused)
    return str((await services.wait(slot)).code)


async def test_images_are_pulled_from_a_registry_that_asks_who_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever machine of the Swarm the worker is on; the spawner's own has no such image."""
    swarm()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    slot_for = {provider: new_worker().turn_id for provider in ("replay", "claude")}
    with registry("ada:secret") as images:
        settings = swarm_settings(tmp_path / "data", worker_image=f"{images.address}/treadle-worker-{{provider}}:1")
        with (
            closing(Engine(settings.docker_host)) as engine,
            pytest.raises(StartRefused, match=r"the registry does not say whether it has .*docker login"),
        ):
            await look_at_swarm(engine, settings)
        images.login(tmp_path / "docker")
        with closing(Engine(settings.docker_host)) as engine:
            template, ready = await look_at_swarm(engine, settings)
            assert ready.providers == ("replay",)
            services = spawned.Services(spawned.Swarm(engine), template, providers=[*ready.providers, "claude"])
            # There is no program in it, and none of the other. Whoever asks for that later hears of it, too.
            for provider, said in ("replay", "127"), ("claude", "No such image"), ("claude", "No such image"):
                assert said in await why_it_ended(services, slot_for[provider], provider)
            for slot in slot_for.values():
                await services.kill(slot)
        image = client().images.get(f"{images.address}/treadle-worker-replay@{images.digest}")
        client().images.remove(image.id, force=True)
    assert {*images.handed_out} == {*images.blobs}


async def test_a_worker_for_which_no_machine_has_room_says_so(tmp_path: Path) -> None:
    # Of memory that no machine has.
    most = {"worker_memory_mib": 50_000_000, "worker_reserved_mib": 50_000_000}
    async with swarm_spawning(tmp_path, **most), launcher_in(tmp_path, "swarm") as launcher:
        with pytest.raises(NoRoom, match=r"no machine of the Swarm takes the worker: .*insufficient resources"):
            await play(launcher, {"say": "hello"})


async def test_what_the_launcher_needs_and_is_not_there_stops_the_start(tmp_path: Path, launcher: LocalLauncher) -> None:
    with pytest.raises(StartRefused, match=r"TREADLE_SWARM_NETWORK.*docker network create"):
        async with swarm_spawning(tmp_path / "a", swarm_network="no-such-network"):
            pass
    with pytest.raises(StartRefused, match="TREADLE_SPAWNER_KIND must be 'docker'"):
        async with launcher_in(tmp_path, "docker"):
            pass
    require_engine()
    with pytest.raises(StartRefused, match=r"no manager of a Swarm.*docker swarm init"):
        async with swarm_spawning(tmp_path / "b", docker_host="unix:///var/run/docker.sock"):
            pass
