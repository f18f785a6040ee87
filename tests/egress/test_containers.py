"""Sessions that allow hosts, and sessions that do not, in containers: those that a turn starts, and those that waited for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.containers import base_with_node, no_containers_left, socket_for, spawner_process, spawner_settings, worker_image
from support.egress import PUBLIC, Internet, free_port
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.model_script import files
from support.packages import index, registry, site
from support.treadle import Client, in_process, settings_for
from support.workers import eventually

from server.embedded.postgres_home import DatabaseUrls
from server.workers.pool import PREFIX
from server.workers.slot import slots
from treadle.session.v1 import event_pb2 as pb

pytestmark = pytest.mark.timeout(300)
PORT = free_port(PUBLIC)
INDEX, REGISTRY = f"index.container.test:{PORT}", f"registry.container.test:{PORT}"
PIP = "/tmp/venv/bin/pip --no-cache-dir --disable-pip-version-check install --cert ca.pem"
INSTALL = [
    {"run": f"python3 -m venv /tmp/venv && {PIP} --index-url https://{INDEX}/simple parcel && /tmp/venv/bin/python -c 'import parcel'"},
    {"run": f"npm ci --no-audit --no-fund --cafile ca.pem --registry https://{REGISTRY} && node -e \"require('parcel')\""},
    {"run": "jq --version"},
]
LOOK = [
    {"run": "env | grep -i proxy; ls /run/models; cat /proc/net/tcp* | grep ' 0A '; echo looked"},
    {"run": f"{PIP} --retries 0 --index-url https://{INDEX}/simple parcel"},
]


@pytest.fixture
def repositories(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        yield server


@pytest.fixture(params=["", "replay=1"], ids=["cold", "pooled"])
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def client(
    pool: str, database: DatabaseUrls, server_data_dir: Path, repositories: GitServer, net: Internet, tmp_path: Path
) -> AsyncIterator[Client]:
    server_data_dir.mkdir(mode=0o700)
    image = worker_image("replay", base=base_with_node(), packages="jq")
    spawner = spawner_settings(server_data_dir, worker_image=image, worker_memory_mib=512)
    given = {"launcher": "docker", "spawner_socket": socket_for(server_data_dir), "worker_memory_mib": 512, "worker_pool": pool}
    settings = settings_for(database, server_data_dir, repositories, egress_hosts=f"*.container.test:{PORT}", **given, **net.settings)
    with no_containers_left(spawner.slots_dir):
        async with spawner_process(spawner, tmp_path / "spawner.log"), in_process(settings) as (_, opened):
            yield opened


def outputs(events: list[pb.Event]) -> list[str]:
    """Of each command."""
    return ["".join(part.text for part in event.tool_result.parts) for event in events if event.tool_result.HasField("exit_code")]


def accesses(events: list[pb.Event]) -> list[pb.NetworkAccess]:
    return [event.network_access for event in events if event.HasField("network_access")]


async def test_pip_and_npm_install_what_is_allowed_and_a_session_that_allows_nothing_has_no_way_out(
    client: Client, pool: str, server_data_dir: Path, repositories: GitServer, net: Internet
) -> None:
    network = "127.77.2" if pool else "127.77.1"
    await net.host("index.container.test", address=f"{network}.1", port=PORT, answer=site(index()))
    pages, project = registry(f"https://{REGISTRY}")
    await net.host("registry.container.test", address=f"{network}.2", port=PORT, answer=site(pages))

    root = server_data_dir / "workers"

    async def turn(steps: list[dict[str, str]], hosts: list[str]) -> list[pb.Event]:
        if pool:
            await eventually(lambda: any(slot.path.name.startswith(PREFIX) and slot.is_ready for slot in slots(root)), 60)
        name = f"acme/{len(hosts)}"
        repositories.create(name, {**project, "ca.pem": net.ca.read_text(), **files(*steps)})
        asked = {"repository_url": f"{repositories.url}/{name}.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}
        events = await client.run(**asked, allowed_hosts=hosts)
        started = next(event.worker_updated for event in events if event.HasField("worker_updated"))
        assert started.launcher == "docker"
        return events

    installed = await turn(INSTALL, [INDEX, REGISTRY])
    pip, npm, jq = outputs(installed)
    assert pip.endswith("it came through\n"), pip
    assert npm.endswith("it came through npm\n"), npm
    assert jq.startswith("jq-")
    refused = [each for each in accesses(installed) if each.decision != pb.NETWORK_DECISION_ALLOWED]
    # npm may open a tunnel ahead, and leave it when another one had the answer.
    assert {each.reason for each in refused} <= {"NOT_TLS"}, refused
    allowed = {each.host for each in accesses(installed) if each not in refused}
    assert allowed == {name.partition(":")[0] for name in (INDEX, REGISTRY)}, accesses(installed)
    looked = await turn(LOOK, [])
    seen, pip = outputs(looked)
    assert seen == "looked\n", "no variable, no door, no listener"
    assert "it came through" not in pip
    assert accesses(looked) == []
