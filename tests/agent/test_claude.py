"""The provider `claude`: the real Claude program, against a fake model that speaks the real protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fake_anthropic import Cut, say, think, use
from support.models import TOKEN, Models
from support.provider_contract import Asked, People, ProviderContract, Recorder, allow
from support.workers import eventually, processes_with

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1 import worker_service_pb2 as wire
from worker.provider import Provider, ProviderFailed, Request, UserMessage, make_provider
from worker.spool import Spool

pytestmark = pytest.mark.timeout(180)
PENDING, RUNNING = session.TOOL_STATUS_PENDING, session.TOOL_STATUS_RUNNING
claude_program = pytest.importorskip("worker.providers.claude_program", exc_type=ImportError)
claude_tools = pytest.importorskip("worker.providers.claude_tools", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _one_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude_program, "RETRIES", 1)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Any:
    yield
    assert not programs()


def programs() -> list[int]:
    """Claude programs that this process started."""
    parents = dict(_parents())
    return [pid for pid in processes_with("_bundled/claude") if parents.get(pid) == os.getpid()]


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs have their files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def has_written(text: str, homes: Path) -> bool:
    """Whether it stands in a transcript: the program writes some tenths of a second behind what it does."""
    return any(text in path.read_text() for path in homes.glob("claude-*/projects/*/*.jsonl"))


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def bash(command: str) -> str:
    return f"[[script:bash cmd={command.replace(' ', '+')}]]"


class TestClaude(ProviderContract):
    name = "claude"
    nap = "1000.127"

    @pytest.fixture
    def working(self, models: Models) -> Request:
        made = str(models.workspace / "made.txt")
        mark = models.fake.plays(
            "work",
            [think("What is asked?"), say("I do it."), use("Write", file_path=made, content="made\n")],
            [use("Bash", command="cat made.txt")],
            [say("Done.")],
        )
        return models.request(mark)

    @pytest.fixture
    def endless(self, models: Models) -> Request:
        return models.request(bash("sleep 1000.127"))

    @pytest.fixture
    def failing(self, models: Models) -> Request:
        return models.request("[[script:e401]]")

    @pytest.fixture(autouse=True)
    def _models(self, models: Models) -> None:
        self.models = models

    def approving(self, workspace: Path, people: People) -> Request:
        made = str(workspace / "made.txt")
        mark = self.models.fake.plays("approve", [use("Write", file_path=made, content="made\n")], [say("Done.")])
        request = self.models.request(mark, people=people, approvals=session.APPROVALS_ASK)
        return replace(request, workspace=workspace)

    def listening(self, workspace: Path, people: People) -> Request:
        return self.models.request(bash("sleep 2"), people=people)


async def run(request: Request, provider: Provider | None = None) -> tuple[Recorder, str, Provider]:
    provider, recorder = provider or make_provider("claude"), Recorder()
    async with asyncio.timeout(90):
        return recorder, await provider.run(request, recorder, asyncio.Event()), provider


def bodies(recorder: Recorder, kind: str) -> list[Any]:
    return [getattr(event, kind) for event in recorder.events if event.WhichOneof("body") == kind]


def by_item(recorder: Recorder) -> dict[str, session.Message]:
    """The messages as they are in the end."""
    return {event.item_id: event.message for event in recorder.events if event.WhichOneof("body") == "message"}


def texts(recorder: Recorder) -> list[str]:
    return [message.parts[0].text if message.parts else "" for message in bodies(recorder, "message")]


async def test_text_thinking_and_tool_input_are_told_as_they_come(models: Models) -> None:
    mark = models.fake.plays(
        "talk",
        [think("deep thoughts about it"), say("a long answer indeed"), use("Bash", command="echo hi", description="d")],
        [say("end")],
    )
    recorder, reason, _ = await run(models.request(mark))
    assert reason == "end_turn"
    deltas: dict[tuple[str, int], str] = {}
    for event in recorder.events:
        if event.WhichOneof("body") == "content_delta":
            key = (event.item_id, event.content_delta.channel)
            deltas[key] = deltas.get(key, "") + event.content_delta.data
    messages = {event.item_id: event.message.parts[0].text for event in recorder.events if event.WhichOneof("body") == "message"}
    (thought,) = [event for event in recorder.events if event.WhichOneof("body") == "reasoning"]
    assert [*messages.values()] == ["a long answer indeed", "end"]
    for item, text in messages.items():
        assert deltas[item, session.CHANNEL_TEXT] == text
    assert deltas[thought.item_id, session.CHANNEL_REASONING] == thought.reasoning.text == "deep thoughts about it"
    pending, running = bodies(recorder, "tool_call")
    assert (pending.status, running.status) == (session.TOOL_STATUS_PENDING, session.TOOL_STATUS_RUNNING)
    assert json.loads(deltas[running.call_id, session.CHANNEL_TOOL_INPUT]) == json.loads(running.input_json)
    assert (running.command, running.tool_kind) == ("echo hi", session.TOOL_KIND_EXECUTE)
    (result,) = bodies(recorder, "tool_result")
    assert (result.exit_code, result.parts[0].text) == (0, "hi")
    # Everything that this program says is known.
    assert bodies(recorder, "provider_raw") == []


async def test_edits_come_with_their_diffs(models: Models) -> None:
    (models.workspace / "a.txt").write_text("one\ntwo\n")
    there, deep = str(models.workspace / "a.txt"), str(models.workspace / "deep" / "b.txt")
    mark = models.fake.plays(
        "edit",
        [use("Read", file_path=there)],
        [use("Edit", file_path=there, old_string="two", new_string="2"), use("Write", file_path=deep, content="new\n")],
        [use("Edit", file_path=there, old_string="absent", new_string="2")],
        [say("Done.")],
    )
    recorder, _, _ = await run(models.request(mark))
    first, second = [changed.changes[0] for changed in bodies(recorder, "file_changed")]
    assert (first.path, first.operation, first.additions, first.deletions) == ("a.txt", session.FILE_OPERATION_MODIFIED, 1, 1)
    assert first.patch == "--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"
    assert (second.path, second.operation, second.additions) == ("deep/b.txt", session.FILE_OPERATION_ADDED, 1)
    calls = [call for call in bodies(recorder, "tool_call") if call.status == session.TOOL_STATUS_RUNNING]
    assert [[*call.locations] for call in calls] == [["a.txt"], ["a.txt"], ["deep/b.txt"], ["a.txt"]]
    outcomes = [result.status for result in bodies(recorder, "tool_result")]
    assert outcomes == [session.TOOL_OUTCOME_COMPLETED] * 3 + [session.TOOL_OUTCOME_FAILED]
    failure = bodies(recorder, "tool_result")[-1].parts[0].text
    assert failure.startswith("String to replace not found"), "without the marks that are for the model"


async def test_exit_codes_are_told(models: Models) -> None:
    recorder, _, _ = await run(models.request(bash("echo no; exit 3")))
    (result,) = bodies(recorder, "tool_result")
    assert (result.status, result.exit_code) == (session.TOOL_OUTCOME_FAILED, 3)
    assert "no" in result.parts[0].text


async def test_plans_are_told(models: Models) -> None:
    todos = [
        {"content": "first", "status": "completed", "activeForm": "doing first"},
        {"content": "second", "status": "in_progress", "activeForm": "doing second"},
    ]
    recorder, _, _ = await run(models.request(models.fake.plays("plan", [use("TodoWrite", todos=todos)], [say("ok")])))
    (plan,) = bodies(recorder, "plan_updated")
    assert [(entry.id, entry.text, entry.status) for entry in plan.entries] == [("1", "first", "completed"), ("2", "second", "in_progress")]


async def test_what_subagents_do_is_told_under_the_call_that_started_them(models: Models) -> None:
    models.fake.plays("sub", [use("Bash", command="echo from below", description="d")], [say("I am the sub-agent.")])
    mark = models.fake.plays(
        "delegate",
        [use("Agent", description="look around", prompt="[[script:sub]]", subagent_type="general-purpose")],
        [say("It is done.")],
    )
    recorder, reason, _ = await run(models.request(mark))
    assert reason == "end_turn"
    (agent,) = [call for call in bodies(recorder, "tool_call") if call.name == "Agent" and call.status == session.TOOL_STATUS_RUNNING]
    below = [event for event in recorder.events if event.parent_item_id == agent.call_id]
    assert {event.WhichOneof("body") for event in below} >= {"message", "tool_call", "tool_result", "subagent_updated"}
    assert [event.message.parts[0].text for event in below if event.WhichOneof("body") == "message"] == ["I am the sub-agent."]
    states = [update.state for update in bodies(recorder, "subagent_updated")]
    assert states[0] == session.SUBAGENT_STATE_RUNNING
    assert states[-1] == session.SUBAGENT_STATE_COMPLETED
    assert bodies(recorder, "subagent_updated")[-1].name == "look around"
    assert texts(recorder)[-1] == "It is done."


async def test_requests_carry_the_turns_token_and_the_chosen_model(models: Models) -> None:
    await run(models.request("hello", model="claude-other-1"))
    await run(models.request("hello"))
    assert {asked.key for asked in models.fake.asked} == {TOKEN}
    assert [asked.body["model"] for asked in models.fake.messages] == ["claude-other-1", "claude-opus-5-5"]
    assert {(asked.method, asked.path) for asked in models.fake.asked} == {("POST", "/v1/messages?beta=true")}


async def test_the_program_tries_no_other_way_out(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it asked for beside the socket would come to this proxy."""
    tried: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.append(await reader.readline())
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    original = claude_program._environment
    monkeypatch.setattr(claude_program, "_environment", lambda *given: original(*given) | {"HTTPS_PROXY": address, "HTTP_PROXY": address})
    async with proxy:
        await run(models.request("hello"))
    assert len(models.fake.messages) == 1
    assert tried == []


