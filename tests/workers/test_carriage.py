"""The server's side of a carrier, against one that is slow, or does what an agent orders."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs
from support.workers import new_worker

from carrier import service, tls, words
from carrier.joined import Streams, cut, joined
from carrier.tree import Limits, pack
from server.config import Settings
from server.kernel.ports.launcher import WorkerId
from server.workers import carriage
from server.workers.carriage import Carrier, CarrierAway
from server.workers.credentials import new_credentials
from server.workers.slot import Slot, slot_of
from server.workers.spawner import SpawnerClient
from server.workers.swarm import SwarmLauncher
from treadle.spawner.v1 import spawner_service_pb2 as wire

PLENTY = Limits(1 << 30, 1000)
Part = Callable[[dict[str, Any], Streams], Awaitable[None]]
STALLED = 40
"""More than asyncio has threads of its own, on any machine."""


class Away:
    """A worker's machine, as it is asked on loopback."""

    def __init__(self) -> None:
        self.credentials = new_credentials()
        self.handshakes = 0
        self.asked: list[str] = []

    @property
    def carrier(self) -> Carrier:
        return Carrier("127.0.0.1", self.credentials)

    async def heard(self, number: int) -> None:
        """Wait until it was asked so often."""
        while len(self.asked) < number:
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def serving(self, port: int, part: Part) -> AsyncIterator[None]:
        """`part` is what it does when it is asked something."""
        own = self.credentials
        context = tls.context(ssl.PROTOCOL_TLS_SERVER, certificate=own.carrier, key=own.carrier_key, other=own.server)
        serving: set[asyncio.Task[None]] = set()

        async def serve(there: Streams) -> None:
            asked = words.read(await there[0].readline())
            self.asked.append(asked["do"])
            await part(asked, there)
            there[1].close()
            await there[1].wait_closed()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.handshakes += 1
            task = asyncio.create_task(serve((reader, writer)))
            serving.add(task)
            task.add_done_callback(lambda _: cut(writer))

        server = await asyncio.start_server(connected, "127.0.0.1", port, ssl=context, backlog=2 * STALLED)
        try:
            yield
        finally:
            server.close()
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


