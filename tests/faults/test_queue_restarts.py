"""The queue belongs to no process: it is there after a restart, and several replicas share it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.log_checker import check_log
from support.nursery import Nursery
from support.postgres import open_directory
from support.treadle import Client, Killable, connected, events_of, in_process, recording, settings_for
from support.workers import eventually

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

FILES = {
    "README.md": "# App\n",
    "long.jsonl": recording({"say": "x"}, {"run": ["sleep", "1000"]}),
    "quick.jsonl": recording({"say": "hi"}, {"write": "a.txt", "content": "a\n"}),
}


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        server.create("acme/app", FILES)
        yield server


@pytest.fixture
def second_dir() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory / "data"


def execute(client: Client, git_server: GitServer, model: str) -> Any:
    return client.execute(repository_url=f"{git_server.url}/acme/app.git", prompt="go", provider="replay", model=model)


async def until(stream: Any, what: Any) -> list[event_pb2.Event]:
    """Read until an event for which `what` holds."""
    seen: list[event_pb2.Event] = []
    async with asyncio.timeout(30):
        async for frame in stream:
            seen.extend(frame.events.events)
            if any(what(event) for event in seen):
                return seen
    raise AssertionError("the stream ended early")


def works(event: event_pb2.Event) -> bool:
    return event.HasField("tool_call")


def waits(event: event_pb2.Event) -> bool:
    return event.session_updated.HasField("waiting")


async def ended(client: Client, session_id: str) -> event_pb2.TurnCompleted:
    async with asyncio.timeout(60):
        events = await events_of(client.resume(session_id))
    check_log(events)
    return events[-1].turn_completed


def begun_at(events: list[event_pb2.Event]) -> int:
    return next(event.recorded_at.ToNanoseconds() for event in events if event.HasField("git_updated"))


async def test_a_restart_keeps_the_queue_and_its_order(
    database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, git_server: GitServer, nursery: Nursery
) -> None:
    server = Killable(settings_for(database, server_data_dir, git_server, max_turns=1), tmp_path / "log", nursery=nursery)
    try:
        await server.start()
        async with connected(server.address, server.key) as client:
            running = (await until(execute(client, git_server, "long.jsonl"), works))[0].session_id
            waiting = [(await until(execute(client, git_server, "quick.jsonl"), waits))[0].session_id for _ in range(3)]
        await server.stop(kill=True)
        await server.start()
        async with connected(server.address, server.key) as client:
            # What ran has its place again, so nothing that waited has begun.
            states = {each.session_id: each.state for each in (await client.call("ListSessions", pb.ListSessionsRequest())).sessions}
            assert [states[each] for each in waiting] == [event_pb2.SESSION_STATE_QUEUED] * 3
            await client.call("Interrupt", pb.InterruptRequest(session_id=running))
            assert (await ended(client, running)).status == event_pb2.TURN_STATUS_INTERRUPTED
            for each in waiting:
                assert (await ended(client, each)).status == event_pb2.TURN_STATUS_COMPLETED
            begun = [begun_at(await client.log(each)) for each in waiting]
            assert begun == sorted(begun)
    finally:
        await server.stop()


@pytest.mark.parametrize("point", ["take.before", "take.after", "admit.commit.before", "admit.commit.after"])
async def test_killed_while_a_waiting_turn_gets_its_place_it_runs_once(
    database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, git_server: GitServer, nursery: Nursery, point: str
) -> None:
    server = Killable(settings_for(database, server_data_dir, git_server, max_turns=1), tmp_path / "log", nursery=nursery)
    try:
        # The first turn passes `admit` as well; a place is taken for the second only.
        await server.start(kill_at=point, nth=2 if point.startswith("admit") else 1)
        async with connected(server.address, server.key) as client:
            running = (await until(execute(client, git_server, "long.jsonl"), works))[0].session_id
            waiting = (await until(execute(client, git_server, "quick.jsonl"), waits))[0].session_id
            with pytest.raises(grpc.aio.AioRpcError):
                await client.call("Interrupt", pb.InterruptRequest(session_id=running))
                await events_of(client.resume(waiting))
        assert await server.wait_killed() == -9
        await server.start()
        async with connected(server.address, server.key) as client:
            assert (await ended(client, running)).status == event_pb2.TURN_STATUS_INTERRUPTED
            assert (await ended(client, waiting)).pushed
    finally:
        await server.stop()


async def test_killed_before_its_log_was_told_of_it_a_waiting_turn_is_told_of_after_the_restart(
    database: DatabaseUrls, server_data_dir: Path, tmp_path: Path, git_server: GitServer, nursery: Nursery
) -> None:
    server = Killable(settings_for(database, server_data_dir, git_server, max_turns=1), tmp_path / "log", nursery=nursery)
    try:
        await server.start(kill_at="queue.tell.before")
        async with connected(server.address, server.key) as client:
            running = (await until(execute(client, git_server, "long.jsonl"), works))[0].session_id
            with pytest.raises(grpc.aio.AioRpcError):
                await events_of(execute(client, git_server, "quick.jsonl"))
        assert await server.wait_killed() == -9
        await server.start()
        async with connected(server.address, server.key) as client:
            (waiting,) = [
                each.session_id
                for each in (await client.call("ListSessions", pb.ListSessionsRequest())).sessions
                if each.session_id != running
            ]
            await until(client.resume(waiting), waits)
            await client.call("Interrupt", pb.InterruptRequest(session_id=running))
            assert (await ended(client, waiting)).pushed
    finally:
        await server.stop()


async def test_whichever_replica_has_a_place_takes_the_next(
    database: DatabaseUrls, server_data_dir: Path, second_dir: Path, git_server: GitServer
) -> None:
    async with (
        in_process(settings_for(database, server_data_dir, git_server, max_turns=1)) as (first, client),
        in_process(settings_for(database, second_dir, git_server, max_turns=1)) as (second, other),
    ):
        running = [(await until(execute(each, git_server, "long.jsonl"), works))[0].session_id for each in (client, other)]
        # The first replica has accepted it, and the second one gets room.
        stream = execute(client, git_server, "quick.jsonl")
        seen = await until(stream, waits)
        await other.call("Interrupt", pb.InterruptRequest(session_id=running[1]))
        async with asyncio.timeout(60):
            seen += await events_of(stream)
        assert seen[-1].turn_completed.pushed
        assert {event.actor.id for event in seen if event.HasField("git_updated")} == {second_replica(second)}
        # Who waits is stopped through any replica, and told by its own.
        stream = execute(other, git_server, "long.jsonl")
        seen = await until(stream, works)
        waiting = execute(other, git_server, "quick.jsonl")
        told = await until(waiting, waits)
        await client.call("Interrupt", pb.InterruptRequest(session_id=told[0].session_id))
        told += await events_of(waiting)
        assert told[-1].turn_completed.status == event_pb2.TURN_STATUS_INTERRUPTED
        for session_id in (running[0], seen[0].session_id):
            await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))
            await ended(client, session_id)
        await eventually(lambda: (first.supervisor.active, second.supervisor.active) == (0, 0))


def second_replica(server: Any) -> str:
    return str(server.supervisor._limits.replica)


async def test_two_replicas_share_twenty_waiting_turns_and_run_each_once(
    database: DatabaseUrls, server_data_dir: Path, second_dir: Path, git_server: GitServer
) -> None:
    async with (
        in_process(settings_for(database, server_data_dir, git_server, max_turns=2)) as (_, client),
        in_process(settings_for(database, second_dir, git_server, max_turns=2)) as (_, other),
    ):
        streams = [execute(each, git_server, "quick.jsonl") for _ in range(10) for each in (client, other)]
        async with asyncio.timeout(120):
            logs = await asyncio.gather(*map(events_of, streams))
        replicas = set()
        for events in logs:
            check_log(events)
            assert events[-1].turn_completed.pushed
            replicas |= {event.actor.id for event in events if event.HasField("git_updated")}
        assert len(replicas) == 2
