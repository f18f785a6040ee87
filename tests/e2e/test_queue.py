"""Turns that find no place: they wait, say where they stand, take turns, and can be stopped and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer
from support.log_checker import check_log
from support.treadle import Client, connected, error_info, events_of, kinds, recording
from support.workers import eventually

from server.identity.keys import create_key
from server.kernel.identity import Principal
from treadle.session.v1 import event_pb2, input_pb2
from treadle.session.v1 import session_service_pb2 as pb

LONG = recording({"say": "waiting"}, {"run": ["sleep", "1000"]})
QUICK = recording({"say": "hello"}, {"write": "a.txt", "content": "a\n"})
PLACE, USER_LIMIT = event_pb2.WAIT_REASON_PLACE, event_pb2.WAIT_REASON_USER_LIMIT

ONE_PLACE = pytest.mark.parametrize("changes", [{"max_turns": 1}])


@pytest.fixture(autouse=True)
def repository(git_server: GitServer) -> Path:
    return git_server.create("acme/app", {"README.md": "# App\n", "long.jsonl": LONG, "quick.jsonl": QUICK})


class Following:
    """A caller of ExecuteSession who reads on in a task of its own."""

    def __init__(self, client: Client, stream: Any) -> None:
        self.client = client
        self.seen: list[event_pb2.Event] = []
        self.begun: pb.ExecuteSessionResponse | None = None
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: Any) -> None:
        try:
            async for frame in stream:
                async with self._news:
                    self.seen.extend(frame.events.events)
                    self._news.notify_all()
        finally:
            async with self._news:
                self._news.notify_all()

    async def until(self, what: Any) -> event_pb2.Event:
        """The first event for which `what` holds."""
        async with asyncio.timeout(30), self._news:
            while True:
                for event in self.seen:
                    if what(event):
                        return event
                if self._task.done():
                    await self._task
                    raise AssertionError(f"the stream ended with {kinds(self.seen)}")
                await self._news.wait()

    async def until_working(self) -> None:
        await self.until(lambda event: event.HasField("tool_call"))

    async def until_ahead(self, ahead: int) -> event_pb2.Event:
        return await self.until(lambda event: event.session_updated.HasField("waiting") and event.session_updated.waiting.ahead == ahead)

    async def end(self) -> event_pb2.TurnCompleted:
        async with asyncio.timeout(60):
            await self._task
        assert kinds(self.seen)[-1] == "turn_completed"
        return self.seen[-1].turn_completed

    async def failed(self) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(30):
                await self._task
        return caught.value

    @property
    def session_id(self) -> str:
        return self.seen[0].session_id

    @property
    def told(self) -> list[tuple[int, int]]:
        """Each (ahead, reason) that was told."""
        updates = [event.session_updated.waiting for event in self.seen if event.session_updated.HasField("waiting")]
        return [(waiting.ahead, waiting.reason) for waiting in updates]

    async def stop(self) -> None:
        await self.client.call("Interrupt", pb.InterruptRequest(session_id=self.session_id))

    def cancel(self) -> None:
        self._task.cancel()


def execute(client: Client, git_server: GitServer, model: str = "long.jsonl", **fields: Any) -> Following:
    request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": model} | fields
    return Following(client, client.execute(**request))


@asynccontextmanager
async def another(server: Any, client: Client, tenant: str, name: str) -> AsyncIterator[Client]:
    """A client of another user."""
    user = Principal(tenant, name, name.capitalize(), f"{name}@{tenant}.invalid")
    await server.stores.keys.ensure_user(user)
    async with connected(client.address, await create_key(server.stores.keys, user)) as other:
        yield other


@ONE_PLACE
async def test_a_turn_without_a_place_waits_and_says_where_it_stands(client: Client, git_server: GitServer, server: Any) -> None:
    first = execute(client, git_server)
    await first.until_working()
    second = execute(client, git_server, "quick.jsonl")
    await second.until_ahead(0)
    # What was asked is in the log at once, and the session has its title.
    assert kinds(second.seen) == ["turn_started", "user_input", "session_updated"]
    session = (await client.call("GetSession", pb.GetSessionRequest(session_id=second.session_id))).session
    assert (session.state, session.title) == (event_pb2.SESSION_STATE_QUEUED, "go")
    third = execute(client, git_server, "quick.jsonl")
    await third.until_ahead(1)
    listed = (await client.call("ListSessions", pb.ListSessionsRequest())).sessions
    assert [each.waiting.ahead if each.HasField("waiting") else None for each in listed] == [1, 0, None]
    assert server.supervisor.waiting == 2
    await first.stop()
    assert (await second.end()).status == event_pb2.TURN_STATUS_COMPLETED
    assert (await third.end()).status == event_pb2.TURN_STATUS_COMPLETED
    assert second.told == [(0, PLACE)]
    assert third.told in ([(1, PLACE)], [(1, PLACE), (0, PLACE)])
    for each in (first, second, third):
        await each.end()
        assert await client.log(each.session_id) == each.seen
    # The last turn's worker may be on its way out still.
    await eventually(lambda: (server.supervisor.waiting, server.supervisor.active) == (0, 0))


@ONE_PLACE
async def test_the_same_request_again_follows_the_turn_that_waits(client: Client, git_server: GitServer) -> None:
    first = execute(client, git_server)
    await first.until_working()
    second = execute(client, git_server, "quick.jsonl", request_id="once")
    await second.until_ahead(0)
    again = execute(client, git_server, "quick.jsonl", request_id="once")
    await again.until_ahead(0)
    assert again.session_id == second.session_id
    resumed = Following(client, client.resume(second.session_id))
    await resumed.until_ahead(0)
    await first.stop()
    for each in (second, again, resumed):
        assert (await each.end()).pushed
    assert second.seen == again.seen == resumed.seen


@ONE_PLACE
async def test_one_who_asks_for_many_makes_nobody_else_wait_for_them(client: Client, git_server: GitServer, server: Any) -> None:
    async with AsyncExitStack() as stack:
        bob = await stack.enter_async_context(another(server, client, "local", "bob"))
        mallory = await stack.enter_async_context(another(server, client, "evil", "mallory"))
        running = execute(client, git_server)
        await running.until_working()
        mine = []
        for number in range(4):
            mine.append(execute(client, git_server, "quick.jsonl"))
            await mine[-1].until_ahead(number)
        theirs = execute(mallory, git_server, "quick.jsonl")
        await theirs.until_ahead(0)
        # What others wait for is not told: before bob's is nobody of his tenant, though mallory's goes first.
        of_bob = execute(bob, git_server, "quick.jsonl")
        await of_bob.until_ahead(0)
        await mine[0].until_ahead(1)
        session = (await bob.call("GetSession", pb.GetSessionRequest(session_id=of_bob.session_id))).session
        assert (session.waiting.ahead, session.waiting.reason) == (0, PLACE)
        await running.stop()
        everybody = [theirs, of_bob, *mine]
        order = dict(zip(map(id, everybody), ["theirs", "bob", "m0", "m1", "m2", "m3"], strict=True))
        for each in everybody:
            assert (await each.end()).status == event_pb2.TURN_STATUS_COMPLETED
        begun = {
            id(each): next(event.recorded_at.ToNanoseconds() for event in each.seen if event.HasField("git_updated")) for each in everybody
        }
        assert [order[id(each)] for each in sorted(everybody, key=lambda each: begun[id(each)])] == [
            "m0",
            "theirs",
            "bob",
            "m1",
            "m2",
            "m3",
        ]


@pytest.mark.parametrize("changes", [{"max_turns_per_user": 1}])
async def test_a_limit_per_user_holds_back_that_user_only(client: Client, git_server: GitServer, server: Any) -> None:
    async with another(server, client, "local", "bob") as bob:
        first = execute(client, git_server)
        await first.until_working()
        second = execute(client, git_server, "quick.jsonl")
        waits = await second.until_ahead(0)
        assert waits.session_updated.waiting.reason == USER_LIMIT
        others = execute(bob, git_server, "quick.jsonl")
        assert (await others.end()).status == event_pb2.TURN_STATUS_COMPLETED
        assert others.told == []
        await first.stop()
        assert (await second.end()).status == event_pb2.TURN_STATUS_COMPLETED


@pytest.mark.parametrize("changes", [{"max_turns": 1, "max_waiting_turns": 1}])
async def test_too_many_waiting_turns_are_refused_before_anything_is_made(client: Client, git_server: GitServer) -> None:
    idle = execute(client, git_server, "quick.jsonl")
    await idle.end()
    first = execute(client, git_server)
    await first.until_working()
    second = execute(client, git_server, "quick.jsonl")
    await second.until_ahead(0)
    expected = (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TURNS", {"limit": "1", "whose": "user"}, [])
    assert error_info(await execute(client, git_server).failed()) == expected
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.call("SendInput", pb.SendInputRequest(session_id=idle.session_id, text="more"))
    assert error_info(caught.value) == expected
    sessions = (await client.call("ListSessions", pb.ListSessionsRequest())).sessions
    assert {session.session_id for session in sessions} == {first.session_id, second.session_id, idle.session_id}
    assert (await client.call("ListInputs", pb.ListInputsRequest(session_id=idle.session_id, all=True))).inputs == []
    await first.stop()
    await second.end()


@ONE_PLACE
async def test_a_waiting_turn_is_stopped_at_once_and_never_runs(client: Client, git_server: GitServer) -> None:
    first = execute(client, git_server)
    await first.until_working()
    second = execute(client, git_server, "quick.jsonl")
    third = execute(client, git_server, "quick.jsonl")
    await second.until_ahead(0)
    await third.until_ahead(1)
    await second.stop()
    end = await second.end()
    assert (end.status, end.commit) == (event_pb2.TURN_STATUS_INTERRUPTED, "")
    assert end.message.startswith("interrupted by ")
    assert "git_updated" not in kinds(second.seen)
    await third.until_ahead(0)
    await first.stop()
    await third.end()
    for each in (first, second, third):
        await client.log(each.session_id)
    session = (await client.call("GetSession", pb.GetSessionRequest(session_id=second.session_id))).session
    assert session.state == event_pb2.SESSION_STATE_IDLE


@ONE_PLACE
async def test_a_worker_that_cannot_be_removed_keeps_no_place(
    client: Client, git_server: GitServer, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the spawner hangs: what ended is ended, and what follows begins."""
    hung: list[str] = []
    goes_on, remove = asyncio.Event(), server.launcher.remove

    async def removed_late(worker: Any) -> None:
        hung.append(worker.turn_id)
        await goes_on.wait()
        await remove(worker)

    monkeypatch.setattr(server.launcher, "remove", removed_late)
    first = execute(client, git_server)
    await first.until_working()
    session = Following(client, client.resume(first.session_id))
    rather = pb.SendInputRequest(session_id=first.session_id, text="rather", delivery=event_pb2.INPUT_DELIVERY_INTERRUPT)
    # The second one is heard by the turn that runs now, and not by the one whose worker is still there.
    for count in (2, 3):
        await client.call("SendInput", rather)
        await session.until(lambda _, count=count: len({each.turn_id for each in session.seen if each.HasField("tool_call")}) == count)
    second = execute(client, git_server, "quick.jsonl")
    await second.until_ahead(0)
    await client.call("Interrupt", pb.InterruptRequest(session_id=first.session_id))
    assert (await second.end()).status == event_pb2.TURN_STATUS_COMPLETED
    await eventually(lambda: len(set(hung)) == 4)
    goes_on.set()
    await eventually(lambda: server.supervisor.active == 0)
    assert await server.launcher.leftovers() == []


