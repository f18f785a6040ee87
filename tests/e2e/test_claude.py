"""The whole job with the real Claude program: its model is faked at HTTP, behind the server's own gateway; nothing else is."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from support.fake_anthropic import Cut, FakeAnthropic, fake_anthropic, say, think, use
from support.git_server import GitServer, git
from support.sandbox import require_sandbox
from support.treadle import Client, branch_of, error_info, events_of, in_process, kinds, pushed_files, settings_for
from support.tree import contents
from support.workers import alive, eventually, processes_with

from server.embedded.postgres_home import DatabaseUrls
from server.models import anthropic_rules
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

pytestmark = pytest.mark.timeout(300)
pytest.importorskip("claude_agent_sdk")

KEY = "sk-ant-canary-7f3a9Q9vL2xYw8end"
FILES = {"README.md": "# Sample\n", "src/app.py": "print('hello')\n"}


@pytest.fixture
async def fake() -> AsyncIterator[FakeAnthropic]:
    """The model, at the only place where anything is faked."""
    require_sandbox()
    async with fake_anthropic() as opened:
        yield opened


@pytest.fixture
async def treadle(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, changes: dict[str, Any], fake: FakeAnthropic
) -> AsyncIterator[tuple[Any, Client]]:
    models = {"anthropic_url": fake.url, "anthropic_api_key": KEY, "naming": False, "model_retry_seconds": 1.0}
    async with in_process(settings_for(database, server_data_dir, git_server, **(models | changes))) as both:
        yield both


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", FILES)


def ask(git_server: GitServer, prompt: str, **fields: str) -> dict[str, str]:
    return {"repository_url": f"{git_server.url}/acme/app.git", "prompt": prompt, **fields}


def bash(command: str) -> str:
    return f"[[script:bash cmd={command.replace(' ', '+')}]]"


def ended(events: list[event_pb2.Event]) -> event_pb2.TurnCompleted:
    assert kinds(events)[-1] == "turn_completed"
    return events[-1].turn_completed


def texts(events: list[event_pb2.Event]) -> list[str]:
    return [event.message.parts[0].text for event in events if event.HasField("message") and event.message.parts]


async def until(stream: Any, marker: str) -> list[event_pb2.Event]:
    """Read until a command that holds the marker runs."""
    seen: list[event_pb2.Event] = []
    async for frame in stream:
        seen.extend(frame.events.events)
        if any(event.HasField("tool_call") and marker in event.tool_call.command for event in seen):
            await eventually(lambda: processes_with(f"sleep\0{marker}"), limit=30)
            return seen
    raise AssertionError(f"the stream ended early: {kinds(seen)}")


def program_above(marker: str) -> int:
    """The Claude program that runs `sleep <marker>`."""
    pid = processes_with(f"sleep\0{marker}")[0]
    while b"_bundled/claude" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert pid > 1
    return pid


async def test_the_whole_job_and_no_key_anywhere(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer, server_data_dir: Path, database: DatabaseUrls
) -> None:
    mark = fake.plays(
        "job",
        [think("What is asked?"), say("I will add notes."), use("Write", file_path="/workspace/docs/notes.md", content="notes\n")],
        [use("Read", file_path="/workspace/src/app.py")],
        [use("Edit", file_path="/workspace/src/app.py", old_string="hello", new_string="hello, world")],
        # It tells all that it can find: its own credential is worth nothing elsewhere.
        [use("Bash", command="env; cat /proc/*/environ | tr '\\\\0' '\\\\n'; cat ~/.claude* 2>/dev/null; id -u; echo done > made.txt")],
        [say("All done.")],
    )
    seen_in: list[str] = []
    looking = asyncio.create_task(_look_for_key_in_processes(seen_in))
    events = await client.run(**ask(git_server, mark))
    looking.cancel()
    end = ended(events)
    assert (end.status, end.pushed, end.native_stop_reason) == (event_pb2.TURN_STATUS_COMPLETED, True, "end_turn"), end
    started = events[0].turn_started
    assert (started.provider, started.model) == ("claude", "")
    assert pushed_files(bare, branch_of(events)) == {
        "README.md": "# Sample",
        "docs/notes.md": "notes",
        "src/app.py": "print('hello, world')",
        "made.txt": "done",
    }
    assert git(bare, "rev-parse", branch_of(events)) == end.commit
    told = kinds(events)
    assert {"reasoning", "message", "content_delta", "tool_call", "tool_result", "file_changed"} <= {*told}
    assert "provider_raw" not in told
    edits = [event.file_changed for event in events if event.HasField("file_changed") and not event.file_changed.turn_total]
    changes = [change for edit in edits for change in edit.changes]
    assert [(change.path, change.additions, change.deletions) for change in changes] == [("docs/notes.md", 1, 0), ("src/app.py", 1, 1)]
    output = "".join(p.text for event in events if event.HasField("tool_result") for p in event.tool_result.parts)
    assert "ANTHROPIC_API_KEY=" in output, "the agent sees the turn's token"
    assert "10001" in output
    # The gateway has swapped it for the real key, which is nowhere else.
    assert {asked.key for asked in fake.asked} == {KEY}
    assert seen_in == []
    assert await client.log(events[0].session_id) == events
    assert KEY.encode() not in b"".join(event.SerializeToString() for event in events)
    # The worker's files go a moment after the turn's end.
    await eventually(lambda: not [*server_data_dir.glob("workers/*"), *server_data_dir.glob("workers/.gone-*")], limit=30)
    for path, content in (*contents(server_data_dir), *contents(bare)):
        assert KEY.encode() not in content, path
    assert KEY not in git(bare, "log", "--all", "-p")
    assert not await _key_in_database(database)


async def _look_for_key_in_processes(seen_in: list[str]) -> None:
    """Where the key is seen in the process table while the turn runs; ends by being cancelled."""
    while True:
        for entry in Path("/proc").iterdir():
            for name in ("cmdline", "environ"):
                try:
                    found = entry.name.isdigit() and int(entry.name) != os.getpid() and KEY.encode() in (entry / name).read_bytes()
                except OSError:
                    continue
                if found:
                    seen_in.append(f"{entry}/{name}")
        await asyncio.sleep(0.1)


async def _key_in_database(database: DatabaseUrls) -> list[str]:
    connection = await asyncpg.connect(database.owner)
    try:
        tables = [row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        found = []
        for table in tables:
            rows = await connection.fetch(f"SELECT * FROM {table}")
            values = [value for row in rows for value in row.values()]
            found += [table for value in values if KEY.encode() in (value if isinstance(value, bytes) else str(value).encode())]
        return found
    finally:
        await connection.close()


async def test_two_turns_in_two_workers_are_one_conversation_and_cost_what_they_cost(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer, database: DatabaseUrls
) -> None:
    first = await client.run(**ask(git_server, bash("echo one > one.txt")))
    session_id = first[0].session_id
    second = await client.run(session_id=session_id, prompt="[[script:echo]]")
    assert (ended(first).status, ended(second).status) == (event_pb2.TURN_STATUS_COMPLETED, event_pb2.TURN_STATUS_COMPLETED)
    assert texts(second) == ["history: bash,echo"]
    workers = {event.worker_updated.worker_id for event in [*first, *second] if event.HasField("worker_updated")}
    assert len(workers) == 2
    # A turn of another agent knows nothing of it, and does not touch it.
    other = await client.run(session_id=session_id, prompt="[[script:echo]]", provider="anthropic")
    assert texts(other) == ["history: echo"]
    third = await client.run(session_id=session_id, prompt="[[script:echo]]", provider="claude")
    assert texts(third) == ["history: bash,echo,echo"]
    # What each turn used is the sum of its own answers: nothing is counted again with the next turn.
    for turn, calls in ((first, 2), (second, 1), (third, 1)):
        used = [event.usage_updated for event in turn if event.HasField("usage_updated")]
        assert len(used) == calls
        assert all(usage.input_tokens > 0 and usage.output_tokens > 0 for usage in used)
        assert {event.actor.kind for event in turn if event.HasField("usage_updated")} == {event_pb2.ACTOR_KIND_SERVER}
    connection = await asyncpg.connect(database.owner)
    try:
        rows = await connection.fetch("SELECT provider, turn_number FROM transcripts ORDER BY provider")
        assert [tuple(row) for row in rows] == [("anthropic", 3), ("claude", 4)]
    finally:
        await connection.close()
    await client.log(session_id)


async def test_a_secret_that_the_agent_says_is_in_no_transcript(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer, database: DatabaseUrls
) -> None:
    fake.plays("leak", [say(f"The key is {KEY}.")])
    first = await client.run(**ask(git_server, f"[[script:leak]] use {KEY}"))
    assert KEY not in "".join(texts(first))
    second = await client.run(session_id=first[0].session_id, prompt="[[script:echo]]")
    assert texts(second) == ["history: leak,echo"]
    # What the agent said is masked in its memory too; the user's own words reached the model as they were.
    said = [str(message) for message in fake.messages[-1].body["messages"] if message["role"] == "assistant"]
    assert not any(KEY in each for each in said)
    connection = await asyncpg.connect(database.owner)
    try:
        assert await connection.fetchval("SELECT count(*) FROM transcripts") == 1
    finally:
        await connection.close()


async def test_interrupt_ends_the_agent_and_its_children_within_a_second(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer
) -> None:
    stream = client.execute(**ask(git_server, bash("echo so far > partial.txt; sleep 1001.25")))
    seen = await until(stream, "1001.25")
    program = program_above("1001.25")
    asked = time.monotonic()
    await client.call("Interrupt", pb.InterruptRequest(session_id=seen[0].session_id))
    await eventually(lambda: not processes_with("1001.25") and not alive(program), limit=1)
    assert time.monotonic() - asked < 1
    seen += await events_of(stream)
    end = ended(seen)
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_INTERRUPTED, True)
    assert pushed_files(bare, branch_of(seen))["partial.txt"] == "so far"
    results = {event.tool_result.call_id for event in seen if event.HasField("tool_result")}
    assert results == {event.tool_call.call_id for event in seen if event.HasField("tool_call")}
    # The session goes on, and knows what was interrupted.
    again = await client.run(session_id=seen[0].session_id, prompt="[[script:echo]]")
    assert texts(again) == ["history: bash,echo"]


async def test_kill_9_of_the_program_is_the_turns_failure_and_no_memory_is_lost(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer
) -> None:
    stream = client.execute(**ask(git_server, bash("echo so far > partial.txt; sleep 1001.375")))
    seen = await until(stream, "1001.375")
    os.kill(program_above("1001.375"), signal.SIGKILL)
    killed = time.monotonic()
    seen += await events_of(stream)
    assert time.monotonic() - killed < 15
    end = ended(seen)
    assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_PROVIDER, True), end
    assert "killed by signal 9" in end.message
    assert pushed_files(bare, branch_of(seen))["partial.txt"] == "so far"
    await eventually(lambda: not processes_with("1001.375"), limit=2)
    again = await client.run(session_id=seen[0].session_id, prompt="[[script:echo]]")
    assert texts(again) == ["history: bash,echo"]


@pytest.mark.parametrize("status", [401, 429, 529])
async def test_a_refusing_api_ends_the_turn_with_its_reason(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer, status: int
) -> None:
    begun = time.monotonic()
    events = await client.run(**ask(git_server, f"[[script:e{status}]]"))
    end = ended(events)
    assert (end.status, end.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_PROVIDER)
    host = fake.url.removeprefix("http://")
    says = f"{status} from {host}: the fake says "
    # The provider's words, and neither the status that only stops the program nor what the program makes of it.
    assert end.message.startswith(says), end.message
    assert ("check ANTHROPIC_API_KEY" in end.message) == (status == 401)
    assert KEY not in end.message
    told = [event.error for event in events if event.HasField("error") and not event.error.fatal]
    assert all(error.message.startswith(says) and error.code.startswith("MODEL_") for error in told), told
    assert told[-1].message == end.message
    assert time.monotonic() - begun < 60
    # The gateway repeats what may be repeated; the program does not do it once more.
    assert len(fake.messages) <= 4


def refusals(events: list[event_pb2.Event]) -> list[str]:
    return [event.error.message for event in events if event.error.code == "MODEL_REQUEST_REFUSED"]


async def test_a_session_whose_model_is_not_allowed_any_more_is_told_so(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, fake: FakeAnthropic, bare: Path
) -> None:
    models = {"anthropic_url": fake.url, "anthropic_api_key": KEY, "naming": False}
    async with in_process(settings_for(database, server_data_dir, git_server, **models)) as (_, client):
        events = await client.run(**ask(git_server, "hello", model="claude-haiku-4-5"))
        assert ended(events).status == event_pb2.TURN_STATUS_COMPLETED
    session, asked = events[0].session_id, len(fake.asked)
    async with in_process(settings_for(database, server_data_dir, git_server, models="claude-opus-*", **models)) as (_, client):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.call("SendInput", pb.SendInputRequest(session_id=session, text="more"))
        assert error_info(refused.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_ALLOWED")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run(session_id=session, prompt="more")
        assert error_info(refused.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NOT_ALLOWED")
        assert (await client.call("ListInputs", pb.ListInputsRequest(session_id=session, all=True))).inputs == []
        assert len(await client.log(session)) == len(events)
        # Another model may go on with it.
        again = await client.run(session_id=session, prompt="[[script:echo]]", model="claude-opus-4-5")
        assert ended(again).status == event_pb2.TURN_STATUS_COMPLETED
    assert asked < len(fake.asked)


async def test_a_field_that_is_not_allowed_ends_the_turn_with_that_reason(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program of tomorrow, with a field that the rules of today do not know."""
    monkeypatch.setattr(anthropic_rules, "_FIELDS", anthropic_rules._FIELDS - {"metadata"})
    events = await client.run(**ask(git_server, "hello"))
    end = ended(events)
    assert (end.status, end.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_PROVIDER)
    assert "metadata: this field is not known here, and so not allowed" in end.message
    assert refusals(events) == ["metadata: this field is not known here, and so not allowed"]
    assert fake.asked == []


