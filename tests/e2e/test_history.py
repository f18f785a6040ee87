"""What moves a session's head between turns, on a whole server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from prometheus_client import REGISTRY
from support.git_server import GitServer, git
from support.treadle import Client, branch_of, error_info, in_process, kinds, pushed_files, recording, settings_for

from server.api.event_codec import ProtobufEventCodec
from server.embedded.postgres_home import DatabaseUrls
from server.identity.local_user import TENANT, USER
from server.kernel.errors import HeadMoved, TurnActive
from server.kernel.history import NewSnapshot, Snapshot, SnapshotKind
from server.kernel.identity import Principal
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb

OWNER = Principal(TENANT, USER, "Local", "local@example.org")
FILES = {
    "a.txt": "one\n",
    "write.jsonl": recording({"write": "a.txt", "content": "two\n"}),
    "more.jsonl": recording({"write": "b.txt", "content": "three\n"}),
    "sleep.jsonl": recording({"run": ["sleep", "1000"]}),
}


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", FILES)


async def turn(client: Client, git_server: GitServer, model: str, session_id: str = "") -> list[event_pb2.Event]:
    where = {"session_id": session_id} if session_id else {"repository_url": f"{git_server.url}/acme/app.git"}
    return await client.run(prompt="go", provider="replay", model=model, **where)


def edited(data_dir: Path, head: str, path: str, content: bytes) -> str:
    """A commit in the session's mirror, over its head."""
    (mirror,) = (data_dir / "mirrors").glob("*.git")
    blob = git(mirror, "hash-object", "-w", "--stdin", stdin=content)
    listing = git(mirror, "ls-tree", head).splitlines()
    kept = [line for line in listing if not line.endswith(f"\t{path}")]
    tree = git(mirror, "mktree", stdin="\n".join([*kept, f"100644 blob {blob}\t{path}", ""]).encode())
    return git(mirror, "commit-tree", tree, "-p", head, "-m", "an edit")


async def edit(server: Any, session_id: str, head: str, commit: str) -> Snapshot:
    facts = [ProtobufEventCodec().git_updated("COMMITTED", repository="", sha=commit)]
    snapshot = NewSnapshot(SnapshotKind.EDIT, commit, head, "an edit")
    made: Snapshot = await server.notes.record(OWNER, session_id, head=head, snapshot=snapshot, facts=facts)
    return made


async def until_stored(server: Any, session_id: str) -> list[Snapshot]:
    """The history, newest first, once all of it is in the object store."""
    async with asyncio.timeout(20):
        while True:
            page = await server.stores.history.list(OWNER, session_id, page_size=100, page_token="")
            if all(each.stored for each in page.snapshots):
                return list(page.snapshots)
            await asyncio.sleep(0.02)


async def test_an_edit_between_turns_is_told_stored_and_gone_on_from(
    server: Any, client: Client, bare: Path, git_server: GitServer, server_data_dir: Path
) -> None:
    seen = await turn(client, git_server, "write.jsonl")
    session_id, head = seen[0].session_id, seen[-1].turn_completed.commit
    commit = await asyncio.to_thread(edited, server_data_dir, head, "a.txt", b"mine\n")
    made = await edit(server, session_id, head, commit)
    log = await client.log(session_id)
    assert kinds(log[len(seen) :]) == ["git_updated"]
    assert (log[-1].turn_id, log[-1].actor.kind, log[-1].actor.id) == ("", event_pb2.ACTOR_KIND_USER, USER)
    assert log[-1].event_id == f"{session_id}/edit/{commit}/1"
    with pytest.raises(HeadMoved):
        await edit(server, session_id, head, "0" * 40)
    await server.notes.note(OWNER, session_id, key="push/1", facts=[ProtobufEventCodec().git_updated("PUSHED", repository="", sha=commit)])
    history = await until_stored(server, session_id)
    assert [(each.number, each.kind, each.commit) for each in history] == [(2, made.kind, commit), (1, SnapshotKind.TURN, head)]
    assert [each.message.partition("\n")[0] for each in history] == ["an edit", "go"]
    await turn(client, git_server, "more.jsonl", session_id)
    files = pushed_files(bare, branch_of(seen))
    assert (files["a.txt"], files["b.txt"]) == ("mine", "three")
    log = await client.log(session_id)
    assert len({event.event_id for event in log}) == len(log)


async def test_while_a_turn_is_active_its_driver_alone_writes(
    server: Any, client: Client, bare: Path, git_server: GitServer, server_data_dir: Path
) -> None:
    stream = client.execute(prompt="go", provider="replay", model="sleep.jsonl", repository_url=f"{git_server.url}/acme/app.git")
    async for frame in stream:
        if any(event.HasField("tool_call") for event in frame.events.events):
            break
    session_id = (await client.call("ListSessions", pb.ListSessionsRequest())).sessions[0].session_id
    with pytest.raises(TurnActive):
        await edit(server, session_id, "", "0" * 40)
    with pytest.raises(TurnActive):
        await server.notes.note(OWNER, session_id, key="push/1", facts=[ProtobufEventCodec().git_updated("PUSHED", repository="")])
    await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))
    async for _ in stream:
        pass
    await client.log(session_id)


async def test_a_deleted_session_leaves_nothing_in_the_object_store(
    server: Any, client: Client, bare: Path, git_server: GitServer, server_data_dir: Path
) -> None:
    gone, kept = [(await turn(client, git_server, "write.jsonl"))[0].session_id for _ in range(2)]
    await until_stored(server, gone)

    def objects(session_id: str) -> list[Path]:
        return [path for path in (server_data_dir / "objects").rglob(f"{session_id}/*") if path.is_file()]

    assert objects(gone)
    await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=gone))
    async with asyncio.timeout(20):
        while objects(gone):
            await asyncio.sleep(0.02)
    assert objects(kept)


async def test_what_would_need_more_storage_than_a_tenant_has_does_not_begin(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, bare: Path
) -> None:
    async with in_process(settings_for(database, server_data_dir, git_server, storage_tenant_mib=1)) as (_, client):
        session_id = (await turn(client, git_server, "write.jsonl"))[0].session_id
        connection = await asyncpg.connect(database.owner)
        try:
            await connection.execute("UPDATE snapshots SET size = 1048576")
        finally:
            await connection.close()
        refusals = REGISTRY.get_sample_value("treadle_quota_refusals_total")
        for call in (
            turn(client, git_server, "write.jsonl"),
            turn(client, git_server, "write.jsonl", session_id),
            client.call("SendInput", pb.SendInputRequest(session_id=session_id, text="go")),
            client.call("ForkSession", pb.ForkSessionRequest(session_id=session_id)),
            client.call("RestoreSession", pb.RestoreSessionRequest(session_id=session_id, at="1")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert error_info(caught.value)[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_QUOTA")
        assert REGISTRY.get_sample_value("treadle_quota_refusals_total") == (refusals or 0) + 5
        assert len((await client.call("ListSessions", pb.ListSessionsRequest())).sessions) == 1
        # What is deleted counts no more.
        await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
        assert (await turn(client, git_server, "write.jsonl"))[-1].turn_completed.pushed
