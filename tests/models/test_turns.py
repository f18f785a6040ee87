"""Whole turns whose agent asks a model: the real server, worker, sandbox, Git and Postgres; only the provider is fake."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from pydantic import SecretStr
from support.fake_upstream import CACHE_READ, CACHE_WRITE, INPUT, OUTPUT, FakeUpstream, message, status
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.model_script import asking, files, hand_out_tokens, recordings_reach_models
from support.nursery import Nursery
from support.sandbox import require_sandbox
from support.treadle import Killable, branch_of, connected, error_info, events_of, in_process, kinds, pushed_files, settings_for

from server.embedded.postgres_home import DatabaseUrls
from server.workers.local import LocalLauncher
from treadle.session.v1 import event_pb2 as pb

KEY = "sk-ant-the-real-key"
EACH = INPUT + OUTPUT + CACHE_READ + CACHE_WRITE
COST = round(INPUT * 3 + OUTPUT * 15 + CACHE_READ * 0.3 + CACHE_WRITE * 3.75)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        yield server


@pytest.fixture
def changes(upstream: FakeUpstream) -> dict[str, Any]:
    """Settings; a test changes them before it uses `client`."""
    return {"anthropic_url": upstream.url, "anthropic_api_key": SecretStr(KEY), "model_retries": 2, "naming": False}


@pytest.fixture
async def started(
    database: DatabaseUrls, server_data_dir: Path, host: GitServer, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """Starts the server, with what `changes` are by then."""
    require_sandbox()
    recordings_reach_models(monkeypatch.setattr)
    tokens = asyncio.create_task(hand_out_tokens(server_data_dir / "workers"))
    yield lambda: in_process(settings_for(database, server_data_dir, host, **changes))
    tokens.cancel()


def request(host: GitServer, *steps: dict[str, Any], **requests: dict[str, Any]) -> dict[str, str]:
    host.create("acme/app", {"README.md": "# App\n", **files(*steps, **requests)})
    return {"repository_url": f"{host.url}/acme/app.git", "prompt": "Add a file", "provider": "replay", "model": "r.jsonl"}


def said(events: list[pb.Event]) -> str:
    """What the script printed."""
    results = [part.text for event in events if event.tool_result.HasField("exit_code") for part in event.tool_result.parts]
    return "".join(results)


def usages(events: list[pb.Event]) -> list[pb.UsageUpdated]:
    return [event.usage_updated for event in events if event.HasField("usage_updated")]


def errors(events: list[pb.Event]) -> list[pb.Error]:
    return [event.error for event in events if event.HasField("error")]


async def first_events(stream: Any) -> AsyncIterator[pb.Event]:
    async for frame in stream:
        if frame.events.events:
            yield frame.events.events[0]
            return


async def rows(database: DatabaseUrls) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database.owner)
    try:
        return await connection.fetch("SELECT * FROM model_uses ORDER BY created_at")
    finally:
        await connection.close()


async def test_an_agent_that_reaches_models_does_not_say_what_they_used(started: Any, host: GitServer) -> None:
    asked = request(host, {"usage": {"model": "claude-sonnet-4-5", "input_tokens": 10**15, "cost_micros": 10**15}})
    async with started() as (_, client):
        events = await client.run(**asked)
    assert usages(events) == []
    end = events[-1].turn_completed
    assert (end.status, end.code) == (pb.TURN_STATUS_FAILED, pb.TURN_CODE_PROTOCOL)


def holding(folder: Path, secret: bytes) -> list[Path]:
    """Files in which it is. What is deleted meanwhile holds nothing."""
    found = []
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file() and secret in path.read_bytes():
                    found.append(path)
    return found


async def test_an_agent_asks_its_model_and_what_it_used_is_told_and_kept(
    started: Any, host: GitServer, upstream: FakeUpstream, database: DatabaseUrls, server_data_dir: Path
) -> None:
    asked = request(host, asking("a", "b"), {"write": "made.txt", "content": "x"}, a={}, b={"stream": False})
    async with started() as (_, client):
        events = await client.run(**asked)
        await client.log(events[0].session_id)
    assert said(events).splitlines() == ["a.json 200 True", "b.json 200 True"]
    assert [seen.headers["x-api-key"] for seen in upstream.seen] == [KEY, KEY]
    expected = pb.UsageUpdated(
        model="claude-sonnet-4-5",
        input_tokens=INPUT,
        output_tokens=OUTPUT,
        cache_read_tokens=CACHE_READ,
        cache_write_tokens=CACHE_WRITE,
        cost_micros=COST,
        cost_source=pb.COST_SOURCE_ESTIMATE,
    )
    assert usages(events) == [expected, expected]
    assert {event.actor.kind for event in events if event.HasField("usage_updated")} == {pb.ACTOR_KIND_SERVER}
    found = await rows(database)
    assert [(row["owner_id"], str(row["turn_id"]), row["purpose"]) for row in found] == [("local", events[0].turn_id, "AGENT")] * 2
    assert [(row["total_tokens"], row["cost_micros"]) for row in found] == [(EACH, COST)] * 2
    assert events[-1].turn_completed.status == pb.TURN_STATUS_COMPLETED
    assert KEY not in str(events)
    assert holding(server_data_dir, KEY.encode()) == []


async def test_what_is_refused_and_what_is_tried_again_are_told(started: Any, host: GitServer, upstream: FakeUpstream) -> None:
    asked = request(host, asking("a", "b"), a={"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, b={})
    upstream.plays(status(529, "busy", headers={"retry-after": "0.01"}), message())
    async with started() as (_, client):
        events = await client.run(**asked)
        await client.log(events[0].session_id)
    assert said(events).splitlines() == ["a.json 402 True", "b.json 200 True"]
    refused, busy = errors(events)
    assert (refused.code, refused.retryable, refused.fatal) == ("MODEL_REQUEST_REFUSED", False, False)
    assert "web_search_20250305" in refused.message
    assert busy.message.startswith(f"529 from {upstream.url.removeprefix('http://')}: busy; try 2 of 3 in ")
    busy.ClearField("message")
    assert busy == pb.Error(code="MODEL_OVERLOADED", retryable=True, attempt=1, provider_status=529)
    assert len(usages(events)) == 1


@pytest.mark.parametrize(("budget", "left"), [({"budget_turn_tokens": EACH + 1}, 1), ({"budget_turn_usd": (COST + 1) / 1e6}, 1)])
async def test_a_turn_that_has_used_up_its_budget_ends_and_its_work_is_kept(
    started: Any, host: GitServer, upstream: FakeUpstream, changes: dict[str, Any], budget: dict[str, Any], left: int
) -> None:
    changes |= budget
    steps = ({"write": "made.txt", "content": "x"}, asking("a", "b"), {"run": "sleep 60"}, {"write": "never.txt", "content": "x"})
    asked = request(host, *steps, a={}, b={})
    async with started() as (_, client):
        events = await client.run(**asked)
        end = events[-1].turn_completed
        assert (end.status, end.code, end.pushed) == (pb.TURN_STATUS_FAILED, pb.TURN_CODE_BUDGET, True)
        assert "the model budget of the turn is used up" in end.message
        fatal = [error for error in errors(events) if error.fatal]
        assert [error.code for error in fatal] == ["BUDGET"]
        first, second = usages(events)
        assert (first.budget_left_tokens or first.budget_left_micros, second.budget_left_tokens or second.budget_left_micros) == (left, 0)
        branch = next(event.git_updated.branch for event in events if event.git_updated.action == pb.GIT_ACTION_BRANCHED)
        pushed = pushed_files(host.root / "acme" / "app.git", branch)
        assert pushed["made.txt"] == "x"
        assert "never.txt" not in pushed
        again = await client.run(session_id=events[0].session_id, prompt="go on")
        assert len(usages(again)) == 2, "another turn has a budget of its own"
        await client.log(events[0].session_id)


async def test_requests_in_parallel_overdraw_a_budget_by_one_at_most(
    started: Any, host: GitServer, upstream: FakeUpstream, changes: dict[str, Any], database: DatabaseUrls
) -> None:
    changes |= {"budget_turn_tokens": 3 * EACH}
    large = {"messages": [{"role": "user", "content": "y" * 4 * EACH}]}
    asked = request(host, asking(*["&a"] * 10), {"run": "sleep 60"}, a=large)
    async with started() as (_, client):
        events = await client.run(**asked)
        await client.log(events[0].session_id)
    assert events[-1].turn_completed.code == pb.TURN_CODE_BUDGET
    assert 3 * EACH <= sum(row["total_tokens"] for row in await rows(database)) <= 4 * EACH
    assert len(usages(events)) == len(await rows(database))


async def test_a_users_day_is_limited_over_all_turns_and_servers(
    started: Any, host: GitServer, upstream: FakeUpstream, changes: dict[str, Any]
) -> None:
    changes |= {"budget_day_tokens": 2 * EACH}
    asked = request(host, asking("a"), a={})
    async with started() as (_, client):
        first = await client.run(**asked)
        assert first[-1].turn_completed.status == pb.TURN_STATUS_COMPLETED
    async with started() as (_, client):
        second = await client.run(**asked)
        assert second[-1].turn_completed.code == pb.TURN_CODE_BUDGET, "the second use empties the purse"
        third = await client.run(**asked)
        assert third[-1].turn_completed.code == pb.TURN_CODE_BUDGET
        assert "the user's day" in third[-1].turn_completed.message
    assert len(upstream.seen) == 2


async def test_what_was_used_long_ago_is_removed(
    started: Any, host: GitServer, upstream: FakeUpstream, changes: dict[str, Any], database: DatabaseUrls
) -> None:
    changes |= {"model_use_days": 30}
    async with started() as (_, client):
        await client.run(**request(host, asking("a", "b"), a={}, b={}))
    owner = await asyncpg.connect(database.owner)
    try:
        await owner.execute("UPDATE model_uses SET created_at = now() - interval '31 days' WHERE number = 1")
    finally:
        await owner.close()
    async with started():
        async with asyncio.timeout(10):
            while len(await rows(database)) == 2:
                await asyncio.sleep(0.02)
    assert [row["number"] for row in await rows(database)] == [2]


async def test_a_small_model_names_session_branch_and_commit(
    started: Any, host: GitServer, upstream: FakeUpstream, changes: dict[str, Any], database: DatabaseUrls
) -> None:
    changes |= {"naming": True, "commit_coauthor": "Ada <ada@example.org>", "session_link": "https://t.example/{session_id}"}
    asked = request(host, {"write": "made.txt", "content": "x"}) | {"prompt": f"Add a file; my password is {KEY}"}
    upstream.plays(message("TITLE: A better file\nBRANCH: better file/.."), message("Add a\x1b file\nand more"))
    async with started() as (_, client):
        events = await client.run(**asked)
        await client.log(events[0].session_id)
        (session,) = (await client.call("ListSessions", _list())).sessions
    assert session.title == "A better file"
    branch = f"treadle/better-file-{events[0].session_id[-8:]}"
    assert session.branch == branch
    bare = host.root / "acme" / "app.git"
    assert git(bare, "log", "-1", "--format=%s|%an", branch).startswith("Add a file|")
    assert git(bare, "rev-parse", branch) == events[-1].turn_completed.commit
    assert git(bare, "rev-list", "--count", f"main..{branch}") == "1"
    committed = next(event.git_updated for event in events if event.git_updated.action == pb.GIT_ACTION_COMMITTED)
    assert committed.message.splitlines()[0] == "Add a file"
    link = f"Session: https://t.example/{session.session_id}"
    assert git(bare, "log", "-1", "--format=%(trailers)", branch).splitlines() == [link, "Co-authored-by: Ada <ada@example.org>"]
    assert [usage.purpose for usage in usages(events)] == [pb.USAGE_PURPOSE_NAMING] * 2
    assert [row["purpose"] for row in await rows(database)] == ["NAMING"] * 2
    assert KEY.encode() not in upstream.seen[0].raw, "secrets are masked before anything is asked"
    assert b"made.txt" in upstream.seen[1].raw


def _list() -> Any:
    from treadle.session.v1 import session_service_pb2

    return session_service_pb2.ListSessionsRequest()


async def test_without_a_name_in_time_the_rules_name_it(
    started: Any, host: GitServer, upstream: FakeUpstream, changes: dict[str, Any]
) -> None:
    changes |= {"naming": True}
    asked = request(host, {"write": "made.txt", "content": "x"})
    upstream.default = status(500)
    async with started() as (_, client):
        events = await client.run(**asked)
    assert events[-1].turn_completed.pushed
    assert errors(events) == []
    branch = f"treadle/add-a-file-{events[0].session_id[-8:]}"
    assert git(host.root / "acme" / "app.git", "log", "-1", "--format=%s", branch) == "Add a file"


async def test_a_turn_that_will_hardly_get_a_worker_asks_for_no_names(
    started: Any, host: GitServer, upstream: FakeUpstream, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the spawner is away."""
    changes |= {"naming": True}
    monkeypatch.setattr(LocalLauncher, "available", False)
    asked = request(host, {"say": "hello"})
    async with started() as (_, client):
        events = await client.run(**asked)
    assert branch_of(events) == f"treadle/add-a-file-{events[0].session_id[-8:]}"
    assert upstream.seen == []


