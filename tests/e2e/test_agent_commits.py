"""An agent that commits its own work: each commit is told and pushed, and so is what was left out."""

from __future__ import annotations

from support.git_server import GitServer, git
from support.treadle import Client, branch_of, pushed_files, recording

from treadle.session.v1 import event_pb2 as pb

COMMITS = (
    "echo one > one && git add one && git commit -qm 'the first step'",
    "echo two > two && git add two && git commit -qm 'the second step' -m 'and why'",
)


async def test_its_commits_are_told_one_by_one_and_the_rest_comes_on_top(client: Client, git_server: GitServer) -> None:
    steps = recording(*({"run": line} for line in COMMITS), {"write": "three", "content": "1\n2\n"})
    bare = git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": steps})
    events = await client.run(repository_url=f"{git_server.url}/acme/app.git", prompt="Add steps", provider="replay", model="r.jsonl")
    committed = [event.git_updated for event in events if event.git_updated.action == pb.GIT_ACTION_COMMITTED]
    assert [git.message.splitlines()[0] for git in committed] == ["the first step", "the second step", "Add steps"]
    assert [(git.files_changed, git.additions) for git in committed] == [(1, 1), (1, 1), (1, 2)]
    branch = branch_of(events)
    assert git(bare, "rev-list", "--reverse", f"main..{branch}").split() == [told.sha for told in committed]
    assert events[-1].turn_completed.commit == committed[-1].sha
    assert {"one", "two", "three"} <= set(pushed_files(bare, branch))
    await client.log(events[0].session_id)


async def test_with_nothing_left_to_commit_the_last_is_the_agent_s_own(client: Client, git_server: GitServer) -> None:
    bare = git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": recording(*({"run": line} for line in COMMITS))})
    events = await client.run(repository_url=f"{git_server.url}/acme/app.git", prompt="Add steps", provider="replay", model="r.jsonl")
    assert git(bare, "log", "-1", "--format=%B", branch_of(events)) == "the second step\n\nand why"
    assert git(bare, "rev-parse", branch_of(events)) == events[-1].turn_completed.commit
    assert events[-1].turn_completed.pushed


async def test_what_is_left_out_is_told(client: Client, git_server: GitServer) -> None:
    lines = ("mkfifo pipe", "git init -q nested", "git commit -q --amend --allow-empty -m 'another beginning'", "echo honest > honest")
    bare = git_server.create("acme/app", {"README.md": "# App\n", "r.jsonl": recording(*({"run": line} for line in lines))})
    events = await client.run(repository_url=f"{git_server.url}/acme/app.git", prompt="go", provider="replay", model="r.jsonl")
    (skipped,) = [event.git_updated for event in events if event.git_updated.action == pb.GIT_ACTION_SKIPPED]
    told = {(path.path, path.reason) for path in skipped.skipped}
    assert told == {("pipe", "NOT_A_FILE"), ("nested/.git", "GIT_DIRECTORY"), (".git", "COMMITS_NOT_KEPT")}
    assert skipped.skipped_count == 3
    assert pushed_files(bare, branch_of(events))["honest"] == "honest"
    assert git(bare, "rev-list", "--count", f"main..{branch_of(events)}") == "1"
