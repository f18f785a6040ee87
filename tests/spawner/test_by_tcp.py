"""A spawner on another machine: who may call it, and what becomes of a connection whose other end is gone."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY
from support.workers import eventually

from server.kernel.errors import LaunchFailed
from server.refusal import StartRefused
from server.spawner.engine import Engine
from server.spawner.readiness import Ready
from server.spawner.serve import listen_by_tcp
from server.spawner.settings import SpawnerSettings
from server.spawner.swarm import End, Services, Swarm
from server.spawner.swarm_service import SwarmSpawnerService
from server.spawner.swarm_template import SwarmTemplate
from server.workers import spawner as spawner_client
from server.workers import spawner_key
from server.workers.spawner import SpawnerClient
from treadle.spawner.v1.spawner_service_pb2 import DescribeRequest
from treadle.spawner.v1.spawner_service_pb2_grpc import SpawnerServiceStub


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_keys(tmp_path_factory.mktemp("keys"))


def new_keys(folder: Path) -> Path:
    """As the words of the refusal say."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["sh", "-c", spawner_key.COMMAND], cwd=folder, check=True, capture_output=True)
    return folder


class _Endless(Services):
    """Its workers never end."""

    async def wait(self, slot: str) -> End:
        await asyncio.Event().wait()
        return End()


@asynccontextmanager
async def spawner(keys: Path, port: int, **changes: Any) -> AsyncIterator[SpawnerSettings]:
    key = keys / "spawner.pem"
    settings = SpawnerSettings(data_dir=keys, spawner_kind="swarm", spawner_tcp=f"127.0.0.1:{port}", spawner_key=key)
    engine = Engine("unix:///never-asked")
    services = _Endless(Swarm(engine), SwarmTemplate(settings, "network"), providers=["replay"])
    async with AsyncExitStack() as stack:
        stack.callback(engine.close)
        await listen_by_tcp(stack, SwarmSpawnerService(services, Ready(("replay",), ""), settings), settings, **changes)
        yield settings


@asynccontextmanager
async def calling(keys: Path, port: int, key: str = "server.pem", **changes: Any) -> AsyncIterator[SpawnerClient]:
    client = SpawnerClient(SpawnerSettings(data_dir=keys, spawner_tcp=f"127.0.0.1:{port}", spawner_key=keys / key), **changes)
    try:
        yield client
    finally:
        await client.close()


async def test_each_side_asks_for_the_others_role(
    keys: Path, tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spawner(keys, unused_tcp_port), calling(keys, unused_tcp_port) as server:
        assert (await server.describe(seconds=10)).carried
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}")
        with pytest.raises(grpc.aio.AioRpcError):
            await SpawnerServiceStub(channel).Describe(DescribeRequest(), timeout=1)
        await channel.close()
        async with calling(new_keys(tmp_path / "others"), unused_tcp_port) as stranger:
            with pytest.raises(TimeoutError):
                await stranger.describe(seconds=1)

        # What a spawner has does not make a server, even where nobody looks at the names in it.
        monkeypatch.setattr(spawner_key, "SERVER", spawner_key.SPAWNER)
        (keys / "as-server.pem").write_bytes(_only_its_own(keys / "spawner.pem"))
        async with calling(keys, unused_tcp_port, "as-server.pem") as other:
            with pytest.raises(TimeoutError):
                await other.describe(seconds=1)


