"""The provider `replay`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.provider_contract import People, ProviderContract, request_for

from treadle.session.v1 import event_pb2 as session
from worker.provider import Provider, ProviderFailed, Request, make_provider


def recorded(workspace: Path, *steps: Mapping[str, Any], **fields: Any) -> Request:
    folder = workspace / ".treadle" / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.jsonl").write_text("\n".join(json.dumps(step) for step in steps))
    return request_for(workspace, prompt="the prompt", model=".treadle/recordings/x.jsonl", turn_number=3, **fields)


class TestReplay(ProviderContract):
    name = "replay"
    nap = "1000.125"

    @pytest.fixture
    def working(self, tmp_path: Path) -> Request:
        return recorded(tmp_path, {"say": "I do it"}, {"write": "made.txt", "content": "{prompt} {turn}\n"}, {"run": "cat made.txt"})

    @pytest.fixture
    def endless(self, tmp_path: Path) -> Request:
        return recorded(tmp_path, {"run": "sleep 1000.125"})

    @pytest.fixture
    def failing(self, tmp_path: Path) -> Request:
        return recorded(tmp_path, {"fail": "it cannot be done"})

    def approving(self, workspace: Path, people: People) -> Request:
        asked = {"approve": "Make it", "command": "make it"}
        steps = (asked, {"write": "made.txt", "content": "x", "if": "allow"}, {"say": "{answer}"})
        return recorded(workspace, *steps, approvals=session.APPROVALS_ASK, people=people)

    def listening(self, workspace: Path, people: People) -> Request:
        return recorded(workspace, {"say": "I listen"}, {"listen": 1}, {"say": "heard {input}"}, people=people)

    async def test_an_answer_can_be_for_the_rest_of_the_turn(self, provider: Provider, tmp_path: Path) -> None:
        people = People(answer=lambda asked: session.RequestResolved(outcome=session.REQUEST_OUTCOME_CHOSEN, option_id="allow_all"))
        steps = ({"approve": "One", "command": "one"}, {"approve": "Two", "command": "two"}, {"say": "{answer}"})
        recorder, _ = await self.run(provider, recorded(tmp_path, *steps, approvals=session.APPROVALS_ASK, people=people))
        assert [asked.title for asked in people.asked if isinstance(asked, session.ApprovalRequested)] == ["One"]
        assert recorder.events[-1].message.parts[0].text == "allow"

    async def test_a_question_is_asked_and_its_answer_used(self, provider: Provider, tmp_path: Path) -> None:
        answer = session.Answer(question_id="question", option_ids=["red", "blue"])
        people = People(answer=lambda _: session.RequestResolved(outcome=session.REQUEST_OUTCOME_ANSWERED, answers=[answer], note="n"))
        steps = ({"ask": "Which?", "choices": ["red", "blue"], "multi": True}, {"say": "{answer} {note}"})
        recorder, _ = await self.run(provider, recorded(tmp_path, *steps, people=people))
        (asked,) = people.asked
        assert isinstance(asked, session.QuestionRequested)
        assert [option.id for option in asked.questions[0].options] == ["red", "blue"]
        assert recorder.events[-1].message.parts[0].text == "red, blue n"

    async def test_files_and_commands_really_happen(self, provider: Provider, working: Request) -> None:
        recorder, _ = await self.run(provider, working)
        assert (working.workspace / "made.txt").read_text() == "the prompt 3\n"
        (result,) = [event.tool_result for event in recorder.events if event.tool_result.HasField("exit_code")]
        assert result.exit_code == 0
        assert result.parts[0].text == "the prompt 3\n"
        (change,) = [event.file_changed.changes[0] for event in recorder.events if event.WhichOneof("body") == "file_changed"]
        assert (change.path, change.operation, change.additions) == ("made.txt", session.FILE_OPERATION_ADDED, 1)
        assert change.patch.endswith("+the prompt 3\n")

    async def test_edits_and_deletions(self, provider: Provider, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("one\ntwo\n")
        (tmp_path / "b").write_text("gone")
        recorder, _ = await self.run(
            provider, recorded(tmp_path, {"edit": "a", "old": "two", "new": "2"}, {"delete": "b"}, {"delete": "c"})
        )
        assert (tmp_path / "a").read_text() == "one\n2\n"
        assert not (tmp_path / "b").exists()
        outcomes = [event.tool_result.status for event in recorder.events if event.WhichOneof("body") == "tool_result"]
        assert outcomes == [session.TOOL_OUTCOME_COMPLETED, session.TOOL_OUTCOME_COMPLETED, session.TOOL_OUTCOME_FAILED]

    async def test_exit_codes_and_signals_are_the_real_ones(self, provider: Provider, tmp_path: Path) -> None:
        runs: list[dict[str, Any]] = [{"run": "echo no >&2; exit 3"}, {"run": "kill -9 $$"}, {"run": ["/nowhere/at/all"]}]
        recorder, _ = await self.run(provider, recorded(tmp_path, *runs))
        results = [event.tool_result for event in recorder.events if event.WhichOneof("body") == "tool_result"]
        assert [result.exit_code for result in results] == [3, 137, 127]
        assert results[0].parts[0].text == "no\n"

    async def test_a_background_process_does_not_hold_a_command_open(self, provider: Provider, tmp_path: Path) -> None:
        recorder, _ = await self.run(provider, recorded(tmp_path, {"run": "sleep 5.0625 & setsid sleep 5.0625 & echo done"}))
        (result,) = [event.tool_result for event in recorder.events if event.WhichOneof("body") == "tool_result"]
        assert result.parts[0].text == "done\n"
        assert result.duration.seconds < 4

    async def test_the_bundled_recording_changes_any_repository_in_every_turn(self, provider: Provider, tmp_path: Path) -> None:
        for turn in (1, 2):
            recorder, _ = await self.run(make_provider("replay"), request_for(tmp_path, prompt="do it\nwell", turn_number=turn))
            results = [event.tool_result for event in recorder.events if event.WhichOneof("body") == "tool_result"]
            assert all(result.exit_code == 0 for result in results)
        assert sorted(path.name for path in (tmp_path / "treadle-notes").iterdir()) == ["check.sh", "turn-1.md", "turn-2.md"]


@pytest.mark.parametrize("model", ["unknown", "../x.jsonl", "/etc/passwd", ".treadle/recordings/none.jsonl", "link.jsonl"])
async def test_a_recording_that_is_not_there_or_outside_is_refused(model: str, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (tmp_path / "x.jsonl").write_text('{"say": "outside"}')
    (workspace / "link.jsonl").symlink_to(tmp_path / "x.jsonl")
    with pytest.raises(ProviderFailed):
        await TestReplay().run(make_provider("replay"), request_for(workspace, model=model))


@pytest.mark.parametrize(
    "step",
    [
        {"write": "../out", "content": "x"},
        {"write": "/tmp/treadle-out", "content": "x"},
        {"write": "link/out", "content": "x"},
        {"delete": "../x"},
        {"edit": "absent", "old": "a", "new": "b"},
        {"write": "a"},
        {"run": 7},
        {"dance": 1},
        {"usage": {"input_tokens": "many"}},
    ],
    ids=str,
)
async def test_a_bad_step_fails_with_a_sentence(step: dict[str, Any], tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "link").symlink_to(tmp_path)
    with pytest.raises(ProviderFailed):
        await TestReplay().run(make_provider("replay"), recorded(workspace, step))
    assert not (tmp_path / "out").exists()


async def test_lines_that_are_no_json_are_named(tmp_path: Path) -> None:
    request = recorded(tmp_path, {"say": "a"})
    (tmp_path / request.model).write_text('{"say": "a"}\n{"say": \n')
    with pytest.raises(ProviderFailed, match=r"x.jsonl:2"):
        await TestReplay().run(make_provider("replay"), request)


async def test_a_provider_that_is_not_installed_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProviderFailed, match="nobody"):
        make_provider("nobody")