async def test_the_tools_are_those_that_make_sense_in_a_worker(models: Models) -> None:
    recorder, _, _ = await run(models.request("[[script:tools]]"))
    offered = set(texts(recorder)[0].removeprefix("tools: ").split(","))
    assert offered >= {*claude_program.TOOLS}
    assert not offered & {"WebFetch", "WebSearch", "CronCreate", "EnterWorktree", "Monitor"}
    (asked,) = models.fake.messages
    assert not any("server_tool" in json.dumps(tool) or tool.get("type", "").startswith("web_") for tool in asked.body["tools"])


async def test_the_repositorys_guide_is_read_and_its_settings_are_not(models: Models) -> None:
    (models.workspace / "CLAUDE.md").write_text("Always say moo.")
    settings = models.workspace / ".claude" / "settings.json"
    settings.parent.mkdir()
    trap = {"hooks": [{"type": "command", "command": f"touch {models.workspace}/hooked"}]}
    settings.write_text(json.dumps({"hooks": {"UserPromptSubmit": [trap], "SessionStart": [trap]}, "model": "claude-trap"}))
    (models.workspace / ".mcp.json").write_text(
        json.dumps({"mcpServers": {"x": {"command": "touch", "args": [f"{models.workspace}/mcp"]}}})
    )
    await run(models.request("hello"))
    (asked,) = models.fake.messages
    assert "Always say moo." in json.dumps(asked.body["system"])
    assert asked.body["model"] == "claude-opus-5-5"
    assert not (models.workspace / "hooked").exists()
    assert not (models.workspace / "mcp").exists()