@ONE_PLACE
async def test_a_session_whose_turn_waits_is_deleted_at_once(client: Client, git_server: GitServer) -> None:
    first = execute(client, git_server)
    await first.until_working()
    second = execute(client, git_server, "quick.jsonl")
    await second.until_ahead(0)
    await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=second.session_id))
    assert error_info(await second.failed())[:2] == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    await first.stop()
    await first.end()
    assert [each.session_id for each in (await client.call("ListSessions", pb.ListSessionsRequest())).sessions] == [first.session_id]


@ONE_PLACE
async def test_inputs_go_through_the_same_door(client: Client, git_server: GitServer) -> None:
    idle = execute(client, git_server, "quick.jsonl")
    await idle.end()
    first = execute(client, git_server)
    await first.until_working()
    # It would follow the turn that runs, but others wait already.
    sent = await client.call("SendInput", pb.SendInputRequest(session_id=first.session_id, text="and then"))
    assert sent.input.status == event_pb2.INPUT_STATUS_QUEUED
    second = execute(client, git_server, "quick.jsonl")
    await second.until_ahead(0)
    begun = (await client.call("SendInput", pb.SendInputRequest(session_id=idle.session_id, text="more"))).input
    assert begun.turn_id
    more = Following(client, client.resume(idle.session_id, len(idle.seen)))
    await more.until_ahead(1)
    # A turn that waits takes no input, and one that interrupts takes its place away.
    waiting = input_pb2.Input
    replaced = await client.call(
        "SendInput", pb.SendInputRequest(session_id=idle.session_id, text="rather", delivery=event_pb2.INPUT_DELIVERY_INTERRUPT)
    )
    assert isinstance(replaced.input, waiting)
    await more.until(lambda event: event.turn_completed.status == event_pb2.TURN_STATUS_INTERRUPTED and event.turn_id == begun.turn_id)
    await first.stop()
    assert (await second.end()).status == event_pb2.TURN_STATUS_COMPLETED
    await more.end()
    log = await client.log(idle.session_id)
    assert [event.user_input.parts[0].text for event in log if event.user_input.status == event_pb2.INPUT_STATUS_DELIVERED] == [
        "go",
        "more",
        "rather",
    ]
    assert log[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED


@pytest.mark.parametrize("changes", [{"max_turns": 3}])
async def test_two_hundred_that_wait_all_end(client: Client, git_server: GitServer, server: Any) -> None:
    running = [execute(client, git_server) for _ in range(3)]
    for each in running:
        await each.until_working()
    waiting = [execute(client, git_server, "quick.jsonl") for _ in range(200)]
    for each in waiting:
        await each.until(lambda event: event.session_updated.HasField("waiting"))
    assert (server.supervisor.waiting, server.supervisor.active) == (200, 3)
    # What only waits is stopped in a moment; the few that are left run.
    for each in running + waiting[:190]:
        await each.stop()
    async with asyncio.timeout(120):
        for each in waiting[190:]:
            assert (await each.end()).status == event_pb2.TURN_STATUS_COMPLETED
    for each in waiting[:190]:
        assert (await each.end()).status == event_pb2.TURN_STATUS_INTERRUPTED
    for each in running + waiting:
        check_log(each.seen)
        assert len(each.told) <= 40
    await events_of(client.resume(running[0].session_id))
