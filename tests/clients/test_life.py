"""Streams and clients that are left, closed, cancelled and shared."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from support.clients import QUICK, Driver
from support.frame_relay import FrameRelay, Frames, for_ever

import treadle_client as tc
from treadle_client import AsyncTreadle, ClientClosed, Event, Treadle

SLOW = ({"say": "first"}, {"wait_ms": 60_000})


async def until(condition: Callable[[], bool]) -> None:
    """Where nothing tells of the change."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def hold_after_ten(_: int, frames: Frames) -> Frames:
    async for frame in frames:
        if frame.HasField("events") and frame.events.events[0].seq > 10:
            await for_ever()
        yield frame


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def named_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("treadle")]


async def test_an_abandoned_iterator_closes_its_call(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]) -> None:
    relay.tamper = hold_after_ten
    client = connect(relay.address, world.client.key)
    if driver.blocking:
        some = await asyncio.to_thread(lambda: [event.seq for event in islice(client.resume(world.session_id), 3)])
    else:
        some = []
        async for event in client.resume(world.session_id):
            some.append(event.seq)
            if event.seq == 3:
                break
    assert some == [1, 2, 3]
    gc.collect()
    await until(lambda: relay.open == 0)


async def test_a_stream_is_closed_at_the_end_of_with(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]) -> None:
    relay.tamper = hold_after_ten
    client = connect(relay.address, world.client.key)
    stream = client.resume(world.session_id)
    if driver.blocking:

        def read() -> None:
            with stream:
                next(stream)

        await asyncio.to_thread(read)
    else:
        async with stream:
            await anext(stream)
    await until(lambda: relay.open == 0)
    assert await driver.read(stream) == []
    assert stream.last_seq == 1


@pytest.mark.parametrize("whole", [True, False], ids=["client", "stream"])
async def test_closing_ends_who_waits(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any], whole: bool) -> None:
    """From another thread or task, while the reader waits for an event that does not come."""
    relay.tamper = hold_after_ten
    client = connect(relay.address, world.client.key)
    stream = client.resume(world.session_id)
    there = asyncio.Event()

    async def each(event: Event) -> None:
        if event.seq == 10:
            there.set()

    seen: list[Event] = []
    reading = asyncio.create_task(driver.read_into(seen, stream, each))
    await there.wait()
    if whole:
        await driver.close(client)
        with pytest.raises(ClientClosed):
            await reading
        with pytest.raises(ClientClosed):
            client.resume(world.session_id)
        with pytest.raises(ClientClosed):
            await driver.call(client, "get_session", world.session_id)
    else:
        await (asyncio.to_thread(stream.close) if driver.blocking else stream.aclose())
        await reading
    assert len(seen) == 10
    await until(lambda: relay.open == 0)


async def test_closing_ends_who_waits_for_the_next_attempt(driver: Driver, connect: Callable[..., Any]) -> None:
    told = threading.Event()
    retry = type(QUICK)(first_seconds=60, longest_seconds=60, unanswered_seconds=300)
    client = connect("127.0.0.1:1", "trd_any", retry=retry, on_connection=lambda _: told.set())
    reading = asyncio.create_task(driver.read(client.resume("x")))
    await asyncio.to_thread(told.wait, 20)
    await driver.close(client)
    async with asyncio.timeout(10):
        with pytest.raises(ClientClosed):
            await reading


async def test_a_cancelled_step_costs_nothing(world: Any, relay: FrameRelay) -> None:
    """A time limit around each step, and steps that would take for ever: the next step goes on."""
    held: set[int] = set()

    async def hold_once(_: int, frames: Frames) -> Frames:
        async for frame in frames:
            seq = frame.events.events[0].seq if frame.HasField("events") else 0
            if seq and seq % 50 == 0 and seq not in held:
                held.add(seq)
                await for_ever()
            yield frame

    relay.tamper = hold_once
    async with AsyncTreadle(relay.address, world.client.key, retry=QUICK) as client:
        stream = client.resume(world.session_id)
        seen: list[Event] = []
        cancelled = 0
        while True:
            try:
                async with asyncio.timeout(0.3):
                    seen.append(await anext(stream))
            except TimeoutError:
                cancelled += 1
            except StopAsyncIteration:
                break
    assert [event.proto for event in seen] == world.log
    assert cancelled >= len(held) >= 6


async def test_a_cancelled_task_closes_its_call(world: Any, relay: FrameRelay) -> None:
    relay.tamper = hold_after_ten
    there = asyncio.Event()
    async with AsyncTreadle(relay.address, world.client.key) as client:

        async def read() -> None:
            async for event in client.resume(world.session_id):
                if event.seq == 10:
                    there.set()

        reading = asyncio.create_task(read())
        await there.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: relay.open == 0)