async def test_who_has_a_servers_key_is_no_spawner(
    keys: Path, tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    (stolen / "spawner.pem").write_bytes(_only_its_own(keys / "server.pem"))
    with monkeypatch.context() as blind:
        blind.setattr(spawner_key, "SPAWNER", spawner_key.SERVER)
        playing = spawner(stolen, unused_tcp_port)
        await playing.__aenter__()
        # It answers whoever takes it for one.
        blind.setitem(spawner_client._BY_TCP, "grpc.ssl_target_name_override", spawner_key.SERVER)
        async with calling(stolen, unused_tcp_port, "spawner.pem") as accomplice:
            assert (await accomplice.describe(seconds=10)).carried
    try:
        async with calling(keys, unused_tcp_port) as server:
            with pytest.raises(TimeoutError):
                await server.describe(seconds=1)
    finally:
        await playing.__aexit__(None, None, None)


def _only_its_own(key: Path) -> bytes:
    """A key that trusts its own role."""
    begin = b"-----BEGIN CERTIFICATE-----"
    private, own, _ = key.read_bytes().split(begin)
    return private + begin + own + begin + own


@pytest.mark.parametrize("wrong", ["server.pem", "treadle-spawner.key", "treadle-spawner.crt", "old.pem"])
async def test_a_key_of_another_role_or_form_stops_the_start(keys: Path, unused_tcp_port: int, wrong: str) -> None:
    (keys / "old.pem").write_bytes((keys / "treadle-spawner.key").read_bytes() + (keys / "treadle-spawner.crt").read_bytes())
    with pytest.raises(StartRefused, match=r"TREADLE_SPAWNER_KEY.*openssl req"):
        spawner_key.of_spawner(keys / wrong)
    with pytest.raises(StartRefused, match="TREADLE_SPAWNER_KEY"):
        async with calling(keys, unused_tcp_port, "spawner.pem"):
            pass


async def test_a_connection_whose_other_end_is_gone_is_given_up_by_both(keys: Path, unused_tcp_port: int) -> None:
    """Of a machine that was lost no word comes, and nothing is refused either."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(spawner(keys, unused_tcp_port, silence_seconds=1.5))
        line = await stack.enter_async_context(_line(unused_tcp_port))
        server = await stack.enter_async_context(calling(keys, line.port, silence_seconds=1.5))
        await server.describe(seconds=10)
        waiting = asyncio.create_task(server.ended("slot"))
        stack.callback(waiting.cancel)
        line.broken = True
        async with asyncio.timeout(30):
            await line.given_up_by_server.wait()
            await line.given_up_by_spawner.wait()
        line.broken = False
        await server.describe(seconds=10)
        assert not waiting.done()


async def test_a_metric_says_whether_the_spawner_answers(keys: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.workers.spawner._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("server.workers.spawner._ANSWER_SECONDS", 0.5)

    def told() -> float | None:
        return REGISTRY.get_sample_value("treadle_spawner_up", {"launcher": "swarm"})

    async with calling(keys, unused_tcp_port) as server:
        async with spawner(keys, unused_tcp_port), server.watched("swarm"):
            assert (told(), server.answers) == (1, True)
        async with server.watched("swarm"):
            await eventually(lambda: (told(), server.answers) == (0, False), limit=30)
            with pytest.raises(LaunchFailed, match=rf"the spawner at 127.0.0.1:{unused_tcp_port} did not make room for the worker within"):
                await server.prepare("slot", seconds=0.2)
            async with spawner(keys, unused_tcp_port):
                await eventually(lambda: (told(), server.answers) == (1, True), limit=30)


class _Line:
    """Passes all on; while it is broken, what comes is lost, and nobody is told."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.broken = False
        self.given_up_by_server, self.given_up_by_spawner = asyncio.Event(), asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self._target = target

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        for source, target, given_up in ((reader, back, self.given_up_by_server), (there, writer, self.given_up_by_spawner)):
            task = asyncio.create_task(self._pass(source, target, given_up))
            self.tasks.add(task)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, given_up: asyncio.Event) -> None:
        try:
            with suppress(OSError):
                while data := await source.read(65536):
                    if not self.broken:
                        target.write(data)
            if self.broken:
                given_up.set()
                # The other one hears of that no more than of anything else.
                await asyncio.Event().wait()
        finally:
            target.close()


@asynccontextmanager
async def _line(target: int) -> AsyncIterator[_Line]:
    line = _Line(target)
    listener = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.port = listener.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        listener.close()
        for task in line.tasks:
            task.cancel()
        await asyncio.wait(line.tasks)
