"""`python -m server` as an operator sees it: logs, metrics, a drain on SIGTERM, and no secret anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import urllib.request
from pathlib import Path

import asyncpg
import grpc
from pydantic import SecretStr
from support.git_server import GitServer, git
from support.treadle import Client, connected, error_info, events_of, in_process, recording, settings_for
from support.tree import contents

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2

CANARY = "canary-9f31c2d4e5b60718293a4b5c6d7e8f90"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def start(settings: Settings, log: Path, **environment: str) -> asyncio.subprocess.Process:
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    environ = {f"TREADLE_{k.upper()}": v.get_secret_value() if isinstance(v, SecretStr) else str(v) for k, v in values.items()}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server", env={"PATH": os.environ["PATH"]} | environ | environment, stdout=output, stderr=output
        )
    async with asyncio.timeout(30):
        async with grpc.aio.insecure_channel(settings.listen) as channel:
            await channel.channel_ready()
    return process


def entries(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


async def key_for(settings: Settings) -> str:
    """The embedded default makes a key at its start; here an operator has done so before."""
    async with in_process(settings.model_copy(update={"listen": "127.0.0.1:0", "metrics_listen": ""})) as (_, client):
        return client.key


async def _page(metrics: str) -> str:
    return await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10).read().decode())


async def test_logs_metrics_drain_and_adoption(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, tmp_path: Path
) -> None:
    steps = [step for n in range(30) for step in ({"say": f"m{n}"}, {"wait_ms": 50})]
    git_server.create("acme/app", {"r.jsonl": recording(*steps, {"write": "x", "content": "x\n"})})
    listen, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = settings_for(database, server_data_dir, git_server, listen=listen, metrics_listen=metrics, log_format="json")
    key, log = await key_for(settings), tmp_path / "server.log"

    process = await start(settings, log)
    seen: list[event_pb2.Event] = []
    try:
        async with connected(listen, key) as client:
            stream = client.execute(repository_url=f"{git_server.url}/acme/app.git", prompt="go", provider="replay", model="r.jsonl")
            try:
                async for frame in stream:
                    seen.extend(frame.events.events)
                    if any(event.attempt for event in seen) and process.returncode is None:
                        process.terminate()
            except grpc.aio.AioRpcError as error:
                assert error_info(error)[:2] == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        async with asyncio.timeout(30):
            assert await process.wait() == 0
        pids = [int(path.read_text().split()[0]) for path in server_data_dir.glob("workers/*/pid")]
        assert len(pids) == 1
        os.kill(pids[0], 0)  # the worker lives on

        process = await start(settings, log)
        async with connected(listen, key) as client:
            seen += await events_of(client.resume(seen[-1].session_id, seen[-1].seq))
            assert seen == await client.log(seen[0].session_id)
        page = await _page(metrics)
        async with asyncio.timeout(30):
            # The terminal event is told before the worker's files are gone, and the turn with them.
            while "treadle_turns_active 0.0" not in page:
                page = await _page(metrics)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert seen[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED
    phases = [event.worker_updated.phase for event in seen if event.HasField("worker_updated")]
    assert event_pb2.WORKER_PHASE_ADOPTED in phases
    assert 'treadle_calls_total{code="OK",method="Resume"}' in page
    assert 'treadle_step_seconds_count{step="push"} 1.0' in page
    ended = next(entry for entry in entries(log) if entry["event"] == "turn.ended")
    assert (ended["session_id"], ended["turn_id"]) == (seen[0].session_id, seen[0].turn_id)


async def test_no_secret_of_the_server_is_anywhere(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, tmp_path: Path
) -> None:
    half = len(CANARY) // 2
    steps = recording(
        {"run": ["sh", "-c", "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; ls -la / /run/treadle; exit 0"]},
        {
            "run": [
                "sh",
                "-c",
                f"printf %s%s {CANARY[:half]} {CANARY[half:]}; printf %s {CANARY[:half]}; sleep 0.3; printf '%s\\n' {CANARY[half:]}",
            ]
        },
        {"write": "honest.txt", "content": "honest\n"},
    )
    bare = git_server.create("acme/app", {"r.jsonl": steps})
    listen, log = f"127.0.0.1:{free_port()}", tmp_path / "server.log"
    settings = settings_for(database, server_data_dir, git_server, listen=listen, log_format="json", log_level="debug")
    key = await key_for(settings)
    process = await start(settings, log, ANTHROPIC_API_KEY=CANARY)
    try:
        async with connected(listen, key) as client:
            events = await _run(client, git_server)
    finally:
        process.terminate()
        await process.wait()
    assert events[-1].turn_completed.pushed
    places = {
        "stream": b"".join(event.SerializeToString() for event in events),
        "log": log.read_bytes(),
        "git": git(bare, "log", "--all", "-p", "--format=%B").encode("utf-8", "surrogateescape"),
        "database": await _dump(database.owner),
    }
    key_file = server_data_dir / "api-key"
    places |= {str(path): content for path, content in contents(server_data_dir) if path != key_file}
    for place, content in places.items():
        for secret in (CANARY, key):
            assert secret.encode() not in content, f"{secret[:6]}… is in {place}"
    shown = "".join(event.content_delta.data for event in events if event.HasField("content_delta"))
    assert CANARY not in shown
    assert "honest.txt" in {change.path for event in events for change in event.file_changed.changes}


async def _run(client: Client, git_server: GitServer) -> list[event_pb2.Event]:
    return await client.run(repository_url=f"{git_server.url}/acme/app.git", prompt="go", provider="replay", model="r.jsonl")


async def _dump(url: str) -> bytes:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [await connection.fetch(f'SELECT * FROM "{table["tablename"]}"') for table in tables]
        return b"\n".join(
            value if isinstance(value, bytes) else str(value).encode() for found in rows for row in found for value in row.values()
        )
    finally:
        await connection.close()
