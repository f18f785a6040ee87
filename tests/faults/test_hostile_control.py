"""A worker that does not let itself be stopped is stopped all the same."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.treadle import in_process, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from server.workers import process
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

SILENT = "await asyncio.sleep(3600)"
HANGS_UP = "self._newest_stream += 1; self._spool.wake(); await asyncio.sleep(3600)"
"""Ends its stream without a result while the call is under way: the server connects anew, which cancels the call."""


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        server.create("acme/app", {"r.jsonl": recording({"burst": 100_000, "text": "x", "per_second": 20})})
        yield server


def hostile(control: str) -> list[str]:
    """A worker whose answer to Control is this."""
    source = f"""
        import asyncio
        from worker import service, __main__
        async def control(self, request, context):
            await self._check(context)
            {control}
        service.WorkerService.control = control
        __main__.main()
    """
    return [sys.executable, "-I", "-B", "-c", textwrap.dedent(source)]


@pytest.mark.parametrize("control", [SILENT, HANGS_UP])
@pytest.mark.parametrize(("limit", "status"), [(3600.0, event_pb2.TURN_STATUS_INTERRUPTED), (3.0, event_pb2.TURN_STATUS_FAILED)])
async def test_an_interrupt_and_the_time_limit_hold(
    database: DatabaseUrls,
    server_data_dir: Path,
    git_server: GitServer,
    monkeypatch: pytest.MonkeyPatch,
    control: str,
    limit: float,
    status: event_pb2.TurnStatus,
) -> None:
    monkeypatch.setattr(process, "_WORKER", hostile(control))
    async with in_process(settings_for(database, server_data_dir, git_server, turn_timeout_seconds=limit)) as (_, client):
        stream = client.execute(repository_url=f"{git_server.url}/acme/app.git", prompt="go", provider="replay", model="r.jsonl")
        events: list[event_pb2.Event] = []
        asked = False
        async for frame in stream:
            events.extend(frame.events.events)
            if not asked and limit > 60 and any(event.HasField("content_delta") for event in events):
                asked = True
                await client.call("Interrupt", pb.InterruptRequest(session_id=events[0].session_id))
        # The stream's own time limit (100 s) is far behind: 5 s for the call, 5 s of grace.
        assert events[-1].turn_completed.status == status


async def test_an_agent_that_never_stops_talking_is_stopped(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.kernel.supervisor.work.MAX_TURN_BYTES", 1024 * 1024)
    git_server.create("acme/loud", {"r.jsonl": recording({"write": "kept.txt", "content": "x"}, {"burst": 100_000, "text": "x" * 200})})
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        events = await client.run(repository_url=f"{git_server.url}/acme/loud.git", prompt="go", provider="replay", model="r.jsonl")
    end = events[-1].turn_completed
    assert (end.status, end.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_PROTOCOL)
    assert end.pushed, "what it had written is published"
    assert sum(event.ByteSize() for event in events) < 2.5 * 1024 * 1024