async def test_a_prompt_that_looks_like_a_command_is_none(models: Models) -> None:
    recorder, reason, _ = await run(models.request("/clear is what the user typed [[script:echo]]"))
    assert (reason, texts(recorder)) == ("end_turn", ["history: echo"])


# -- turn after turn --------------------------------------------------------------------------------------------------------


async def test_the_next_turn_in_another_worker_remembers(models: Models) -> None:
    _, _, first = await run(models.request(models.fake.plays("first", [use("Bash", command="true")], [say("done")])))
    again = models.workspace.parent / "elsewhere"
    again.mkdir()
    recorder, _, second = await run(models.request("[[script:echo]]", transcript=first.transcript, turn_number=2, workspace=again))
    assert texts(recorder) == ["history: first,echo"]
    recorder, _, _ = await run(models.request("[[script:echo]]", transcript=second.transcript, turn_number=3))
    assert texts(recorder) == ["history: first,echo,echo"]
    assert len({json.loads(each.transcript.partition(b"\n")[0])["session_id"] for each in (first, second)}) == 1


async def test_an_interrupted_turn_is_remembered_too(models: Models, homes: Path) -> None:
    provider, interrupted = make_provider("claude"), asyncio.Event()
    running = asyncio.create_task(provider.run(models.request(bash("true; sleep 1000.375")), Recorder(), interrupted))
    await eventually(lambda: processes_with("1000.375") and has_written("1000.375", homes), limit=30)
    interrupted.set()
    assert await running == "interrupted"
    recorder, _, _ = await run(models.request("[[script:echo]]", transcript=provider.transcript))
    assert texts(recorder) == ["history: bash,echo"]


async def test_a_turn_that_is_cancelled_while_it_stops_is_remembered_and_closed_too(
    models: Models, monkeypatch: pytest.MonkeyPatch, homes: Path
) -> None:
    """On a busy machine stopping takes longer than the half second after which the engine cancels."""
    killed, original = asyncio.Event(), claude_program.Program.kill

    def kill(self: Any) -> None:
        original(self)
        killed.set()

    monkeypatch.setattr(claude_program.Program, "kill", kill)
    monkeypatch.setattr("worker.providers.claude._POLITE_SECONDS", 0)
    provider, recorder, interrupted = make_provider("claude"), Recorder(), asyncio.Event()
    running = asyncio.create_task(provider.run(models.request(bash("true; sleep 1000.4063")), recorder, interrupted))
    await eventually(lambda: processes_with("1000.4063") and has_written("1000.4063", homes), limit=30)
    interrupted.set()
    await killed.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    calls = {call.call_id for call in bodies(recorder, "tool_call")}
    assert calls == {result.call_id for result in bodies(recorder, "tool_result")}
    recorder, _, _ = await run(models.request("[[script:echo]]", transcript=provider.transcript))
    assert texts(recorder) == ["history: bash,echo"]


async def test_a_turn_whose_program_was_killed_is_remembered_too(models: Models, homes: Path) -> None:
    provider, recorder = make_provider("claude"), Recorder()
    running = asyncio.create_task(provider.run(models.request(bash("true; sleep 1000.4375")), recorder, asyncio.Event()))
    await eventually(lambda: processes_with("1000.4375") and has_written("1000.4375", homes), limit=30)
    (program,) = programs()
    os.kill(program, signal.SIGKILL)
    with pytest.raises(ProviderFailed, match="killed by signal 9") as failed:
        await asyncio.wait_for(running, 10)
    assert failed.value.stop_reason == "process_ended"
    recorder, _, _ = await run(models.request("[[script:echo]]", transcript=provider.transcript))
    assert texts(recorder) == ["history: bash,echo"]
    for pid in processes_with("1000.4375"):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("transcript", [b"nonsense", b"[]\n{}\n", b'{"session_id": "../../x"}\n{}\n', b"\xff\xfe"])
