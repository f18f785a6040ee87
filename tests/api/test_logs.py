"""What the server's log says about calls and turns."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import structlog
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.treadle import Client, events_of, in_process, recording, settings_for

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from server.serve import logs
from server.telemetry import configure_logging


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        server.create("acme/app", {"README.md": "# App\n", "quick.jsonl": recording({"say": "hello"})})
        yield server


@pytest.fixture
async def client(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> AsyncIterator[Client]:
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        yield client


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    output = io.StringIO()
    configure_logging(log_format="json", level="debug", secrets=lambda: (), output=output)
    yield output
    structlog.reset_defaults()


async def test_lines_of_a_turn_carry_its_ids_and_nothing_of_the_call_that_started_it(
    log: io.StringIO, client: Client, git_server: GitServer
) -> None:
    good = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "quick.jsonl"}
    with pytest.raises(grpc.aio.AioRpcError):
        await events_of(client.execute(**(good | {"provider": "nobody"})))
    events = await client.run(**good)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (refused,) = [line for line in lines if line["event"] == "call.refused"]
    assert refused["method"] == "ExecuteSession"
    assert refused["call_id"]
    of_the_turn = [line for line in lines if line.get("turn_id") == events[0].turn_id]
    assert "turn.driven" in [line["event"] for line in of_the_turn]
    for line in of_the_turn:
        assert line["session_id"] == events[0].session_id
        assert not {"call_id", "method"} & set(line)


def test_secrets_of_the_environment_are_masked_in_logs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_API_KEY", "sk-hush-0123456789-0123456789")
    file = tmp_path / "server.log"
    with logs(Settings(data_dir=tmp_path, log_file=file, log_format="json")):
        structlog.get_logger().info("agent.said", text="it is sk-hush-0123456789-0123456789, they say")
    assert "hush" not in file.read_text()
    assert "they say" in file.read_text()