@pytest.mark.parametrize("changes", [{"budget_turn_tokens": 1}])
async def test_a_turns_used_up_budget_ends_it_with_that_reason(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer
) -> None:
    events = await client.run(**ask(git_server, bash("echo never > never.txt")))
    end = ended(events)
    assert (end.status, end.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_BUDGET)
    assert "the model budget of the turn is used up" in end.message
    assert len(fake.messages) == 1
    assert "never.txt" not in pushed_files(bare, branch_of(events))


@pytest.mark.parametrize("changes", [{"budget_turn_tokens": 3000}])
async def test_a_call_that_the_budget_cuts_off_is_cancelled_and_nobody_is_said_to_have_stopped_it(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer
) -> None:
    # So slowly that the program has begun with the call when the budget is used up, a third of the way.
    mark = fake.plays("spend", [use("Bash", command="sleep 30"), say("and much more of this " * 2000)]).replace("]]", " delay=0.002]]")
    events = await client.run(**ask(git_server, mark))
    assert ended(events).code == event_pb2.TURN_CODE_BUDGET
    results = [event.tool_result for event in events if event.HasField("tool_result")]
    assert [result.status for result in results] == [event_pb2.TOOL_OUTCOME_CANCELLED]
    # The program tells its model that the user does not want to go on; the user has said nothing.
    assert not [event for event in events if "user doesn" in str(event) or "by user" in str(event)]


