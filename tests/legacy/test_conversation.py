"""The real Claude program goes on with a conversation that it had in the old system, in another directory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
from legacy.conftest import Move
from support.fake_anthropic import FakeAnthropic, fake_anthropic
from support.legacy_archives import SESSION, Old
from support.treadle import Client, in_process, settings_for

from server.db.transcripts import Packed, unpack
from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import session_service_pb2 as pb

pytestmark = pytest.mark.timeout(300)
pytest.importorskip("claude_agent_sdk")


@pytest.fixture
async def fake() -> AsyncIterator[FakeAnthropic]:
    async with fake_anthropic() as opened:
        yield opened


async def test_an_imported_conversation_is_remembered(move: Move, database: DatabaseUrls, fake: FakeAnthropic) -> None:
    models = {"anthropic_url": fake.url, "anthropic_api_key": "sk-ant-no-key-of-anybody", "naming": False}
    async with in_process(settings_for(database, move.settings.data_dir, move.git_server, **models)) as (_, client):
        first = await client.run(repository_url=move.url, prompt="[[script:bash cmd=echo+one]]", provider="claude")
        head, _, lines = (await transcript(database, first[0].session_id)).partition(b"\n")
        old_place = f"/tmp/session-{SESSION}/workspace/demo".encode()
        lines = lines.replace(b'"cwd":"/workspace"', b'"cwd":"' + old_place + b'"')
        assert old_place in lines
        move.put(Old("T1", url=move.url, conversation=json.loads(head)["session_id"], lines=lines))
        assert (await move.bring())[SESSION]["conversation"]

        assert await echoed(client, SESSION) == ["history: bash,echo"]
        assert await echoed(client, SESSION) == ["history: bash,echo,echo"]
        fork = await client.call("ForkSession", pb.ForkSessionRequest(session_id=SESSION, at="1"))
        assert await echoed(client, fork.session.session_id) == ["history: bash,echo"]


async def echoed(client: Client, session_id: str) -> list[str]:
    """What a turn of the session's own agent says of the conversation so far."""
    seen = await client.run(session_id=session_id, prompt="[[script:echo]]")
    assert seen[0].turn_started.provider == "claude"
    return [event.message.parts[0].text for event in seen if event.HasField("message") and event.message.parts]


async def transcript(database: DatabaseUrls, session_id: str) -> bytes:
    connection = await asyncpg.connect(database.system)
    try:
        row = await connection.fetchrow("SELECT data, size FROM transcripts WHERE session_id = $1 AND provider = 'claude'", session_id)
    finally:
        await connection.close()
    return unpack(Packed(row["data"], row["size"])) if row else b""
