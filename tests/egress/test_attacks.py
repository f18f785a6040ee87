"""A hostile agent at the door to the network, in a real turn of each launcher: it gets to the hosts that are allowed, and no further."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support import door_attacks
from support.containers import no_containers_left, socket_for, spawner_process, spawner_settings
from support.door_attacks import ATTACKS, CONTROLS, Told
from support.egress import PRIVATE, PUBLIC, Internet, free_port
from support.git_server import git_server as serving
from support.launchers import ALL_KINDS
from support.model_script import files
from support.sandbox import require_sandbox
from support.seal import record
from support.swarm import swarm_spawning
from support.treadle import in_process, settings_for
from support.workers import eventually

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import session_service_pb2

pytestmark = pytest.mark.timeout(300)
SCRIPT = Path(door_attacks.__file__)
WAIT = {"run": "while [ ! -e go ]; do sleep 0.1; done"}


@pytest.fixture(params=ALL_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def evil(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"EVIL")
    writer.close()


async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says what it heard, once nothing more comes."""
    heard = b""
    with suppress(TimeoutError):
        while piece := await asyncio.wait_for(reader.read(65536), 0.5):
            heard += piece
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nheard " + heard)
    writer.close()


async def populated(net: Internet, kind: str) -> Told:
    """Hosts and names of a test of its own."""
    port, wild = free_port(PUBLIC), f"{kind}.attack.test"
    told = Told(port, f"allowed.{wild}", f"plain.{wild}", wild, f"evil.{kind}.test", PRIVATE, "", net.proxy)
    await net.host(told.allowed, port=port)
    await net.host(told.plain, address="127.77.0.2", port=port, answer=plain, tls=False)
    await net.host(told.evil, address=PRIVATE, port=port, answer=evil, tls=False)
    net.names.say(f"private.{wild}", [PRIVATE])
    net.names.say(f"mixed.{wild}", [PUBLIC, PRIVATE])
    net.names.say(f"mapped.{wild}", ["::ffff:169.254.169.254"])
    net.names.say(f"rebinding.{wild}", [PUBLIC], [PRIVATE])
    return told


@asynccontextmanager
async def launcher_settings(kind: str, data: Path, log: Path) -> AsyncIterator[dict[str, Any]]:
    """For a server with this launcher, and what it needs beside it."""
    if kind == "process":
        require_sandbox()
        yield {}
        return
    data.mkdir(mode=0o700)
    if kind == "swarm":
        async with swarm_spawning(data, worker_memory_mib=256):
            yield {"launcher": "swarm", "spawner_socket": socket_for(data)}
        return
    spawner = spawner_settings(data, worker_memory_mib=256)
    with no_containers_left(spawner.slots_dir):
        async with spawner_process(spawner, log):
            yield {"launcher": "docker", "spawner_socket": socket_for(data), "worker_memory_mib": 256}


async def test_nothing_but_what_is_allowed_is_reached(
    kind: str, database: DatabaseUrls, server_data_dir: Path, net: Internet, tmp_path: Path
) -> None:
    told = await populated(net, kind)
    hosts = [f"{told.allowed}:{told.port}", f"{told.plain}:{told.port}", f"*.{told.wild}:{told.port}"]
    async with AsyncExitStack() as stack:
        repositories = stack.enter_context(serving(tmp_path / "host"))
        given = await stack.enter_async_context(launcher_settings(kind, server_data_dir, tmp_path / "spawner.log"))
        settings = settings_for(database, server_data_dir, repositories, egress_hosts=f"*.{told.wild}:{told.port}", **given, **net.settings)
        _, client = await stack.enter_async_context(in_process(settings))

        def asked(name: str, *steps: dict[str, Any], **more: str) -> dict[str, Any]:
            repositories.create(f"acme/{name}", files(*steps) | more)
            url = f"{repositories.url}/acme/{name}.git"
            return {"repository_url": url, "prompt": "go", "provider": "replay", "model": "r.jsonl", "allowed_hosts": hosts}

        # Another turn, with a door of its own.
        other = asyncio.create_task(client.run(**asked("other", WAIT)))
        stack.callback(other.cancel)
        doors: list[Path] = []
        await eventually(lambda: doors.extend(server_data_dir.glob("workers/*/models/egress.sock")) or doors, limit=60)
        there = json.dumps(asdict(told) | {"other": str(doors[0].parent)})
        run = {"run": ["python3", "attacks.py", "told.json"]}
        events = await client.run(**asked("attacker", run, **{"attacks.py": SCRIPT.read_text(), "told.json": there}))
        (output,) = ["".join(part.text for part in each.tool_result.parts) for each in events if each.tool_result.HasField("exit_code")]
        outcomes = json.loads(output)
        sessions = (await client.call("ListSessions", session_service_pb2.ListSessionsRequest())).sessions
        for session in sessions:
            if session.active_turn_id:
                await client.call("Interrupt", session_service_pb2.InterruptRequest(session_id=session.session_id))
        await other
    found = {attack: outcomes[attack] for attack in ATTACKS}
    record(f"door of {kind}", found)
    assert {deed: outcomes[deed] for deed in CONTROLS} == dict.fromkeys(CONTROLS, "DONE")
    assert found == {attack: wanted for attack, (_, wanted) in ATTACKS.items()}