@pytest.mark.parametrize("changes", [{"budget_day_tokens": 1}])
async def test_a_days_used_up_budget_ends_the_next_turn_before_its_model_is_asked(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer
) -> None:
    await client.run(**ask(git_server, "hello"))
    assert len(fake.messages) == 1
    events = await client.run(**ask(git_server, "hello"))
    end = ended(events)
    assert (end.status, end.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_BUDGET)
    assert "the user's day" in end.message
    assert len(fake.messages) == 1


@pytest.mark.parametrize("changes", [{"budget_turn_usd": 1.0}])
async def test_a_model_without_a_price_ends_a_turn_with_a_budget_of_money(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer
) -> None:
    events = await client.run(**ask(git_server, "hello", model="claude-of-tomorrow"))
    assert "no price is known for claude-of-tomorrow" in ended(events).message
    assert len(refusals(events)) == 1
    assert fake.asked == []


async def test_an_overload_in_mid_stream_is_overcome(client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer) -> None:
    mark = fake.plays("cut", Cut([say("half an answer")], times=1, then=[say("the whole answer")]))
    events = await client.run(**ask(git_server, mark))
    assert ended(events).status == event_pb2.TURN_STATUS_COMPLETED
    assert texts(events)[-1] == "the whole answer"
    # The program hangs up at the error, while the server writes down that there was one: nothing of that is cut off.
    phases = [event.worker_updated.phase for event in events if event.HasField("worker_updated")]
    assert phases == [event_pb2.WORKER_PHASE_STARTING, event_pb2.WORKER_PHASE_READY, event_pb2.WORKER_PHASE_EXITED]
    assert any(event.error.code == "MODEL_ANSWER_CUT" for event in events)
    await client.log(events[0].session_id)


