"""`.treadle/setup`: what it makes is there before the agent, and made once for all sessions on the repository."""

from __future__ import annotations

from support.git_server import GitServer, git
from support.treadle import Client, recording

from treadle.session.v1 import event_pb2 as pb

SETUP = "#!/bin/sh\n# cache: lock.txt\n# keep: deps\necho installing; mkdir deps; cat lock.txt > deps/version\n"


def serve(git_server: GitServer, script: str) -> str:
    """A repository whose agent says what it finds; its URL."""
    files = {".treadle/setup": script, ".gitignore": "deps/\n", "lock.txt": "1\n", "r.jsonl": recording({"run": "cat deps/version"})}
    bare = git_server.create("acme/app", files)
    seed = git_server.root / "acme/app-seed"
    git(seed, "update-index", "--chmod=+x", ".treadle/setup")
    git(seed, "commit", "--quiet", "-m", "executable")
    git(seed, "push", "--quiet", str(bare), "HEAD:refs/heads/main")
    return f"{git_server.url}/acme/app.git"


async def results(client: Client, url: str) -> dict[str, pb.ToolResult]:
    """Of one session's turn, by call."""
    events = await client.run(repository_url=url, prompt="go", provider="replay", model="r.jsonl")
    assert events[-1].turn_completed.status == pb.TURN_STATUS_COMPLETED
    return {event.tool_result.call_id: event.tool_result for event in events if event.HasField("tool_result")}


async def test_it_runs_before_the_agent_and_once_for_all_sessions(client: Client, git_server: GitServer) -> None:
    url = serve(git_server, SETUP)
    for said in ("installing\n", "kept from an earlier turn\n"):
        told = await results(client, url)
        assert told["setup"].parts[0].text == said
        assert told["call-1"].parts[0].text == "1\n"


async def test_when_it_fails_the_agent_runs_all_the_same(client: Client, git_server: GitServer) -> None:
    url = serve(git_server, "#!/bin/sh\necho broken; exit 7\n")
    events = await client.run(repository_url=url, prompt="go", provider="replay", model="r.jsonl")
    (failure,) = [event.error for event in events if event.HasField("error")]
    assert (failure.code, failure.fatal) == ("SETUP_FAILED", False)
    assert failure.message.startswith(".treadle/setup failed with code 7")
    assert events[-1].turn_completed.status == pb.TURN_STATUS_COMPLETED