async def test_a_transcript_that_makes_no_sense_is_told_and_no_failure(models: Models, transcript: bytes) -> None:
    recorder, reason, _ = await run(models.request("hello", transcript=transcript))
    assert reason == "end_turn"
    assert [error.code for error in bodies(recorder, "error")] == ["TRANSCRIPT_UNREADABLE"]


async def test_a_transcript_that_is_too_large_is_told(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker import engine
    from worker.providers import claude_transcript

    monkeypatch.setattr(engine, "MAX_TRANSCRIPT_BYTES", 1000)
    monkeypatch.setattr(claude_transcript, "MAX_BYTES", 1000)
    # It would kill the children of the tests, too.
    monkeypatch.setattr(engine, "kill_descendants", lambda: None)
    spool = Spool()
    turn = engine.Engine(spool, models.workspace, models.access)
    turn.start(wire.ExecuteSessionRequest(provider="claude", prompt="hello"))
    async with asyncio.timeout(60):
        while turn.result is None:
            await spool.news(spool.last)
    events = wire.WorkerEventBatch.FromString(spool.frame(0)[0]).events
    assert turn.result.status == session.TURN_STATUS_COMPLETED
    assert turn.transcript == b""
    assert [event.error.code for event in events if event.HasField("error")] == ["TRANSCRIPT_LOST"]


# -- ends -------------------------------------------------------------------------------------------------------------------


async def test_the_limit_of_steps_ends_the_turn(models: Models) -> None:
    with pytest.raises(ProviderFailed, match=r"asked its model 3 times, as often as it may in one turn \(TREADLE_AGENT_STEPS\)") as failed:
        await run(models.request("[[script:loop]]", max_steps=3))
    assert failed.value.stop_reason == "max_turns"
    assert len(models.fake.messages) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 529])
async def test_a_failure_of_the_api_is_a_failure_whatever_the_subtype(models: Models, status: int) -> None:
    """The program calls it "success" with is_error, and would repeat 401 and 429 ten times."""
    begun, recorder, provider = time.monotonic(), Recorder(), make_provider("claude")
    with pytest.raises(ProviderFailed, match=r"(?i)the fake says|overload|rate limit|error") as failed:
        await provider.run(models.request(f"[[script:e{status}]]"), recorder, asyncio.Event())
    assert failed.value.stop_reason == "api_error"
    assert time.monotonic() - begun < 30
    # After a 400 the program leaves out one new feature of the API after the other.
    assert len(models.fake.messages) <= (10 if status == 400 else 2)
    if status != 400:
        assert [error.code for error in bodies(recorder, "error")] == ["PROVIDER_RETRY"] * (len(models.fake.messages) - 1)
    assert texts(recorder) == []


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Cut([say("half")], ""), ["the connection to the model failed; asked again (1)"]),
        ("[[script:e529 times=1]]", ["the model's API answered 529 (overloaded); asked again (1)"]),
        ("[[script:e500 times=1]]", ["the model's API answered 500 (server error); asked again (1)"]),
    ],
)
async def test_why_the_program_asks_again_is_told_in_words(models: Models, step: Cut | str, said: list[str]) -> None:
    recorder, _, _ = await run(models.request(step if isinstance(step, str) else models.fake.plays("cut", step)))
    assert [error.message for error in bodies(recorder, "error")] == said


async def test_what_the_gateway_says_is_told_without_what_clients_put_before_it(models: Models) -> None:
    with pytest.raises(ProviderFailed, match=r"^429 from api\.example\.org: slow down$"):
        await run(models.request("[[script:e402 says=Treadle:+429+from+api.example.org:+slow+down]]"))
    assert len(models.fake.messages) == 1


@pytest.mark.parametrize("error", ["overloaded_error", ""], ids=["overloaded", "cut"])
async def test_an_answer_that_ends_early_is_asked_for_again(models: Models, error: str) -> None:
    cut = Cut([say("half an answer")], error, times=1, then=[say("the whole answer")])
    recorder, reason, _ = await run(models.request(models.fake.plays("cut", cut)))
    assert reason == "end_turn"
    finals = {
        event.item_id: [part.text for part in event.message.parts] for event in recorder.events if event.WhichOneof("body") == "message"
    }
    assert [*finals.values()][-1] == ["the whole answer"]
    assert [*finals.values()][:-1] in ([], [[]])
    # Every item that was begun has its end.
    begun = {event.item_id for event in recorder.events if event.WhichOneof("body") == "content_delta"}
    assert begun <= finals.keys()


