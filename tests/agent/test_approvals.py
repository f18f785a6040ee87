"""What a yes covers, and what a person sees before saying it: the same for every agent that asks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.provider_contract import Asked, People, request_for

from treadle.session.v1 import event_pb2 as session

Use = Callable[[str, dict[str, Any]], Awaitable[bool]]
"""Asks for leave to use a tool; whether it was given."""


def for_the_like(_: Asked) -> session.RequestResolved:
    return session.RequestResolved(outcome=session.REQUEST_OUTCOME_CHOSEN, option_id="allow-like")


@pytest.fixture
def people() -> People:
    return People(answer=for_the_like)


@pytest.fixture(params=["claude", "anthropic"])
def use(request: pytest.FixtureRequest, tmp_path: Path, people: People) -> Use:
    """The agent's own gate; tools by the names of Claude."""
    return (_claude if request.param == "claude" else _anthropic)(tmp_path, people)


def _claude(workspace: Path, people: People) -> Use:
    sdk = pytest.importorskip("claude_agent_sdk", exc_type=ImportError)
    from support.provider_contract import Recorder

    from worker.providers.claude_messages import Narrator
    from worker.providers.claude_people import Permissions

    permissions = Permissions(people, Narrator(workspace, Recorder(), people))

    async def use(name: str, given: dict[str, Any]) -> bool:
        answer = await permissions(name, given, sdk.ToolPermissionContext())
        return isinstance(answer, sdk.PermissionResultAllow)

    return use


def _anthropic(workspace: Path, people: People) -> Use:
    from support.provider_contract import Recorder

    from worker.providers.anthropic_people import Leave
    from worker.providers.anthropic_tools import Call, Tools

    leave = Leave(request_for(workspace, people=people, approvals=session.APPROVALS_ASK))
    tools = Tools(workspace, Recorder(), leave)

    async def use(name: str, given: dict[str, Any]) -> bool:
        call = Call("call", name.lower(), given)
        return not await leave.refused(tools.told(call), given)

    return use


async def test_a_yes_for_the_like_covers_the_very_command(use: Use, people: People) -> None:
    assert await use("Bash", {"command": "git add -A", "description": "stage"})
    assert await use("Bash", {"command": "git add -A", "description": "stage again"})
    assert len(people.asked) == 1
    others = ["git add -A; rm -rf .", "git --version; rm -rf .git", "git", "git add", "git  add -A"]
    for other in others:
        await use("Bash", {"command": other})
    assert [asked.tool.command for asked in people.asked][1:] == others