@pytest.fixture
async def away(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> Away:
    monkeypatch.setattr(carriage, "PORT", unused_tcp_port)
    return Away()


@asynccontextmanager
async def arriving(path: Path) -> AsyncIterator[asyncio.Queue[Streams]]:
    """What connects to a unix socket; cut at the end."""
    arrived: asyncio.Queue[Streams] = asyncio.Queue()
    every: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        every.append(writer)
        arrived.put_nowait((reader, writer))

    async with await asyncio.start_unix_server(connected, path):
        yield arrived
        for writer in every:
            writer.transport.abort()


def packed(root: Path) -> bytes:
    stream = io.BytesIO()
    pack(root, stream)
    return stream.getvalue()


async def test_trees_that_stand_still_keep_nobody_else_waiting(away: Away, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "file").write_text("here")
    tree, stalled, all_stalled = packed(tmp_path / "given"), 0, asyncio.Event()

    async def part(asked: dict[str, Any], there: Streams) -> None:
        nonlocal stalled
        there[1].write(words.line({}))
        if stalled < STALLED:
            stalled += 1
            if stalled == STALLED:
                all_stalled.set()
            there[1].write(tree[:-5])
            # Until it is hung up on.
            await there[0].read()
        else:
            there[1].write(tree)

    def root(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    async with away.serving(carriage.PORT, part):
        takes = [asyncio.create_task(away.carrier.take(root(f"{number}"), PLENTY, None)) for number in range(STALLED)]
        async with asyncio.timeout(30):
            await all_stalled.wait()
            assert await asyncio.to_thread(lambda: "others go on") == "others go on"
            await away.carrier.take(root("well"), PLENTY, None)
            assert (tmp_path / "well" / "file").read_text() == "here"
            for take in takes:
                take.cancel()
            assert {type(each) for each in await asyncio.gather(*takes, return_exceptions=True)} == {asyncio.CancelledError}


async def test_a_tree_that_takes_too_long_is_left(away: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However lively it looks."""
    monkeypatch.setattr(carriage, "_TREE_SECONDS", 0.3)
    hung_up = asyncio.Event()

    async def part(asked: dict[str, Any], there: Streams) -> None:
        there[1].write(words.line({}))
        try:
            while True:
                there[1].write(b"D\0\1d\1\xffU")
                await there[1].drain()
                await asyncio.sleep(0.01)
        finally:
            hung_up.set()

    async with away.serving(carriage.PORT, part):
        (tmp_path / "d").mkdir()
        with pytest.raises(CarrierAway):
            await away.carrier.fill(tmp_path)
        async with asyncio.timeout(10):
            await hung_up.wait()


async def test_an_agent_orders_so_many_handshakes_and_no_more(away: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriage, "_BURST", 20)
    monkeypatch.setattr(carriage, "_PER_SECOND", 1e-6)
    enough = asyncio.Event()

    async def part(asked: dict[str, Any], there: Streams) -> None:
        """An agent connects at once, and leaves."""
        if asked["do"] == "state":
            there[1].write(words.line({}))
            return
        if away.asked.count("door") == 20:
            enough.set()
        there[1].write(words.TAKEN)

    carrier = away.carrier
    async with away.serving(carriage.PORT, part):
        doors = [asyncio.create_task(carrier.hold_door(name, tmp_path / name)) for name in ("model.sock", "egress.sock")]
        async with asyncio.timeout(30):
            await enough.wait()
            for _ in range(20):
                await carrier.ask("state")
        assert (away.asked.count("door"), away.handshakes) == (20, 40)
        assert not any(door.done() for door in doors)
        for door in doors:
            door.cancel()
        await asyncio.gather(*doors, return_exceptions=True)


async def test_an_agent_keeps_so_many_connections_and_no_more(away: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriage, "_AT_A_DOOR", 5)
    monkeypatch.setattr(carriage, "_BURST", 6)
    monkeypatch.setattr(carriage, "_PER_SECOND", 1e-6)
    full, kept = asyncio.Event(), asyncio.Event()

    async def part(asked: dict[str, Any], there: Streams) -> None:
        if asked["do"] == "state":
            there[1].write(words.line({}))
            return
        if away.asked.count("door") == 5:
            full.set()
        there[1].write(words.TAKEN)
        await kept.wait()

    carrier = away.carrier
    async with arriving(tmp_path / "door"), away.serving(carriage.PORT, part):
        door = asyncio.create_task(carrier.hold_door("model.sock", tmp_path / "door"))
        async with asyncio.timeout(30):
            await full.wait()
            for _ in range(5):
                await carrier.ask("state")
            assert away.asked.count("door") == 5
            kept.set()
            await away.heard(11)
        door.cancel()
        await asyncio.gather(door, return_exceptions=True)


@asynccontextmanager
async def carried(away: Away, folder: Path) -> AsyncIterator[tuple[Streams, asyncio.Queue[Streams]]]:
    """A connection of an agent's that leads through a carrier and a server to a door, and what connects to the door."""

    async def part(asked: dict[str, Any], there: Streams) -> None:
        here = await agents.get()
        there[1].write(words.TAKEN)
        await joined(here, there)

    async with arriving(folder / "door") as arrived, arriving(folder / "agents") as agents, away.serving(carriage.PORT, part):
        holding = asyncio.create_task(away.carrier.hold_door("model.sock", folder / "door"))
        agent = await asyncio.open_unix_connection(folder / "agents")
        yield agent, arrived
        agent[1].close()
        # The next one is there.
        await away.heard(2)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def test_who_has_said_all_still_hears_the_answer(away: Away, tmp_path: Path) -> None:
    """In both directions: an end of what is said is no end of the connection."""
    large = b"x" * 1_000_000
    async with carried(away, tmp_path) as (agent, arrived), asyncio.timeout(30):
        agent[1].write(large)
        agent[1].write_eof()
        door = await arrived.get()
        assert await door[0].read() == large
        door[1].write(b"answer")
        door[1].write_eof()
        assert await agent[0].read() == b"answer"


async def test_who_has_said_all_first_still_hears(away: Away, tmp_path: Path) -> None:
    async with carried(away, tmp_path) as (agent, arrived), asyncio.timeout(30):
        agent[1].write(b"?")
        door = await arrived.get()
        door[1].write(b"all that there is")
        door[1].write_eof()
        assert await agent[0].read() == b"all that there is"
        agent[1].write(b"still there")
        agent[1].write_eof()
        assert await door[0].read() == b"?still there"


async def test_who_leaves_is_gone_on_the_other_side(away: Away, tmp_path: Path) -> None:
    async with carried(away, tmp_path) as (agent, arrived), asyncio.timeout(30):
        agent[1].write(b"?")
        door = await arrived.get()
        agent[1].close()
        assert await door[0].read() == b"?"
        with pytest.raises(OSError):
            while True:
                door[1].write(b"nobody hears it")
                await door[1].drain()


async def test_the_last_words_fit_into_a_line(away: Away) -> None:
    """Also where each byte becomes six."""
    own = away.credentials
    configuration = service.Configuration(10001, 0, own.carrier, own.carrier_key, own.server, 1.0)
    with socket.socket() as listener:
        carrier = service.Carrier(configuration, listener)
        printed = asyncio.StreamReader()
        printed.feed_data(b"\xff\0" * 500_000)
        printed.feed_eof()
        await carrier._listen(printed)
        assert 20_000 < len(words.line(carrier._end())) < words.LINE_BYTES


class NoSwarm(SpawnerClient):
    """Where the launcher hears of nothing but its carrier."""

    def __init__(self) -> None: ...

    async def ended(self, slot: str) -> wire.WorkerEnd:
        return cast(wire.WorkerEnd, await asyncio.Event().wait())

    async def kill(self, slot: str) -> wire.WorkerEnd:
        return wire.WorkerEnd()


def under_way(away: Away, data: Path) -> tuple[SwarmLauncher, WorkerId, Slot]:
    """A launcher, and a worker that it has started there."""
    launcher = SwarmLauncher(Settings(data_dir=data, launcher="swarm"), NoSwarm(), wire.DescribeResponse())
    worker = new_worker()
    slot = slot_of(data / "workers", worker)
    slot.make()
    slot.furnish()
    for name, content in {"carrier": away.credentials.kept(), "address": "127.0.0.1", "given": ""}.items():
        slot.create(name, content)
    return launcher, worker, slot


LAST_WORDS = {
    "too many": b'{"code": 0, "log_tail": "' + b"x" * words.LINE_BYTES,
    "half a character": b'{"code": 1e99, "log_tail": "\\ud800"}',
    "none": b"[]",
    "none that ends": b"[" * 100_000,
    "half an error": b'{"error": "\\ud800"}',
}


@pytest.mark.parametrize("last_words", LAST_WORDS)
async def test_no_words_are_worth_what_the_worker_left(last_words: str, away: Away, tmp_path: Path) -> None:
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "work").write_text("done")

    async def part(asked: dict[str, Any], there: Streams) -> None:
        if asked["do"] == "stop":
            there[1].write(LAST_WORDS[last_words] + b"\n")
        else:
            there[1].write(words.line({}) + (packed(tmp_path / "left") if asked["do"] == "take" else b""))

    launcher, worker, _ = under_way(away, tmp_path / "data")
    async with away.serving(carriage.PORT, part), asyncio.timeout(30):
        await launcher.collect(worker)
        assert ((await launcher.left(worker)) / "work").read_text() == "done"


async def test_keys_are_read_once_and_not_on_the_loop(away: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, context = [], tls.context

    def seen(*given: Any, **more: Any) -> ssl.SSLContext:
        made.append(threading.current_thread())
        return context(*given, **more)

    async def part(asked: dict[str, Any], there: Streams) -> None:
        there[1].write(words.line({"bytes": 1, "files": 2}) if asked["do"] == "occupied" else b"")
        if asked["do"] != "occupied":
            await there[0].read()

    async with away.serving(carriage.PORT, part), asyncio.timeout(30):
        monkeypatch.setattr(tls, "context", seen)
        launcher, worker, slot = under_way(away, tmp_path)
        watch = await launcher._watch(slot)
        for _ in range(3):
            assert (await launcher.occupied(worker)).files == 2
        await away.heard(6)
        watch.close()
        assert len(made) == 1
        assert made[0] is not threading.main_thread()


async def test_a_watch_of_which_a_part_fails_has_ended(away: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the turn would wait for what does not come."""

    async def fails(*_: object) -> None:
        raise RuntimeError("no door")

    async def part(asked: dict[str, Any], there: Streams) -> None:
        await there[0].read()

    monkeypatch.setattr(Carrier, "hold_door", fails)
    async with away.serving(carriage.PORT, part), asyncio.timeout(30):
        launcher, _, slot = under_way(away, tmp_path)
        with capture_logs() as logs:
            watch = await launcher._watch(slot)
            await watch.ended()
        await away.heard(1)
        watch.close()
        assert not watch.alive
        assert logs[0]["event"] == "worker.not_watched"
