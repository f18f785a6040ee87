"""The main job, end to end."""

from __future__ import annotations

from support.git_server import GitServer, git
from support.treadle import Client, kinds, pushed_files, recording

from treadle.session.v1 import event_pb2

FILES = {"README.md": "# Sample\n", "src/app.py": "print('hello')\n"}


async def test_a_session_ends_with_the_agents_files_on_the_pushed_branch(client: Client, git_server: GitServer) -> None:
    steps = recording(
        {"say": "I will add a file."},
        {"write": "docs/notes.md", "content": "notes\n"},
        {"run": ["sh", "-c", "echo made-by-a-command > made.txt; cat made.txt"]},
        {"delete": "src/app.py"},
        {"say": "Done."},
    )
    bare = git_server.create("acme/app", FILES | {".treadle/recordings/job.jsonl": steps})
    events = await client.run(
        repository_url=f"{git_server.url}/acme/app.git",
        prompt="Add notes, please",
        provider="replay",
        model=".treadle/recordings/job.jsonl",
    )
    log = await client.log(events[0].session_id)
    assert log == events
    told = kinds(events)
    assert told[:3] == ["turn_started", "user_input", "session_updated"]
    assert told[-1] == "turn_completed"
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True), end
    actions = [event.git_updated.action for event in events if event.HasField("git_updated")]
    assert actions == [
        event_pb2.GIT_ACTION_CLONED,
        event_pb2.GIT_ACTION_BRANCHED,
        event_pb2.GIT_ACTION_COMMITTED,
        event_pb2.GIT_ACTION_PUSHED,
    ]
    branch = next(event.git_updated.branch for event in events if event.git_updated.action == event_pb2.GIT_ACTION_PUSHED)
    expected = {
        "README.md": "# Sample",
        ".treadle/recordings/job.jsonl": steps.rstrip("\n"),
        "docs/notes.md": "notes",
        "made.txt": "made-by-a-command",
    }
    assert pushed_files(bare, branch) == expected
    assert git(bare, "rev-parse", branch) == end.commit
    assert git(bare, "rev-parse", f"{branch}^") == git(bare, "rev-parse", "main")
    assert "made-by-a-command" in "".join(event.content_delta.data for event in events if event.HasField("content_delta"))
