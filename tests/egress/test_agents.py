"""Real agents in a session that allows a host: what they run gets out, and they themselves still talk to their model's door."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.egress import PUBLIC, Internet, free_port
from support.fake_anthropic import fake_anthropic, say, use
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.sandbox import require_sandbox
from support.treadle import in_process, settings_for

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2

pytestmark = pytest.mark.timeout(300)
PORT = free_port(PUBLIC)
GET = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="ca.pem")
with urllib.request.urlopen(sys.argv[1], context=context, timeout=20) as answer:
    print(answer.read().decode())
"""


@pytest.fixture
def repositories(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        yield server


@pytest.mark.parametrize(("provider", "tool"), [("claude", "Bash"), ("anthropic", "bash")])
async def test_what_an_agent_runs_gets_out_and_the_agent_asks_its_model(
    provider: str, tool: str, database: DatabaseUrls, server_data_dir: Path, repositories: GitServer, net: Internet
) -> None:
    require_sandbox()
    if importlib.util.find_spec({"claude": "claude_agent_sdk"}.get(provider, provider)) is None:
        pytest.skip(f"{provider} is not installed")

    async def answer(reader, writer):  # type: ignore[no-untyped-def]
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\nconnection: close\r\n\r\nit came through")
        await writer.drain()
        writer.close()

    name = f"{provider}.egress.test"
    await net.host(name, port=PORT, address={"claude": "127.77.0.5"}.get(provider, "127.77.0.6"), answer=answer)
    repositories.create("acme/app", {"ca.pem": net.ca.read_text(), "get.py": GET})
    async with fake_anthropic() as fake:
        mark = fake.plays("get", [use(tool, command=f"python3 get.py https://{name}:{PORT}/")], [say("Done.")])
        models = {"anthropic_url": fake.url, "anthropic_api_key": "sk-ant-canary-7f3a9Q9vL2xYw8end", "naming": False}
        settings = settings_for(
            database, server_data_dir, repositories, egress_hosts=f"*.egress.test:{PORT}", turn_timeout_seconds=60, **models, **net.settings
        )
        async with in_process(settings) as (_, client):
            events = await client.run(
                repository_url=f"{repositories.url}/acme/app.git", prompt=mark, provider=provider, allowed_hosts=[f"{name}:{PORT}"]
            )
    assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED, events[-1]
    results = [part.text for event in events if event.HasField("tool_result") for part in event.tool_result.parts]
    assert "it came through" in "".join(results)
    assert {event.network_access.host for event in events if event.HasField("network_access")} == {name}, (
        "the agent itself asks for nothing"
    )
    assert any(f"it leads to {name}:{PORT}, and to nothing else" in str(each.body["system"]) for each in fake.messages), "the model knows"