@pytest.mark.parametrize("changes", [{"agent_steps": 3}])
async def test_an_agent_that_does_not_end_is_ended(client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer) -> None:
    events = await client.run(**ask(git_server, "[[script:loop]]"))
    end = ended(events)
    assert (end.status, end.code, end.native_stop_reason) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_PROVIDER, "max_turns")
    assert len(fake.messages) == 3


async def test_the_program_runs_unprivileged_and_asks_nobody(
    client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer
) -> None:
    """As uid 10001 bypassPermissions needs no IS_SANDBOX, which would say more than is true."""
    events = await client.run(**ask(git_server, bash("id -u > who; env | grep -c IS_SANDBOX >> who; echo ok")))
    assert ended(events).status == event_pb2.TURN_STATUS_COMPLETED, ended(events)
    assert pushed_files(bare, branch_of(events))["who"] == "10001\n0"


async def test_a_model_of_the_users_choice_is_asked(client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer) -> None:
    await client.run(**ask(git_server, "hello", model="claude-haiku-4-5"))
    assert {asked.body["model"] for asked in fake.messages} == {"claude-haiku-4-5"}


@pytest.mark.timeout(600)
async def test_eight_turns_at_once(client: Client, fake: FakeAnthropic, bare: Path, git_server: GitServer, server_data_dir: Path) -> None:
    begun = time.monotonic()
    runs = await asyncio.gather(*[client.run(**ask(git_server, bash(f"echo {number} > made-{number}.txt"))) for number in range(8)])
    for number, events in enumerate(runs):
        assert ended(events).status == event_pb2.TURN_STATUS_COMPLETED, ended(events)
        assert pushed_files(bare, branch_of(events))[f"made-{number}.txt"] == str(number)
        await client.log(events[0].session_id)
    assert len({branch_of(events) for events in runs}) == 8
    print(f"8 Claude turns at once: {time.monotonic() - begun:.1f} s")
    # Each wall's command line names its slot.
    await eventually(lambda: not processes_with(str(server_data_dir / "workers")), limit=10)


