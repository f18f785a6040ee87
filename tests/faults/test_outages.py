"""What Treadle stands on goes away for a while."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from prometheus_client import REGISTRY
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.treadle import Client, error_info, events_of, in_process, kinds, recording, settings_for

from server.db.credential_store import PostgresCredentialStore
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import StoreUnavailable
from server.kernel.ports.credential_store import Sealed
from treadle.account.v1 import credential_service_pb2 as credential_pb2
from treadle.account.v1 import credential_service_pb2_grpc as credential_pb2_grpc
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"


def cut_off() -> float:
    return REGISTRY.get_sample_value("treadle_calls_total", {"method": "Resume", "code": "RESOURCE_EXHAUSTED"}) or 0.0


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        steps = [step for n in range(60) for step in ({"say": f"m{n}"}, {"wait_ms": 20})]
        server.create("acme/app", {"README.md": "# App\n", "r.jsonl": recording(*steps, {"write": "x.txt", "content": "x\n"})})
        yield server


@pytest.fixture
async def treadle(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> AsyncIterator[tuple[Any, Client]]:
    async with in_process(
        settings_for(database, server_data_dir, git_server, write_timeout_seconds=2.0, snapshot_retry_seconds=0.2)
    ) as both:
        yield both


def request(git_server: GitServer) -> dict[str, str]:
    return {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}


async def test_all_connections_to_postgres_cut_again_and_again_in_mid_stream(
    treadle: tuple[Any, Client], database: DatabaseUrls, git_server: GitServer
) -> None:
    _, client = treadle
    admin = await asyncpg.connect(database.owner)
    cuts = 0
    try:
        seen: list[event_pb2.Event] = []
        stream = client.execute(request_id="one", **request(git_server))
        while not (seen and seen[-1].HasField("turn_completed")):
            try:
                async for frame in stream:
                    seen.extend(frame.events.events)
                    if cuts < 12 and any(event.attempt for event in frame.events.events):
                        cuts += bool(await admin.fetchval(KILL))
            except grpc.aio.AioRpcError as error:
                # A follower may be told to come again; it goes on behind its last event.
                assert error_info(error)[:2] == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
                stream = client.resume(seen[-1].session_id, seen[-1].seq)
    finally:
        await admin.close()
    assert cuts >= 5
    assert seen == await client.log(seen[0].session_id)
    assert [event.message.parts[0].text for event in seen if event.HasField("message")] == [f"m{n}" for n in range(60)]
    assert seen[-1].turn_completed.pushed


async def test_a_hiccup_of_postgres_while_a_token_is_looked_up_costs_a_turn_nothing(
    treadle: tuple[Any, Client], git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation looks twice at most, and every third look fails; and nobody can note that a token was used."""
    _, client = treadle
    url = f"{git_server.url}/acme/app.git"
    put = credential_pb2.PutCredentialRequest(host=f"{git_server.url}/", token="a-token-that-the-host-ignores")
    await credential_pb2_grpc.CredentialServiceStub(client.channel).PutCredential(put, metadata=client.metadata, timeout=20)
    made = await client.stub.CreateSession(pb.CreateSessionRequest(repository_url=url), metadata=client.metadata, timeout=20)
    find, looks = PostgresCredentialStore.find, itertools.count()

    async def hiccup(self: PostgresCredentialStore, *whose: str) -> Sealed | None:
        if next(looks) % 3 == 0:
            raise StoreUnavailable
        return await find(self, *whose)

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(PostgresCredentialStore, "find", hiccup)
    monkeypatch.setattr(PostgresCredentialStore, "used", away)
    events = await client.run(session_id=made.session.session_id, prompt="go", provider="replay", model="r.jsonl")
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True)
    assert "artifact_added" in kinds(events)
    assert next(looks) > 6  # a fetch and two pushes


