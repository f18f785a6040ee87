"""The provider `anthropic`, against a fake model that speaks the real protocol."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fake_anthropic import Cut, say, think, use
from support.models import TOKEN, Models
from support.provider_contract import People, ProviderContract, Recorder
from support.workers import eventually, processes_with

from treadle.session.v1 import event_pb2 as session
from worker.provider import Provider, ProviderFailed, Request, make_provider
from worker.providers import anthropic_history, anthropic_model
from worker.providers.anthropic_history import History

NO_PAUSES = (0.0, 0.0)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_model, "PAUSES", NO_PAUSES)


class TestAnthropic(ProviderContract):
    name = "anthropic"
    nap = "1000.126"

    @pytest.fixture
    def working(self, models: Models) -> Request:
        mark = models.fake.plays(
            "work",
            [think("What is asked?"), say("I do it."), use("write", file_path="made.txt", content="made\n")],
            [use("bash", command="cat made.txt")],
            [say("Done.")],
        )
        return models.request(mark)

    @pytest.fixture
    def endless(self, models: Models) -> Request:
        return models.request("[[script:bash tool=bash cmd=sleep+1000.126]]")

    @pytest.fixture
    def failing(self, models: Models) -> Request:
        return models.request("[[script:e401]]")

    @pytest.fixture(autouse=True)
    def _models(self, models: Models) -> None:
        self.models = models

    def approving(self, workspace: Path, people: People) -> Request:
        made = str(workspace / "made.txt")
        mark = self.models.fake.plays("approve", [use("write", file_path=made, content="made\n")], [say("Done.")])
        request = self.models.request(mark, people=people, approvals=session.APPROVALS_ASK)
        return replace(request, workspace=workspace)

    def listening(self, workspace: Path, people: People) -> Request:
        mark = self.models.fake.plays("listen", [use("bash", command="true")], [say("I heard it.")])
        return replace(self.models.request(mark, people=people), workspace=workspace)


async def run(request: Request, provider: Provider | None = None) -> tuple[Recorder, str, Provider]:
    provider, recorder = provider or make_provider("anthropic"), Recorder()
    async with asyncio.timeout(60):
        return recorder, await provider.run(request, recorder, asyncio.Event()), provider


def bodies(recorder: Recorder, kind: str) -> list[Any]:
    return [getattr(event, kind) for event in recorder.events if event.WhichOneof("body") == kind]


def by_item(recorder: Recorder) -> dict[str, session.Message]:
    """The messages as they are in the end."""
    return {event.item_id: event.message for event in recorder.events if event.WhichOneof("body") == "message"}


async def test_text_thinking_and_tool_input_are_told_as_they_come(models: Models) -> None:
    mark = models.fake.plays(
        "talk", [think("deep thoughts about it"), say("a long answer indeed"), use("bash", command="echo hi")], [say("end")]
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
    assert json.loads(deltas[running.call_id, session.CHANNEL_TOOL_INPUT]) == json.loads(running.input_json) == {"command": "echo hi"}
    assert running.command == "echo hi"
    (result,) = bodies(recorder, "tool_result")
    assert (result.exit_code, result.parts[0].text) == (0, "hi\n")


async def test_edits_come_with_their_diffs(models: Models) -> None:
    (models.workspace / "a.txt").write_text("one\ntwo\n")
    mark = models.fake.plays(
        "edit",
        [use("edit", file_path="a.txt", old_string="two", new_string="2"), use("write", file_path="deep/b.txt", content="new\n")],
        [say("Done.")],
    )
    recorder, _, _ = await run(models.request(mark))
    first, second = [changed.changes[0] for changed in bodies(recorder, "file_changed")]
    assert (first.path, first.operation, first.additions, first.deletions) == ("a.txt", session.FILE_OPERATION_MODIFIED, 1, 1)
    assert first.patch.endswith("-two\n+2\n")
    assert (second.path, second.operation, second.additions) == ("deep/b.txt", session.FILE_OPERATION_ADDED, 1)
    assert (models.workspace / "a.txt").read_text() == "one\n2\n"


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (use("read", file_path="../outside"), "outside"),
        (use("read", file_path="/etc/passwd"), "outside"),
        (use("read", file_path="link/outside"), "outside"),
        (use("write", file_path="../out", content="x"), "outside"),
        (use("grep", pattern="root", path="/etc"), "outside"),
        (use("glob", pattern="../*"), "stay in the workspace"),
        (use("read", file_path="absent"), "no file"),
        (use("read", file_path="fifo"), "no file"),
        (use("edit", file_path="twice", old_string="a", new_string="b"), "2 times"),
        (use("edit", file_path="twice", old_string="c", new_string="b"), "does not occur"),
        (use("write", file_path="a\0b", content="x"), "does not work"),
        (use("write", file_path="x"), "content is missing"),
        (use("bash", command="exit 3"), "[exit code 3]"),
        (use("bash", command="sleep 1000.128", timeout_seconds=1), "stopped after 1 s"),
        (use("grep", pattern="("), "unmatched"),
        (use("dance"), "no tool"),
        (use("edit", file_path="twice", old_string="a a", new_string="b", content="c"), "no field content"),
        (use("write", file_path="x", content="x", command="true"), "no field command"),
    ],
    ids=lambda value: json.dumps(value.get("input")) if isinstance(value, dict) else None,
)
async def test_what_a_tool_cannot_do_is_told_to_the_model(models: Models, call: dict[str, Any], answer: str) -> None:
    (models.workspace / "twice").write_text("a a")
    (models.workspace / "link").symlink_to(models.workspace.parent)
    (models.workspace.parent / "outside").write_text("secret")
    os.mkfifo(models.workspace / "fifo")
    recorder, reason, _ = await run(models.request(models.fake.plays("try", [call], [say("I see.")])))
    assert reason == "end_turn"
    (result,) = bodies(recorder, "tool_result")
    assert result.status in (session.TOOL_OUTCOME_FAILED, session.TOOL_OUTCOME_TIMED_OUT)
    block = models.fake.messages[-1].body["messages"][-1]["content"][0]
    assert block["is_error"] is True
    assert answer in block["content"].lower()
    assert not (models.workspace.parent / "out").exists()
    assert "1000.128" not in str(call) or not processes_with("1000.128")


async def test_searches_find(models: Models) -> None:
    (models.workspace / "src").mkdir()
    (models.workspace / "src" / "app.py").write_text("def hello():\n    pass\n")
    mark = models.fake.plays(
        "find", [use("glob", pattern="**/*.py"), use("grep", pattern="def h.llo"), use("read", file_path="src/app.py")], [say("ok")]
    )
    recorder, _, _ = await run(models.request(mark))
    assert [result.parts[0].text for result in bodies(recorder, "tool_result")] == [
        "src/app.py",
        "./src/app.py:1:def hello():\n",
        "     1\tdef hello():\n     2\t    pass",
    ]


async def test_requests_carry_the_turns_token_and_the_chosen_model(models: Models) -> None:
    await run(models.request("hello", model="claude-other-1"))
    await run(models.request("hello"))
    assert {asked.key for asked in models.fake.asked} == {TOKEN}
    assert [asked.body["model"] for asked in models.fake.asked] == ["claude-other-1", "claude-sonnet-5-5"]
    assert {asked.path for asked in models.fake.asked} == {"/v1/messages"}


async def test_the_next_turn_in_another_worker_remembers(models: Models) -> None:
    _, _, first = await run(models.request(models.fake.plays("first", [use("bash", command="true")], [say("done")])))
    recorder, _, second = await run(models.request("[[script:echo]]", transcript=first.transcript, turn_number=2))
    assert bodies(recorder, "message")[0].parts[0].text == "history: first,echo"
    assert len(json.loads(second.transcript)["messages"]) == 6


async def test_an_interrupted_turn_is_remembered_too(models: Models) -> None:
    provider, recorder, interrupted = make_provider("anthropic"), Recorder(), asyncio.Event()
    running = asyncio.create_task(provider.run(models.request("[[script:bash tool=bash cmd=sleep+1000.375]]"), recorder, interrupted))
    await eventually(lambda: processes_with("1000.375"), limit=30)
    interrupted.set()
    assert await running == "interrupted"
    assert bodies(recorder, "tool_result")[-1].status == session.TOOL_OUTCOME_CANCELLED
    recorder, _, _ = await run(models.request("[[script:echo]]", transcript=provider.transcript))
    assert bodies(recorder, "message")[0].parts[0].text == "history: bash,echo"
    # Each call in the history has its result: the API refuses it otherwise.
    blocks = [block for message in models.fake.messages[-1].body["messages"] for block in message["content"]]
    assert {block["id"] for block in blocks if block["type"] == "tool_use"} == {
        block["tool_use_id"] for block in blocks if block["type"] == "tool_result"
    }


@pytest.mark.parametrize("transcript", [b"nonsense", b"[]", b'{"messages": [7]}', b'{"messages": [{"role": "user"}]}', b"\xff\xfe"])
async def test_a_transcript_that_makes_no_sense_is_told_and_no_failure(models: Models, transcript: bytes) -> None:
    recorder, reason, _ = await run(models.request("hello", transcript=transcript))
    assert reason == "end_turn"
    assert [error.code for error in bodies(recorder, "error")] == ["TRANSCRIPT_UNREADABLE"]


async def test_a_history_that_is_too_long_loses_its_oldest_turns(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    for number in range(5):
        history.user_says(f"[[script:turn-{number}]] " + "x" * 1000)
        history.model_says([{"type": "text", "text": "y" * 1000}])
    monkeypatch.setattr(anthropic_history, "_LIMIT_CHARS", 5000)
    recorder, _, _ = await run(models.request("[[script:echo]]", transcript=history.to_bytes()))
    assert bodies(recorder, "message")[0].parts[0].text == "history: turn-3,turn-4,echo"
    assert len(bodies(recorder, "context_compacted")) == 1


async def test_the_limit_of_steps_ends_the_turn(models: Models) -> None:
    with pytest.raises(ProviderFailed, match=r"3 times, .* \(TREADLE_AGENT_STEPS\)") as failed:
        await run(models.request("[[script:loop tool=bash]]", max_steps=3))
    assert failed.value.stop_reason == "max_steps"
    assert len(models.fake.messages) == 3


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (401, 1), (403, 1), (429, 3), (500, 3), (529, 3)])
async def test_errors_of_the_api_are_repeated_when_that_may_help(models: Models, status: int, tries: int) -> None:
    recorder, provider = Recorder(), make_provider("anthropic")
    with pytest.raises(ProviderFailed, match=f"{status} [a-z_]+_error: the fake says"):
        await provider.run(models.request(f"[[script:e{status}]]"), recorder, asyncio.Event())
    assert len(models.fake.asked) == tries
    assert [error.code for error in bodies(recorder, "error")] == ["PROVIDER_RETRY"] * (tries - 1)


async def test_what_the_gateway_says_is_told_without_what_clients_put_before_it(models: Models) -> None:
    with pytest.raises(ProviderFailed, match=r"^429 from api\.example\.org: slow down$"):
        await run(models.request("[[script:e402 says=Treadle:+429+from+api.example.org:+slow+down]]"))
    assert len(models.fake.messages) == 1


@pytest.mark.parametrize("error", ["overloaded_error", ""], ids=["overloaded", "cut"])
async def test_an_answer_that_ends_early_is_asked_for_again(models: Models, error: str) -> None:
    cut = Cut([say("half an answer"), use("bash", command="never")], error, times=1, then=[say("the whole answer")])
    recorder, reason, _ = await run(models.request(models.fake.plays("cut", cut)))
    assert reason == "end_turn"
    (told,) = bodies(recorder, "error")
    assert told.retryable
    assert told.message.startswith("the model's API answered overloaded_error" if error else "the connection to the model failed: ")
    # What was told of the first answer is withdrawn, and its call, which never ran, is closed.
    finals = {
        event.item_id: [part.text for part in event.message.parts] for event in recorder.events if event.WhichOneof("body") == "message"
    }
    assert [*finals.values()] == [[], ["the whole answer"]]
    assert [result.status for result in bodies(recorder, "tool_result")] == [session.TOOL_OUTCOME_CANCELLED]


async def test_a_gateway_that_comes_back_is_waited_for(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_model, "PAUSES", [0.2] * 100)
    away = models.access.socket.with_name("away.sock")
    models.access.socket.rename(away)
    recorder, provider = Recorder(), make_provider("anthropic")
    running = asyncio.create_task(provider.run(models.request("hello"), recorder, asyncio.Event()))
    await eventually(lambda: bodies(recorder, "error"), limit=30)
    away.rename(models.access.socket)
    assert await running == "end_turn"
    assert {error.code for error in bodies(recorder, "error")} == {"PROVIDER_RETRY"}


async def test_half_a_character_is_no_end(models: Models) -> None:
    mark = models.fake.plays("half", [think("a \ud83d"), say("b \ud83d"), use("bash", command="true")], [say("ok \ud83d")])
    recorder, reason, provider = await run(models.request(mark))
    assert reason == "end_turn"
    assert [message.parts[0].text for message in bodies(recorder, "message")] == ["b ?", "ok ?"]
    await run(models.request("hello", transcript=provider.transcript))


async def test_an_answer_that_the_library_cannot_read_is_asked_for_again(models: Models) -> None:
    mark = models.fake.plays("half", [use("bash", command="echo \ud83d")])
    recorder, provider = Recorder(), make_provider("anthropic")
    with pytest.raises(ProviderFailed, match=r"^the model did not answer as it should: the answer cannot be read"):
        await provider.run(models.request(mark), recorder, asyncio.Event())
    assert {error.code for error in bodies(recorder, "error")} == {"PROVIDER_RETRY"}


# -- the traps that PROVIDERS names for the SDK -----------------------------------------------------------------------------


async def test_no_thread_is_kept_by_the_api_and_each_request_has_the_whole_history(models: Models) -> None:
    await run(models.request("[[script:bash tool=bash cmd=true]]"))
    first, second = models.fake.messages
    assert all("thread" not in asked.body for asked in (first, second))
    assert second.body["messages"][: len(first.body["messages"])] == first.body["messages"]
    assert len(second.body["messages"]) == 3


async def test_no_shell_is_left_after_a_turn(models: Models) -> None:
    before = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    await run(models.request("[[script:bash tool=bash cmd=true]]"))
    mine = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    children = {int(pid) for path in mine for pid in path.read_text().split()}
    assert children - before == set()


async def test_an_interrupt_in_mid_stream_is_quick_and_silent(models: Models, capfd: pytest.CaptureFixture[str]) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    try:
        interrupted, provider = asyncio.Event(), make_provider("anthropic")
        running = asyncio.create_task(provider.run(models.request("[[script:slow n=2000 delay=0.01]]"), Recorder(), interrupted))
        await eventually(lambda: models.fake.answering["slow"], limit=10)
        asked = time.monotonic()
        interrupted.set()
        assert await running == "interrupted"
        assert time.monotonic() - asked < 1
        await eventually(lambda: models.fake.gone == ["slow"])
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert [complaint for complaint in complaints if "generator" in str(complaint)] == []
    assert capfd.readouterr().err == ""


def test_the_library_is_imported_only_when_the_provider_is_made() -> None:
    known = "'anthropic' in sys.modules"
    code = "import sys, worker.engine, worker.service, worker.providers.anthropic as one"
    code += f"; assert not {known}; one.AnthropicProvider(); assert {known}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_what_the_user_says_meanwhile_reaches_the_model_between_two_steps(models: Models) -> None:
    people = People("and also this")
    mark = models.fake.plays("listen", [use("bash", command="true")], [say("I heard it.")])
    _, reason, provider = await run(models.request(mark, people=people))
    assert reason == "end_turn"
    assert people.taken_inputs == ["input-1"]
    first, second = (json.dumps(asked.body["messages"]) for asked in models.fake.messages)
    assert "and also this" not in first
    assert "and also this" in second
    assert b"and also this" in provider.transcript


async def test_a_refusal_is_told_to_the_model_with_what_the_user_says(models: Models) -> None:
    people = People(answer=lambda _: session.RequestResolved(outcome=session.REQUEST_OUTCOME_DECLINED, note="not on a Friday"))
    mark = models.fake.plays("ask", [use("bash", command="touch made")], [say("Then not.")])
    recorder, _, _ = await run(models.request(mark, people=people, approvals=session.APPROVALS_ASK))
    assert not (models.workspace / "made").exists()
    assert [result.status for result in bodies(recorder, "tool_result")] == [session.TOOL_OUTCOME_DECLINED]
    assert [call.status for call in bodies(recorder, "tool_call")] == [session.TOOL_STATUS_PENDING]
    assert "not on a Friday" in json.dumps(models.fake.messages[-1].body["messages"])
    # What only reads is not asked for, and neither is what will not be done.
    calls = [use("glob", pattern="*"), use("write", file_path="a", content="b", command="true")]
    reading = models.fake.plays("read", calls, [say("Nothing.")])
    asked = len(people.asked)
    await run(models.request(reading, people=people, approvals=session.APPROVALS_ASK))
    assert len(people.asked) == asked