async def test_a_gateway_that_comes_back_is_waited_for(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude_program, "RETRIES", 5)
    away = models.access.socket.with_name("away.sock")
    models.access.socket.rename(away)
    recorder, provider = Recorder(), make_provider("claude")
    running = asyncio.create_task(provider.run(models.request("hello"), recorder, asyncio.Event()))
    await eventually(lambda: bodies(recorder, "error"), limit=30)
    away.rename(models.access.socket)
    assert await asyncio.wait_for(running, 60) == "end_turn"


async def test_an_interrupt_in_mid_stream_is_quick(models: Models) -> None:
    interrupted, provider, recorder = asyncio.Event(), make_provider("claude"), Recorder()
    running = asyncio.create_task(provider.run(models.request("[[script:slow n=2000 delay=0.01]]"), recorder, interrupted))
    await eventually(lambda: "content_delta" in recorder.kinds(), limit=30)
    asked = time.monotonic()
    interrupted.set()
    assert await running == "interrupted"
    assert time.monotonic() - asked < 1
    assert not programs()


async def test_an_interrupt_before_the_program_is_started_is_quick(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.providers.claude._POLITE_SECONDS", 0)
    interrupted, provider = asyncio.Event(), make_provider("claude")
    interrupted.set()
    async with asyncio.timeout(5):
        assert await provider.run(models.request(bash("touch made")), Recorder(), interrupted) == "interrupted"
    assert not programs()
    assert models.fake.messages == []


async def test_a_call_that_was_cut_off_is_closed(models: Models) -> None:
    interrupted, provider, recorder = asyncio.Event(), make_provider("claude"), Recorder()
    running = asyncio.create_task(provider.run(models.request(bash("true; sleep 1000.5625")), recorder, interrupted))
    await eventually(lambda: processes_with("1000.5625"), limit=30)
    interrupted.set()
    await running
    calls = {call.call_id for call in bodies(recorder, "tool_call")}
    assert calls == {result.call_id for result in bodies(recorder, "tool_result")}
    await eventually(lambda: not processes_with("1000.5625"), limit=1)


# -- the user beside it -----------------------------------------------------------------------------------------------------


def chooses(option: str, note: str = "") -> Callable[[Asked], session.RequestResolved]:
    return lambda _: session.RequestResolved(outcome=session.REQUEST_OUTCOME_CHOSEN, option_id=option, note=note)


async def test_calls_that_an_interrupt_cuts_off_are_cancelled_and_nobody_is_said_to_have_refused_them(models: Models) -> None:
    mark = models.fake.plays("two", [use("Bash", command="sleep 1009"), use("Write", file_path="never.txt", content="x")])
    recorder, interrupted, provider = Recorder(), asyncio.Event(), make_provider("claude")
    running = asyncio.create_task(provider.run(models.request(mark), recorder, interrupted))
    await eventually(lambda: processes_with("sleep\0001009"), limit=30)
    interrupted.set()
    assert await asyncio.wait_for(running, 30) == "interrupted"
    results = bodies(recorder, "tool_result")
    assert [result.status for result in results] == [session.TOOL_OUTCOME_CANCELLED] * 2
    # The program tells its model that the user does not want to go on, and to stop; who reads the log knows who stopped what.
    assert [part.text for result in results for part in result.parts] == []
    assert not (models.workspace / "never.txt").exists()


async def test_without_approvals_nobody_is_asked(models: Models) -> None:
    people = People()
    await run(models.request(bash("touch made"), people=people))
    assert (models.workspace / "made").exists()
    assert people.asked == []


@pytest.mark.parametrize(("option", "made"), [("allow", True), ("reject", False)])
async def test_with_approvals_the_user_decides(models: Models, option: str, made: bool) -> None:
    people = People(answer=chooses(option, "because"))
    recorder, reason, _ = await run(models.request(bash("touch made"), people=people, approvals=session.APPROVALS_ASK))
    assert reason == "end_turn"
    assert (models.workspace / "made").exists() is made
    (request,) = people.asked
    assert (request.tool.name, request.tool.command, request.tool.status) == ("Bash", "touch made", session.TOOL_STATUS_PENDING)
    (call_id,) = {call.call_id for call in bodies(recorder, "tool_call")}
    assert request.tool.call_id == call_id
    assert [call.status for call in bodies(recorder, "tool_call")][1:] == [PENDING, RUNNING][: 1 + made]
    (result,) = bodies(recorder, "tool_result")
    assert result.status == (session.TOOL_OUTCOME_COMPLETED if made else session.TOOL_OUTCOME_DECLINED)
    if not made:
        assert "because" in result.parts[0].text


async def test_a_call_runs_when_it_may_and_not_while_somebody_is_asked(models: Models) -> None:
    """Two at once: the program asks for the second when the first is done."""
    told: list[list[tuple[str, int]]] = []
    recorder = Recorder()

    def status() -> list[tuple[str, int]]:
        return [(call.command, call.status) for call in bodies(recorder, "tool_call") if call.command]

    def answer(_: Asked) -> session.RequestResolved:
        told.append(status())
        return session.RequestResolved(outcome=session.REQUEST_OUTCOME_CHOSEN, option_id="allow")

    mark = models.fake.plays("two", [use("Bash", command="touch a"), use("Bash", command="touch b")], [say("ok")])
    request = models.request(mark, people=People(answer=answer), approvals=session.APPROVALS_ASK)
    await make_provider("claude").run(request, recorder, asyncio.Event())
    assert all(("touch a", RUNNING) not in seen for seen in told[:1])
    assert ("touch a", RUNNING) in told[1]
    assert ("touch b", RUNNING) not in told[1]
    assert sorted(status()) == sorted((command, state) for command in ("touch a", "touch b") for state in (PENDING, RUNNING))


async def test_a_call_for_which_nobody_is_asked_runs_before_it_has_a_result(models: Models) -> None:
    """The program runs what only reads without leave, and does not say so."""
    people, interrupted, recorder = People(), asyncio.Event(), Recorder()
    mark = models.fake.plays("read", [use("Bash", command="ls")], [use("Bash", command="sleep 1003.5")])
    running = asyncio.create_task(
        make_provider("claude").run(models.request(mark, people=people, approvals=session.APPROVALS_ASK), recorder, interrupted)
    )
    async with asyncio.timeout(60):
        while ("sleep 1003.5", RUNNING) not in [(call.command, call.status) for call in bodies(recorder, "tool_call")]:
            recorder.news.clear()
            await recorder.news.wait()
    interrupted.set()
    await running
    assert people.asked == []
    first, call_id = recorder.events, bodies(recorder, "tool_result")[0].call_id
    of_the_first = [event.tool_call.status or event.WhichOneof("body") for event in first if event.item_id == call_id]
    assert [each for each in of_the_first if each != "content_delta"] == [PENDING, PENDING, RUNNING, "tool_result"]


async def test_a_call_that_is_asked_for_late_waits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude_tools, "_ASKED_WITHIN_SECONDS", 0.0)
    recorder = Recorder()
    calls = claude_tools.ToolCalls(tmp_path, recorder, asks=True)
    await calls.begin("c", "Bash", {"command": "make"}, "")
    recorder.news.clear()
    calls.due("c")
    await recorder.news.wait()
    await calls.hold("c")
    await calls.run("c")
    assert [call.status for call in bodies(recorder, "tool_call")] == [PENDING, RUNNING, PENDING, RUNNING]


