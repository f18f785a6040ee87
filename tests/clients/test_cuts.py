"""Streams that are cut, everywhere and in every way: what is handed out is the log, nothing twice and nothing left out."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY
from support.clients import Driver
from support.frame_relay import End, FrameRelay, Frames, for_ever, typed
from support.tcp_gate import tcp_gate
from support.treadle import recording

from server.kernel import errors
from treadle.session.v1 import session_service_pb2 as pb
from treadle_client import Event, Retry, SequenceBroken, ShuttingDown, Unavailable, Unreachable

WAYS: list[End | None] = [
    None,  # as if it were complete, but without Closed
    End(grpc.StatusCode.UNAVAILABLE),
    End(grpc.StatusCode.INTERNAL),
    End(grpc.StatusCode.UNKNOWN),
    End(grpc.StatusCode.CANCELLED),
    typed(errors.ShuttingDown()),
    typed(errors.StoreUnavailable()),
    typed(errors.SlowConsumer(1)),
]
STRIDE = 499


async def one_event_each(number: int, frames: Frames) -> Frames:
    """Every stream ends after one event, each in another way."""
    async for frame in frames:
        yield frame
        if frame.HasField("events"):
            if (way := WAYS[number % len(WAYS)]) is not None:
                raise way
            return


async def none_every_other_time(number: int, frames: Frames) -> Frames:
    """The same, and every other stream ends before its first event."""
    async for frame in one_event_each(number, frames):
        if frame.HasField("events") and number % 2 == 0:
            raise End(grpc.StatusCode.UNAVAILABLE)
        yield frame


def first_seq(frame: pb.ResumeResponse) -> int:
    return frame.events.events[0].seq if frame.HasField("events") else 0


def protos(events: list[Event]) -> list[Any]:
    return [event.proto for event in events]


@pytest.mark.parametrize("tamper", [one_event_each, none_every_other_time])
async def test_resume_cut_at_every_event(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any], tamper: Any) -> None:
    relay.tamper = tamper
    client = connect(relay.address, world.client.key)
    assert protos(await driver.read(client.resume(world.session_id))) == world.log
    assert relay.asked.count("Resume") >= len(world.log)


async def test_execute_cut_at_every_event(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]) -> None:
    async def also_before_the_answer(number: int, frames: Frames) -> Frames:
        async for frame in none_every_other_time(number - 1, frames):
            if number == 0:
                raise End(grpc.StatusCode.UNAVAILABLE)
            yield frame

    relay.tamper = also_before_the_answer
    client = connect(relay.address, world.client.key)
    fields = world.repository(f"acme/every-{driver}", {"burst": 300, "text": "x", "per_second": 600})
    seen = await driver.read(client.execute(**fields))
    assert protos(seen) == await world.client.log(seen[0].session_id)
    assert len(seen) > 300
    # It was asked for three times, by one request_id: the first stream brought nothing, the second no event.
    assert relay.asked[:4] == ["ExecuteSession"] * 3 + ["Resume"]
    assert [event.kind for event in seen].count("turn_started") == 1


async def test_the_second_turn_begins_behind_the_first(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]) -> None:
    """Where a turn begins in a session that is there is not known before its first event; a cut before that must change nothing."""
    relay.tamper = none_every_other_time
    client = connect(relay.address, world.client.key)
    fields = world.repository(f"acme/second-{driver}", {"say": "hello"})
    first = await driver.read(client.execute(**fields))
    second = await driver.read(client.execute(session_id=first[0].session_id, prompt="once more"))
    assert protos(first + second) == await world.client.log(first[0].session_id)
    assert {event.turn_id for event in second} == {second[0].turn_id} != {first[0].turn_id}


async def test_a_cut_stream_of_a_turn_ends_with_the_turn(
    world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]
) -> None:
    """After a cut it is resumed by session; another turn that began meanwhile is not its business."""
    client = connect(relay.address, world.client.key)
    fields = world.repository(f"acme/next-{driver}", {"say": "hello"})

    async def cut_when_the_next_turn_is_over(number: int, frames: Frames) -> Frames:
        async for frame in frames:
            yield frame
            if number == 0 and frame.HasField("events"):
                session_id = frame.events.events[0].session_id
                async for _ in world.client.resume(session_id):
                    pass
                await world.client.run(session_id=session_id, prompt="the next")
                raise End(grpc.StatusCode.UNAVAILABLE)

    relay.tamper = cut_when_the_next_turn_is_over
    seen = await driver.read(client.execute(**fields))
    whole = await world.client.log(seen[0].session_id)
    assert len(whole) > len(seen)
    assert protos(seen) == whole[: len(seen)]
    assert seen[-1].kind == "turn_completed"


async def test_cut_in_the_middle_of_frames(world: Any, driver: Driver, small_pages: None) -> None:
    """At every 499th byte that the server sends, once, in a new client's first connection; each also of the connection's first words."""
    port = int(world.client.address.rpartition(":")[2])
    places = 0
    for limit in itertools.count(1, STRIDE):
        async with tcp_gate(port, answers=[limit]) as gate:
            client = driver.client(f"127.0.0.1:{gate.port}", world.client.key)
            try:
                assert protos(await driver.read(client.resume(world.session_id))) == world.log, limit
            finally:
                await driver.close(client)
            if not gate.cuts:
                break
            places += 1
    assert places > 100


async def test_cut_again_and_again_while_the_turn_runs(world: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    port = int(world.client.address.rpartition(":")[2])
    fields = world.repository(f"acme/live-{driver}", {"burst": 300, "text": "x" * 100, "per_second": 300})
    # Ever more bytes: on a busy machine the whole turn may come in one frame.
    limits = (int(2500 * 1.3**number) for number in itertools.count())
    async with tcp_gate(port, answers=limits) as gate:
        client = connect(f"127.0.0.1:{gate.port}", world.client.key)
        seen = await driver.read(client.execute(**fields))
        assert gate.cuts >= 5
    assert protos(seen) == await world.client.log(seen[0].session_id)


async def test_a_silent_stream_is_taken_for_dead(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]) -> None:
    """The connection is there and answers pings, but no frame comes: not a heartbeat either."""

    async def fall_silent(number: int, frames: Frames) -> Frames:
        async for frame in frames:
            if number < 3 and (frame.HasField("closed") or first_seq(frame) > 100 * (number + 1)):
                await for_ever()
            yield frame

    relay.tamper = fall_silent
    told: list[Unavailable | None] = []
    client = connect(relay.address, world.client.key, heartbeat_seconds=0.1, on_connection=told.append)
    assert protos(await driver.read(client.resume(world.session_id))) == world.log
    assert relay.asked.count("Resume") == 4
    assert [type(each) for each in told] == [Unreachable, type(None)] * 3
    assert "silent" in str(told[0])


async def test_heartbeats_keep_a_quiet_stream_open(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]) -> None:
    client = connect(relay.address, world.client.key, heartbeat_seconds=0.5)
    fields = world.repository(f"acme/quiet-{driver}", {"say": "a"}, {"wait_ms": 2500}, {"say": "b"})
    seen = await driver.read(client.execute(**fields))
    assert protos(seen) == await world.client.log(seen[0].session_id)
    assert relay.asked == ["ExecuteSession"]


@pytest.mark.parametrize("lie", ["left out", "twice", "end left out", "beginning left out"])
async def test_a_server_that_miscounts_is_found_out(
    world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any], lie: str
) -> None:
    async def miscount(_: int, frames: Frames) -> Frames:
        async for frame in frames:
            seq = first_seq(frame)
            if (lie, seq) in {("left out", 7), ("beginning left out", 1)} or (lie == "end left out" and seq == len(world.log)):
                continue
            yield frame
            if lie == "twice" and seq == 7:
                yield frame

    relay.tamper = miscount
    client = connect(relay.address, world.client.key)
    seen: list[Event] = []
    with pytest.raises(SequenceBroken) as caught:
        await driver.read_into(seen, client.resume(world.session_id))
    expected, got = {
        "left out": (7, 8),
        "twice": (8, 7),
        "end left out": (len(world.log), len(world.log) - 1),
        "beginning left out": (1, 2),
    }[lie]
    assert (caught.value.expected, caught.value.got) == (expected, got)
    assert protos(seen) == world.log[: len(seen)]
    assert relay.asked == ["Resume"]


async def test_a_server_that_stays_away_is_given_up_and_can_be_asked_again(
    world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]
) -> None:
    away = True

    async def refuse_after_seven(number: int, frames: Frames) -> Frames:
        async for frame in frames:
            if away and (number or first_seq(frame) > 7):
                raise typed(errors.ShuttingDown())
            yield frame

    relay.tamper = refuse_after_seven
    client = connect(relay.address, world.client.key, retry=Retry(0.01, 0.05, unanswered_seconds=0, away_seconds=0.5))
    stream = client.resume(world.session_id)
    seen: list[Event] = []
    with pytest.raises(ShuttingDown):
        await driver.read_into(seen, stream)
    assert (len(seen), stream.last_seq) == (7, 7)
    assert 5 < relay.asked.count("Resume") < 60
    away = False
    await driver.read_into(seen, stream)
    assert protos(seen) == world.log


async def test_an_event_that_never_comes_through_does_not_keep_it_trying_for_ever(
    world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]
) -> None:
    """Each connection is answered, and cut at the same event."""

    async def stumble(_: int, frames: Frames) -> Frames:
        async for frame in frames:
            if first_seq(frame) == 8:
                raise End(grpc.StatusCode.UNAVAILABLE)
            yield frame

    relay.tamper = stumble
    client = connect(relay.address, world.client.key, retry=Retry(0.01, 0.05, unanswered_seconds=0, away_seconds=0.5))
    seen: list[Event] = []
    async with asyncio.timeout(20):
        with pytest.raises(Unreachable):
            await driver.read_into(seen, client.resume(world.session_id))
    assert len(seen) == 7


@pytest.fixture(scope="module")
async def large(world: Any) -> Any:
    """A log of 30 MB, which fits into no buffer on the way."""
    world.git.create("acme/big", {"r.jsonl": recording({"burst": 1500, "text": "x" * 20_000})})
    return await world.client.run(repository_url=f"{world.git.url}/acme/big.git", prompt="go", provider="replay", model="r.jsonl")


async def test_a_consumer_that_is_too_slow_goes_on(world: Any, large: Any, driver: Driver, connect: Callable[..., Any]) -> None:
    """The server gives it up; it notices nothing, and gets everything."""
    cut = {"method": "Resume", "code": "RESOURCE_EXHAUSTED"}
    before = REGISTRY.get_sample_value("treadle_calls_total", cut) or 0

    async def dawdle(event: Event) -> None:
        if event.seq == 5:
            async with asyncio.timeout(60):
                while (REGISTRY.get_sample_value("treadle_calls_total", cut) or 0) == before:
                    await asyncio.sleep(0.05)

    client = connect(world.client.address, world.client.key)
    assert protos(await driver.read(client.resume(large[0].session_id), dawdle)) == large


async def test_frames_of_a_newer_server_are_passed_over(world: Any, relay: FrameRelay, driver: Driver, connect: Callable[..., Any]) -> None:
    async def add_unknown(_: int, frames: Frames) -> Frames:
        async for frame in frames:
            yield pb.ResumeResponse.FromString(b"\xa2\x06\x00")
            yield frame

    relay.tamper = add_unknown
    client = connect(relay.address, world.client.key)
    assert protos(await driver.read(client.resume(world.session_id))) == world.log


async def test_a_line_that_goes_silent_is_given_up(
    world: Any, driver: Driver, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a question that nobody answers, and not by the call's own limit."""
    monkeypatch.setattr("treadle_client.target._SILENCE_MS", 500)
    monkeypatch.setattr("treadle_client.target._ANSWER_MS", 500)
    once = Retry(unanswered_seconds=0, away_seconds=0)
    async with tcp_gate(int(world.client.address.rpartition(":")[2])) as gate:
        client = connect(f"127.0.0.1:{gate.port}", world.client.key, retry=once, timeout_seconds=50)
        assert (await driver.call(client, "get_session", world.session_id)).session_id == world.session_id
        gate.go_silent()
        async with asyncio.timeout(25):
            with pytest.raises(Unreachable) as caught:
                await driver.call(client, "get_session", world.session_id)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