async def test_a_recording_calls_no_model(
    database: DatabaseUrls, server_data_dir: Path, host: GitServer, changes: dict[str, Any], upstream: FakeUpstream
) -> None:
    """With nothing patched: no door, no names."""
    changes |= {"naming": True}
    asked = request(host, {"run": "ls -a /run/models"}, {"write": "made.txt", "content": "x"})
    async with in_process(settings_for(database, server_data_dir, host, **changes)) as (_, client):
        events = await client.run(**asked)
    assert events[-1].turn_completed.pushed
    assert said(events).split() == [".", ".."]
    assert upstream.seen == []


async def test_without_a_credential_nothing_is_created(started: Any, host: GitServer, changes: dict[str, Any]) -> None:
    changes |= {"anthropic_api_key": SecretStr("")}
    asked = request(host)
    async with started() as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run(**asked)
        code, reason, metadata, fields = error_info(refused.value)
        assert (code, reason, fields) == (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_NOT_CONFIGURED", ["provider"])
        assert "ANTHROPIC_API_KEY" in metadata["variables"]
        assert (await client.call("ListSessions", _list())).sessions == []


@pytest.mark.parametrize("model", ["nonsense", "gpt-5"])
async def test_for_a_model_that_is_not_allowed_nothing_is_created(
    started: Any, host: GitServer, upstream: FakeUpstream, model: str
) -> None:
    pytest.importorskip("claude_agent_sdk")
    asked = request(host) | {"provider": "claude", "model": model}
    async with started() as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run(**asked)
        code, reason, metadata, fields = error_info(refused.value)
        assert (code, reason, fields) == (grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_ALLOWED", ["model"])
        assert metadata["model"] == model
        assert (await client.call("ListSessions", _list())).sessions == []
    assert upstream.seen == []


async def test_a_killed_servers_successor_answers_at_the_same_door_and_counts_everything_once(
    database: DatabaseUrls,
    server_data_dir: Path,
    host: GitServer,
    changes: dict[str, Any],
    upstream: FakeUpstream,
    tmp_path: Path,
    nursery: Nursery,
) -> None:
    require_sandbox()
    begun = asyncio.Event()
    upstream.plays(message(), message("first", "last", wait=asyncio.Event(), begun=begun))
    changes |= {"budget_turn_tokens": 10 * EACH}
    asked = request(host, asking("a", "b", "c"), {"write": "made.txt", "content": "x"}, a={}, b={}, c={})
    settings = settings_for(database, server_data_dir, host, **changes)
    server = Killable(settings, tmp_path / "log", nursery=nursery, RECORDINGS_REACH_MODELS="1")
    tokens = asyncio.create_task(hand_out_tokens(server_data_dir / "workers"))
    try:
        await server.start()
        async with connected(server.address, server.key) as client:
            stream = client.execute(**asked)
            session_id = next(iter([event.session_id async for event in first_events(stream)]))
            await asyncio.wait_for(begun.wait(), 30)
            await server.stop(kill=True)
        await server.start()
        async with connected(server.address, server.key) as client:
            await events_of(client.resume(session_id))
            events = await client.log(session_id)
    finally:
        await server.stop()
        tokens.cancel()
    assert events[-1].turn_completed.status == pb.TURN_STATUS_COMPLETED
    lines = said(events).splitlines()
    assert [line for line in lines if line.endswith("200 True")] == ["a.json 200 True", "b.json 200 True", "c.json 200 True"]
    assert any(line.startswith("b.json again") for line in lines), "the answer that was under way broke off, and the agent asked again"
    assert pb.WORKER_PHASE_ADOPTED in [event.worker_updated.phase for event in events if event.HasField("worker_updated")]
    assert [row["total_tokens"] for row in await rows(database)] == [EACH] * 3, "what was under way is lost, nothing is counted twice"
    assert [usage.budget_left_tokens for usage in usages(events)] == [9 * EACH, 8 * EACH, 7 * EACH]
    assert len(upstream.seen) == 4
    assert kinds(events).count("turn_completed") == 1