async def test_a_yes_that_is_heard_of_before_the_call_counts(tmp_path: Path) -> None:
    recorder = Recorder()
    calls = claude_tools.ToolCalls(tmp_path, recorder, asks=True)
    await calls.announce("c", "Bash", "")
    calls.due("c")
    await calls.hold("c")
    await calls.run("c")
    await calls.begin("c", "Bash", {"command": "make"}, "")
    assert [call.status for call in bodies(recorder, "tool_call")] == [PENDING, RUNNING]


async def test_a_yes_for_the_like_is_not_asked_for_again(models: Models) -> None:
    calls = [[use("Bash", command=command)] for command in ("touch made", "rm made", "touch made")]
    other = [use("Write", file_path=str(models.workspace / "other"), content="x")]
    people = People(answer=chooses("allow-like"))
    await run(models.request(models.fake.plays("many", *calls, other, [say("ok")]), people=people, approvals=session.APPROVALS_ASK))
    assert [request.tool.command or request.tool.name for request in people.asked] == ["touch made", "rm made", "Write"]
    assert {path.name for path in models.workspace.iterdir()} == {"made", "other"}


async def test_an_interrupt_withdraws_what_is_asked(models: Models) -> None:
    people, interrupted, provider = People(), asyncio.Event(), make_provider("claude")
    request = models.request(bash("touch made"), people=people, approvals=session.APPROVALS_ASK)
    running = asyncio.create_task(provider.run(request, Recorder(), interrupted))
    await eventually(lambda: people.asked, limit=30)
    interrupted.set()
    assert await running == "interrupted"
    assert len(people.withdrawn) == 1
    assert not (models.workspace / "made").exists()


QUESTION = {
    "question": "Which colour?",
    "header": "Colour",
    "multiSelect": False,
    "options": [{"label": "Red", "description": "r"}, {"label": "Blue", "description": "b"}],
}


async def test_questions_are_asked_and_answered_whatever_the_mode(models: Models) -> None:
    answer = session.Answer(question_id="1", option_ids=["2"], text="dark")
    people = People(answer=lambda _: session.RequestResolved(outcome=session.REQUEST_OUTCOME_ANSWERED, answers=[answer]))
    recorder, reason, _ = await run(
        models.request(models.fake.plays("ask", [use("AskUserQuestion", questions=[QUESTION])], [say("Noted.")]), people=people)
    )
    assert reason == "end_turn"
    (request,) = people.asked
    (question,) = request.questions
    assert (question.header, question.text, [option.label for option in question.options]) == ("Colour", "Which colour?", ["Red", "Blue"])
    (result,) = bodies(recorder, "tool_result")
    assert "Blue, dark" in result.parts[0].text
    # By this, and not by its name, a reader knows that the question tells it.
    assert {call.tool_kind for call in bodies(recorder, "tool_call")} == {session.TOOL_KIND_ASK}