async def test_tasks_and_threads_share_a_stream(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    """Each event goes to one of them."""
    stream = connect(world.client.address, world.client.key).resume(world.session_id)
    seen = [event for part in await asyncio.gather(*(driver.read(stream) for _ in range(4))) for event in part]
    assert sorted(event.seq for event in seen) == list(range(1, len(world.log) + 1))


async def test_a_blocking_client_is_used_by_many_threads_without_a_loop(world: Any) -> None:
    fields = world.repository("acme/threads", {"say": "hello"}, {"burst": 50, "text": "x"})

    def work(client: Treadle, number: int) -> tuple[list[Event], list[Event]]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        seen = list(client.execute(**fields, request_id=f"threads-{number}"))
        return seen, list(client.resume(seen[0].session_id))

    def run() -> list[tuple[list[Event], list[Event]]]:
        with Treadle(world.client.address, world.client.key) as client, ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda number: work(client, number), range(8)))

    results = await asyncio.to_thread(run)
    assert all(executed == resumed for executed, resumed in results)
    assert len({executed[0].session_id for executed, _ in results}) == 8
    assert named_threads() == []


async def test_nothing_is_left_of_closed_clients(world: Any, driver: Driver) -> None:
    async def use() -> None:
        client = driver.client(world.client.address, world.client.key)
        assert len(await driver.read(client.resume(world.session_id))) == len(world.log)
        await driver.close(client)

    for _ in range(5):
        await use()
    gc.collect()
    before = descriptors()
    for _ in range(30):
        await use()
    gc.collect()
    await until(lambda: descriptors() <= before + 3)
    assert named_threads() == []


async def test_the_watch_of_a_forgotten_client_ends(world: Any) -> None:
    def use() -> int:
        return len(list(Treadle(world.client.address, world.client.key, heartbeat_seconds=0.5).resume(world.session_id)))

    assert await asyncio.to_thread(use) == len(world.log)
    gc.collect()
    await until(lambda: named_threads() == [])


async def test_ctrl_c_ends_a_program_that_waits(world: Any, driver: Driver) -> None:
    """Also one that is not in a `with`; the turn goes on."""
    fields = world.repository(f"acme/ctrl-c-{driver}", *SLOW)
    head = f"import sys, asyncio, treadle_client as tc\nfields = {fields!r}\n"
    if driver.blocking:
        program = "for event in tc.Treadle().execute(**fields): print(event.kind, event.session_id, flush=True)\n"
    else:
        program = (
            "async def main():\n    async with tc.AsyncTreadle() as treadle:\n        async for event in treadle.execute(**fields):\n"
            "            print(event.kind, event.session_id, flush=True)\nasyncio.run(main())\n"
        )
    # A test run in the background of a shell has SIGINT ignored, and so would all that it starts.
    signals = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", signals + head + program, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"TREADLE_ADDRESS": world.client.address, "TREADLE_API_KEY": world.client.key},
    )  # fmt: skip
    assert process.stdout is not None
    session_id = ""
    async with asyncio.timeout(30):
        while line := (await process.stdout.readline()).decode():
            kind, session_id = line.split()
            if kind == "message":
                break
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in err.decode()
    assert "Exception ignored" not in err.decode()
    async with AsyncTreadle(world.client.address, world.client.key) as client:
        assert (await client.get_session(session_id)).active_turn_id
        assert await client.interrupt(session_id)
        end = [event async for event in client.resume(session_id)][-1]
    assert end.kind == "turn_completed"


async def test_credentials_go_in_and_never_come_out(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    client = connect(world.client.address, world.client.key)
    host = f"{world.git.url}/"
    stored = await driver.call(client.credentials, "put", host, "a-token-of-mine", username="ada")
    assert (stored.host, stored.username, stored.kind) == (host, "ada", tc.CredentialKind.CREDENTIAL_KIND_TOKEN)
    again = await driver.call(client.credentials, "put", host, "a-newer-token", version=1)
    assert await driver.call(client.credentials, "list") == [again]
    with pytest.raises(tc.VersionConflict):
        await driver.call(client.credentials, "put", host, "a-token-of-mine", version=1)
    with pytest.raises(tc.InvalidField, match="not one that this server fetches from"):
        await driver.call(client.credentials, "put", "evil.test", "a-token-of-mine")
    await driver.call(client.credentials, "delete", stored.credential_id)
    with pytest.raises(tc.CredentialNotFound):
        await driver.call(client.credentials, "delete", stored.credential_id)


async def test_the_git_service_of_both_clients(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    """Against plain Git, which can do branches; all else is refused with its type."""
    client = connect(world.client.address, world.client.key)
    world.git.create(f"acme/{driver.kind}", {"a": "a"})
    url = f"{world.git.url}/acme/{driver.kind}.git"
    made = await driver.call(client.git, "create_branch", "work", url)
    assert await driver.call(client.git, "branches", url, page_size=1) == [tc.Branch(name="main", commit=made.commit), made]
    assert await driver.call(client.git, "delete_branch", "work", url) is True
    with pytest.raises(tc.UnsupportedByHost):
        await driver.call(client.git, "auto_pull_request", url, head="work", base="main")
    with pytest.raises(tc.RemoteNotFound):
        await driver.call(client.git, "create_branch", "work", url, base="nope")
