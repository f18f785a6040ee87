"""A repository that was allowed when its turn began, and is not when the work is to be pushed."""

from __future__ import annotations

from pathlib import Path

from support.git_server import GitServer
from support.treadle import in_process, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2


async def test_the_work_is_kept_and_the_refusal_told(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> None:
    steps = [{"write": "x", "content": "x\n"}, {"run": "while [ ! -e go ]; do sleep 0.02; done; rm go"}]
    git_server.create("acme/app", {"r.jsonl": recording(*steps)})
    request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        async for frame in client.execute(**request):
            if any(event.HasField("file_changed") for event in frame.events.events):
                session = frame.events.events[0].session_id
                break
    async with in_process(settings_for(database, server_data_dir, git_server, git_allowed_prefixes="")) as (_, client):
        for workspace in server_data_dir.glob("workers/*/workspace"):
            (workspace / "go").touch()
        async for frame in client.resume(session):
            if any(event.HasField("turn_completed") for event in frame.events.events):
                break
        events = await client.log(session)
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, False)
    (refused,) = [event.git_updated for event in events if event.git_updated.action == event_pb2.GIT_ACTION_PUSH_FAILED]
    assert "TREADLE_GIT_ALLOWED_PREFIXES" in refused.message