async def test_a_question_that_nobody_answers_is_no_end(models: Models) -> None:
    people = People(answer=lambda _: session.RequestResolved(outcome=session.REQUEST_OUTCOME_EXPIRED))
    recorder, reason, _ = await run(
        models.request(models.fake.plays("ask", [use("AskUserQuestion", questions=[QUESTION])], [say("I assume blue.")]), people=people)
    )
    assert (reason, texts(recorder)[-1]) == ("end_turn", "I assume blue.")


async def test_what_the_user_says_meanwhile_reaches_the_model_at_the_next_step(models: Models) -> None:
    people = People("and also this")
    recorder, reason, provider = await run(models.request(bash("sleep 2"), people=people))
    assert reason == "end_turn"
    assert people.taken_inputs == ["input-1"]
    # Between two steps of the same turn, and again in the next.
    first, second = (json.dumps(asked.body["messages"]) for asked in models.fake.messages)
    assert "and also this" not in first
    assert "and also this" in second
    await run(models.request("hello", transcript=provider.transcript))
    assert "and also this" in json.dumps(models.fake.messages[-1].body["messages"])
    assert bodies(recorder, "provider_raw") == []


@pytest.mark.parametrize("approvals", [session.APPROVALS_UNSPECIFIED, session.APPROVALS_ASK], ids=["unasked", "asked"])
async def test_what_the_user_says_when_the_program_is_just_done_is_work_like_any_other(
    models: Models, monkeypatch: pytest.MonkeyPatch, approvals: session.Approvals
) -> None:
    """The program has said its result, and the SDK, which has not heard it yet, is about to close the program's input."""
    done, heard, whole, say_to = asyncio.Event(), asyncio.Event(), claude_program.Program._whole, claude_program.Program.say

    async def held_back(self: Any, messages: Any) -> Any:
        async for message in whole(self, messages):
            if message["type"] == "result":
                done.set()
                await heard.wait()
            yield message

    async def told(self: Any, text: str, *, message_id: str) -> bool:
        try:
            return await say_to(self, text, message_id=message_id)
        finally:
            heard.set()

    class Late(People):
        async def next(self) -> UserMessage:
            await done.wait()
            return await super().next()

    monkeypatch.setattr(claude_program.Program, "_whole", held_back)
    monkeypatch.setattr(claude_program.Program, "say", told)
    made = models.workspace / "made.txt"
    people = Late(models.fake.plays("more", [use("Write", file_path=str(made), content="made\n")], [say("Made.")]), answer=allow)
    recorder, reason, _ = await run(models.request("hello", people=people, approvals=approvals))
    assert (reason, people.taken_inputs, texts(recorder)) == ("end_turn", ["input-1"], ["Fake answer", "Made."])
    assert len(people.asked) == (1 if approvals == session.APPROVALS_ASK else 0)
    assert made.exists()
    assert len(bodies(recorder, "file_changed")) == 1