@asynccontextmanager
async def restarted(database: DatabaseUrls, data_dir: Path, git_server: GitServer, fake: FakeAnthropic) -> AsyncIterator[Client]:
    models = {"anthropic_url": fake.url, "anthropic_api_key": KEY, "naming": False}
    async with in_process(settings_for(database, data_dir, git_server, **models)) as (_, client):
        yield client


async def test_a_restarted_server_finds_the_program_at_work(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, fake: FakeAnthropic, bare: Path
) -> None:
    prompt = bash("until test -e /workspace/go; do sleep 0.1; done; echo went on > made.txt")
    async with restarted(database, server_data_dir, git_server, fake) as client:
        stream = client.execute(**ask(git_server, prompt))
        seen: list[event_pb2.Event] = []
        async for frame in stream:
            seen.extend(frame.events.events)
            if any(event.HasField("tool_call") and event.tool_call.command for event in seen):
                break
        session_id = seen[0].session_id
    # While there is no server the command ends, and the program asks its model what to do next: it is not told that nobody is there.
    (workspace,) = server_data_dir.glob("workers/*/workspace")
    (workspace / "go").write_text("")
    await eventually(lambda: not processes_with("/workspace/go"), limit=10)
    async with restarted(database, server_data_dir, git_server, fake) as client:
        events = await events_of(client.resume(session_id))
        assert ended(events).status == event_pb2.TURN_STATUS_COMPLETED, ended(events)
        assert "PROVIDER_RETRY" not in [event.error.code for event in events]
        assert pushed_files(bare, branch_of(events))["made.txt"] == "went on"
        again = await client.run(session_id=session_id, prompt="[[script:echo]]")
        assert texts(again) == ["history: bash,echo"]