async def test_without_an_object_store_the_turn_completes_and_says_that_the_snapshot_is_pending(
    treadle: tuple[Any, Client], git_server: GitServer, server_data_dir: Path, database: DatabaseUrls
) -> None:
    _, client = treadle
    objects = server_data_dir / "objects"
    objects.rename(server_data_dir / "away")
    objects.write_text("not a directory")
    events = await client.run(**request(git_server))
    end = events[-1].turn_completed
    assert (end.status, end.pushed) == (event_pb2.TURN_STATUS_COMPLETED, True)
    told = [event.error.code for event in events if event.HasField("error")]
    assert told == ["SNAPSHOT_PENDING"]
    assert "artifact_added" not in kinds(events)
    # It is tried again, and is there once the store is.
    objects.unlink()
    (server_data_dir / "away").rename(objects)
    connection = await asyncpg.connect(database.owner)
    try:
        async with asyncio.timeout(20):
            while (await connection.fetchval("SELECT snapshot_state FROM turns")) != "STORED":
                await asyncio.sleep(0.05)
    finally:
        await connection.close()
    assert len(list(objects.rglob("*.bundle"))) == 1


async def test_a_follower_that_does_not_read_is_cut_off_and_can_resume(
    treadle: tuple[Any, Client], git_server: GitServer, caplog: pytest.LogCaptureFixture
) -> None:
    _, client = treadle
    big = recording({"burst": 1500, "text": "x" * 20_000})
    git_server.create("acme/big", {"r.jsonl": big})
    whole = await client.run(**(request(git_server) | {"repository_url": f"{git_server.url}/acme/big.git"}))
    lazy = client.resume(whole[0].session_id)
    seen: list[event_pb2.Event] = []
    # Earlier tests in this process have been counted, too.
    before = cut_off()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for frame in lazy:
            if frame.events.events and not seen:
                # It reads no more until the server has given it up; what was under way by then is still delivered.
                async with asyncio.timeout(60):
                    while cut_off() == before:
                        await asyncio.sleep(0.05)
            seen.extend(frame.events.events)
    code, reason, metadata, _ = error_info(caught.value)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")
    assert int(metadata["after_seq"]) <= len(whole)
    seen += await events_of(client.resume(whole[0].session_id, seen[-1].seq))
    assert seen == whole
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_draining_server_ends_its_streams_with_a_hint_and_says_no_to_new_turns(
    treadle: tuple[Any, Client], git_server: GitServer
) -> None:
    server, client = treadle
    stream = client.execute(**request(git_server))
    seen: list[event_pb2.Event] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for frame in stream:
            seen.extend(frame.events.events)
            if any(event.attempt for event in seen):
                drained = asyncio.ensure_future(server.api.drain())
    await drained
    assert error_info(caught.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(client.resume(seen[0].session_id))
    assert error_info(caught.value)[1] == "SHUTTING_DOWN"
    # A server-sent stream that has not begun has no last message: only the status tells, and the gateway makes a plain refusal of it.
    call = client.channel.unary_stream("/treadle.session.v1.EventStreamService/StreamResume")
    request_bytes = pb.ResumeRequest(session_id=seen[0].session_id).SerializeToString()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(request_bytes, metadata=client.metadata, timeout=20).read()
    assert error_info(caught.value)[1] == "SHUTTING_DOWN"
    # Unary calls are still answered.
    assert (await client.call("GetSession", pb.GetSessionRequest(session_id=seen[0].session_id))).session.session_id


async def test_streams_whose_turn_has_ended_end_by_themselves_before_a_drain(treadle: tuple[Any, Client], git_server: GitServer) -> None:
    """As `treadle up` does it at Ctrl-C: turns are ended first, and whoever follows them shall see how."""
    server, client = treadle
    stream = client.execute(**request(git_server))
    session_id = (await anext(aiter(stream))).started.session_id
    others = [client.resume(session_id) for _ in range(20)]
    await asyncio.gather(*[anext(aiter(other)) for other in others])
    await server.supervisor.interrupt_all("the server was stopped", seconds=30)
    await server.api.finish(seconds=30)
    await server.api.drain()
    for each in (stream, *others):
        frames = [frame async for frame in each]
        assert frames[-1].HasField("closed")