async def test_what_the_user_said_is_not_taken_up_behind_an_interrupt(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would count as delivered to an agent that is being ended; so it waits for the next turn."""
    heard, original = asyncio.Event(), claude_program.Program.say

    async def told(self: Any, text: str, *, message_id: str) -> bool:
        try:
            return await original(self, text, message_id=message_id)
        finally:
            heard.set()

    monkeypatch.setattr(claude_program.Program, "say", told)
    monkeypatch.setattr("worker.providers.claude._POLITE_SECONDS", 5)
    people, interrupted = People("and also this"), asyncio.Event()
    running = asyncio.create_task(
        make_provider("claude").run(models.request(bash("true; sleep 1000.625"), people=people), Recorder(), interrupted)
    )
    await eventually(lambda: heard.is_set() and processes_with("1000.625"), limit=30)
    interrupted.set()
    async with asyncio.timeout(10):
        assert await running == "interrupted"
    assert people.taken_inputs == []
    assert len(models.fake.messages) == 1


@pytest.mark.parametrize("text", ["/clear", "  /compact forget the rules", "/etc/hosts is wrong, fix it"])
async def test_what_the_user_says_meanwhile_is_no_command_either(models: Models, text: str) -> None:
    people = People(text)
    recorder, _, _ = await run(models.request(bash("sleep 2"), people=people))
    assert people.taken_inputs == ["input-1"]
    # It reached the model, behind all that was said before.
    last = json.dumps(models.fake.messages[-1].body["messages"])
    assert text in last
    assert "sleep 2" in last
    assert bodies(recorder, "context_compacted") == []


# -- what the SDK drops -----------------------------------------------------------------------------------------------------


async def test_messages_that_nobody_knows_are_kept(tmp_path: Path) -> None:
    from worker.providers.claude_messages import Narrator

    said = [
        {"type": "telepathy", "strength": 7},
        {"type": "system", "subtype": "brand_new", "session_id": "s"},
        {"type": "assistant", "message": {"content": "no list"}},
        {"type": "result"},
        {"type": "telepathy", "text": "x" * 100_000},
    ]

    class Dull(claude_program.Program):
        def __init__(self) -> None:
            pass

    async def source() -> Any:
        for message in said:
            yield message

    recorder = Recorder()
    narrator = Narrator(tmp_path, recorder, People())
    from claude_agent_sdk._internal.message_parser import parse_message

    async for message in Dull()._whole(source()):
        await narrator.hear(parse_message(message))
    raws = bodies(recorder, "provider_raw")
    assert [raw.native_type for raw in raws] == ["telepathy", "system.brand_new", "assistant", "result", "telepathy"]
    parse_error, unknown = session.RAW_REASON_PARSE_ERROR, session.RAW_REASON_UNKNOWN_TYPE
    assert [raw.reason for raw in raws] == [unknown, unknown, parse_error, parse_error, unknown]
    assert json.loads(raws[0].payload) == said[0]
    assert (raws[4].truncated, len(raws[4].payload)) == (True, 16 * 1024)


async def test_half_a_character_is_no_end(models: Models) -> None:
    recorder, reason, _ = await run(models.request(models.fake.plays("half", [say("a \ud83d b")])))
    assert reason == "end_turn"
    assert texts(recorder)[0].startswith("a ")


async def test_half_a_character_can_be_asked_about(models: Models) -> None:
    people = People(answer=allow)
    steps = [
        [use("Write", file_path=str(models.workspace / "a\ud83d"), content="x\ud83d")],
        [use("Bash", command="echo \ud83d")],
        [say("ok")],
    ]
    _, reason, _ = await run(models.request(models.fake.plays("half", *steps), people=people, approvals=session.APPROVALS_ASK))
    assert reason == "end_turn"
    assert len(people.asked) == 2


# -- the traps that PROVIDERS names, where no test above is one -------------------------------------------------------------


async def test_two_turns_cost_what_two_turns_cost(models: Models) -> None:
    """The program's total_cost_usd goes on over resume, since it is in the transcript; ours is without it."""
    from worker.providers import claude_messages

    costs: list[float] = []
    original = claude_messages.Narrator.outcome

    def outcome(self: Any, **limits: int) -> str:
        costs.append(self.result.total_cost_usd)
        return original(self, **limits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claude_messages.Narrator, "outcome", outcome)
        _, _, first = await run(models.request("hello"))
        assert b"cost-state" not in first.transcript
        await run(models.request("hello", transcript=first.transcript))
    assert costs[1] < 1.5 * costs[0]


async def test_work_in_the_background_does_not_cut_the_turn_short(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """With background tasks the program may give two results; the stream is read to its end."""
    original = claude_program._environment

    def environment(*arguments: Any) -> dict[str, str]:
        return {name: value for name, value in original(*arguments).items() if name != "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"}

    monkeypatch.setattr(claude_program, "_environment", environment)
    models.fake.plays("sub", [use("Bash", command="true; sleep 1", description="d")], [say("I am the sub-agent.")])
    agent = use("Agent", description="d", prompt="[[script:sub]]", subagent_type="general-purpose")
    mark = models.fake.plays("delegate", [agent], [say("Started.")], [say("All done.")])
    recorder, reason, _ = await run(models.request(mark))
    assert reason == "end_turn"
    assert "I am the sub-agent." in texts(recorder)
    assert bodies(recorder, "subagent_updated")[-1].state == session.SUBAGENT_STATE_COMPLETED
    assert texts(recorder)[-1] == "All done."


async def test_a_command_may_begin_with_sleep(models: Models) -> None:
    """With background tasks the program refuses that, and says to run it in the background."""
    recorder, reason, _ = await run(models.request(bash("sleep 6; echo slept")))
    (result,) = bodies(recorder, "tool_result")
    assert (reason, result.status, result.parts[0].text) == ("end_turn", session.TOOL_OUTCOME_COMPLETED, "slept")


async def test_without_a_sandbox_root_is_only_let_in_by_exactly_one(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        assert "IS_SANDBOX" not in claude_program._environment("s", "t", Path("/h"))
        return
    assert claude_program._environment("s", "t", Path("/h"))["IS_SANDBOX"] == "1"
    original = claude_program._environment
    monkeypatch.setattr(claude_program, "_environment", lambda *given: original(*given) | {"IS_SANDBOX": "yes"})
    with pytest.raises(ProviderFailed, match="root"):
        await run(models.request("hello"))


async def test_half_a_result_does_not_count_as_one(models: Models) -> None:
    """A conversation that the program does not find is its failure, not an empty success."""
    lost = b'{"session_id": "7f4c1b1e-0000-4000-8000-000000000000"}\n'
    with pytest.raises(ProviderFailed, match="No conversation found"):
        await run(models.request("hello", transcript=lost))