async def test_a_yes_for_the_like_covers_changes_of_the_same_file(use: Use, people: People, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    await use("Write", {"file_path": str(tmp_path / "a.txt"), "content": "x"})
    await use("Edit", {"file_path": "sub/../a.txt", "old_string": "one", "new_string": "two"})
    assert len(people.asked) == 1
    await use("Write", {"file_path": str(tmp_path / ".github" / "workflows" / "deploy.yml"), "content": "evil"})
    assert len(people.asked) == 2
    # The name is the same, the file is another one.
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").symlink_to("b.txt")
    await use("Write", {"file_path": "a.txt", "content": "x"})
    assert len(people.asked) == 3


async def test_a_link_is_called_by_what_it_leads_to(use: Use, people: People, tmp_path: Path) -> None:
    """A yes for notes.md would be one for the hook."""
    hook = tmp_path / ".git" / "hooks" / "pre-commit"
    (tmp_path / "notes.md").symlink_to(hook)
    await use("Write", {"file_path": "notes.md", "content": "x"})
    await use("Write", {"file_path": str(hook), "content": "y"})
    (asked,) = people.asked
    labels = {option.id: option.label for option in asked.options}
    assert labels["allow-like"] == "yes, and every further change of .git/hooks/pre-commit"
    assert [change.path for change in asked.changes] == [".git/hooks/pre-commit"]


@pytest.mark.parametrize("path", ["nul \0", "", 7])
async def test_odd_paths_are_asked_for_one_by_one(use: Use, people: People, path: Any) -> None:
    await use("Write", {"file_path": path, "content": "x"})
    await use("Write", {"file_path": path, "content": "y"})
    assert len(people.asked) == 2


async def test_the_option_says_what_it_covers(use: Use, people: People, tmp_path: Path) -> None:
    await use("Bash", {"command": "make"})
    await use("Write", {"file_path": str(tmp_path / "a.txt"), "content": "x"})
    labels = [{option.id: option.label for option in asked.options} for asked in people.asked]
    assert [label["allow-like"] for label in labels] == ["yes, and this very command again", "yes, and every further change of a.txt"]


async def test_a_person_sees_what_an_edit_would_do(use: Use, people: People, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\nmake\n")
    await use("Edit", {"file_path": str(tmp_path / "run.sh"), "old_string": "make", "new_string": "rm -rf /"})
    await use("Write", {"file_path": str(tmp_path / "new.txt"), "content": "one\n"})
    edit, write = [asked.changes[0] for asked in people.asked]
    assert (edit.path, edit.operation) == ("run.sh", session.FILE_OPERATION_MODIFIED)
    assert edit.patch == "--- a/run.sh\n+++ b/run.sh\n@@ -1,2 +1,2 @@\n #!/bin/sh\n-make\n+rm -rf /\n"
    assert (write.path, write.operation, write.additions) == ("new.txt", session.FILE_OPERATION_ADDED, 1)
    assert "+one\n" in write.patch
    assert (tmp_path / "run.sh").read_text() == "#!/bin/sh\nmake\n"
    assert not (tmp_path / "new.txt").exists()


@pytest.mark.parametrize("given", [{"old_string": "absent", "new_string": "rm -rf /"}, {"old_string": "", "new_string": "rm -rf /"}])
async def test_an_edit_that_does_not_fit_is_seen_too(use: Use, people: People, tmp_path: Path, given: dict[str, Any]) -> None:
    """The program may find a place where we do not."""
    (tmp_path / "run.sh").write_text("make\n")
    await use("Edit", {"file_path": "run.sh", **given})
    (change,) = people.asked[0].changes
    assert "+rm -rf /\n" in change.patch


@pytest.mark.parametrize(
    ("name", "given", "true"),
    [
        ("Edit", {"old_string": "make", "new_string": "rm -rf /", "content": "make all\n"}, "-make\n+rm -rf /\n"),
        ("Write", {"content": "rm -rf /\n", "old_string": "make", "new_string": "make all"}, "-make\n+rm -rf /\n"),
    ],
)
async def test_a_field_of_another_tool_does_not_change_what_is_seen(
    use: Use, people: People, tmp_path: Path, name: str, given: dict[str, Any], true: str
) -> None:
    (tmp_path / "run.sh").write_text("make\n")
    await use(name, {"file_path": "run.sh", **given})
    (change,) = people.asked[0].changes
    assert change.patch.endswith(true)


async def test_a_notebooks_cell_is_seen_by_its_new_source(tmp_path: Path, people: People) -> None:
    use = _claude(tmp_path, people)
    await use("NotebookEdit", {"notebook_path": "a.ipynb", "new_source": "evil()\n", "new_string": "good()", "content": "ok"})
    (change,) = people.asked[0].changes
    assert change.path == "a.ipynb"
    assert change.patch.endswith("+evil()\n")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("NotebookEdit", {"notebook_path": "a", "cell_id": "1", "edit_mode": "delete", "new_source": "good()"}),
        ("Write", {"file_path": "a", "old_string": "", "new_string": "good()"}),
        ("Edit", {"file_path": "a", "content": "good()"}),
    ],
)
async def test_where_no_diff_is_true_the_input_is_all_there_is(tmp_path: Path, people: People, name: str, given: dict[str, Any]) -> None:
    """Whoever shows a request shows the input where there are no changes."""
    await _claude(tmp_path, people)(name, given)
    (asked,) = people.asked
    assert list(asked.changes) == []
    assert json.loads(asked.tool.input_json) == given


async def test_a_command_changes_no_file_that_is_known(use: Use, people: People) -> None:
    await use("Bash", {"command": "make"})
    assert list(people.asked[0].changes) == []
