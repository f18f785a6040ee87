"""A private repository with a stored token, from the first look to the push; and where the token must never be."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
import structlog
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.treadle import Client, branch_of, error_info, in_process, kinds, pushed_files, recording, settings_for
from support.tree import contents

from server.embedded.postgres_home import DatabaseUrls
from server.telemetry import configure_logging
from treadle.account.v1 import credential_service_pb2 as pb
from treadle.account.v1 import credential_service_pb2_grpc
from treadle.session.v1 import event_pb2

TOKEN = "ghp_canary_5d0f17c2"


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host", token=TOKEN) as server:
        server.create("acme/private", {"README.md": "# Private\n", "quick.jsonl": recording({"write": "made.txt", "content": "made\n"})})
        yield server


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    output = io.StringIO()
    configure_logging(log_format="json", level="debug", secrets=lambda: (), output=output)
    yield output
    structlog.reset_defaults()


@pytest.fixture
async def client(log: io.StringIO, database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> AsyncIterator[Client]:
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        yield client


async def call(client: Client, method: str, request: Any) -> Any:
    stub = credential_service_pb2_grpc.CredentialServiceStub(client.channel)
    return await getattr(stub, method)(request, metadata=client.metadata, timeout=20)


async def everything_in(database: DatabaseUrls) -> bytes:
    """All rows of all tables, as text."""
    connection = await asyncpg.connect(database.owner)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [str([*row.values()]) for table in tables for row in await connection.fetch(f'SELECT * FROM "{table[0]}"')]
        return "\n".join(rows).encode()
    finally:
        await connection.close()


async def test_a_private_repository_is_worked_on_with_a_stored_token_which_is_seen_nowhere(
    client: Client, git_server: GitServer, database: DatabaseUrls, server_data_dir: Path, log: io.StringIO
) -> None:
    wanted = {"repository_url": f"{git_server.url}/acme/private.git", "prompt": "go", "provider": "replay", "model": "quick.jsonl"}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.run(**wanted)
    assert error_info(refused.value)[1] == "REPOSITORY_UNREACHABLE"

    stored = (await call(client, "PutCredential", pb.PutCredentialRequest(host=f"{git_server.url}/", token=TOKEN))).credential
    listed = (await call(client, "ListCredentials", pb.ListCredentialsRequest())).credentials
    assert [each.credential_id for each in listed] == [stored.credential_id]
    assert TOKEN not in str(listed)

    events = await client.run(**wanted)
    assert events[-1].turn_completed.pushed, kinds(events)
    assert pushed_files(git_server.root / "acme/private.git", branch_of(events))["made.txt"] == "made"
    whole = b"".join(event.SerializeToString() for event in await client.log(events[0].session_id))
    assert TOKEN.encode() not in whole + await everything_in(database)
    assert TOKEN not in log.getvalue()
    for file, content in contents(server_data_dir):
        assert TOKEN.encode() not in content, file

    await call(client, "DeleteCredential", pb.DeleteCredentialRequest(credential_id=stored.credential_id))
    session_id = events[0].session_id
    events = await client.run(session_id=session_id, prompt="again", model="quick.jsonl")
    assert events[-1].turn_completed.code == event_pb2.TURN_CODE_REPOSITORY


async def command(client: Client, *words: str, stdin: str = "") -> tuple[int, str]:
    """Its exit code, and all that it says."""
    environment = os.environ | {"TREADLE_ADDRESS": client.address, "TREADLE_API_KEY": client.key}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.cli", *words, env=environment,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(30):
        said, _ = await process.communicate(stdin.encode())
    assert TOKEN not in said.decode()
    return process.returncode or 0, said.decode()


async def test_the_command_takes_the_token_from_standard_input(client: Client, git_server: GitServer) -> None:
    host = f"{git_server.url}/"
    code, said = await command(client, "credential", "add", git_server.url, "--username", "ada", stdin=f"{TOKEN}\n")
    assert (code, host in said, "ada" in said, "in place" in said) == (0, True, True, False), said
    code, said = await command(client, "credential", "add", f"{host}acme/private.git", stdin=f"{TOKEN}\n")
    assert (code, "in place of the one" in said, "never used" in said) == (0, True, True), said
    assert host in (await command(client, "credential", "list"))[1]
    assert (await command(client, "credential", "add", host))[0] == 2
    code, said = await command(client, "credential", "remove", host)
    assert (code, said) == (0, f"removed; {host} still knows the token: revoke it there\n")
    code, said = await command(client, "credential", "list")
    assert (code, "credential add HOST" in said) == (0, True), said
    assert (await command(client, "credential", "remove", host))[0] == 2


async def test_who_may_not_read_or_push_is_told_which_and_what_to_type(client: Client, git_server: GitServer) -> None:
    host, url = f"{git_server.url}/", f"{git_server.url}/acme/private.git"
    wanted = ("run", "--repo", url, "--provider", "replay", "--model", "quick.jsonl", "go")
    code, said = await command(client, *wanted)
    assert (code, f"you have stored no credential for {host}" in said) == (2, True), said
    assert re.search(rf"store a token: \S*treadle credential add {host}$", said, re.MULTILINE), said
    await command(client, "credential", "add", host, stdin="ghp_of_somebody_else\n")
    code, said = await command(client, *wanted)
    assert (code, f"{host} does not let the credential in" in said) == (2, True), said
    assert re.search(rf"store another token: \S*treadle credential add {host}$", said, re.MULTILINE), said
    await command(client, "credential", "add", host, stdin=f"{TOKEN}\n")
    git_server.answers["git-receive-pack"] = HTTPStatus.FORBIDDEN
    code, said = await command(client, *wanted)
    assert (code, f"credential add {url}" in said, "the commit is kept" in said) == (1, True, False), said
    again = re.search(r"run --session (\S+) REQUEST", said)
    assert again is not None, said
    code, said = await command(client, "push", again[1])
    assert (code, "no commit" in said, f"run --session {again[1]} REQUEST" in said) == (2, True, True), said
    git_server.answers.clear()
    code, said = await command(client, "run", "--session", again[1], "--model", "quick.jsonl", "go")
    assert (code, "(pushed)" in said) == (0, True), said
