"""The door to models: the server listens, the agent inside the sandbox can connect, and can do nothing else with it."""

from __future__ import annotations

import ast
import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.launchers import KINDS
from support.workers import Heard, assignment, launched, launcher_in, listen, new_worker, spec

from server.kernel.errors import WorkerLost
from server.kernel.ports.launcher import EgressDoor, ModelDoor
from server.sandbox.probe import Unavailable
from server.workers import process
from server.workers.local import LocalLauncher
from server.workers.slot import slot_of
from worker.__main__ import Config

ASK = """
import socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect(sys.argv[1])
door.sendall(b"hello")
print(door.recv(100).decode())
"""

TAMPER = """
import os, socket, sys
path, other = "/run/models/model.sock", sys.argv[1]
connect = lambda path: socket.socket(socket.AF_UNIX).connect(path)
for name, attack in {
    "unlink": lambda: os.unlink(path),
    "rename": lambda: os.rename(path, "/run/models/other"),
    "replace": lambda: os.replace("/workspace/script.py", path),
    "bind another": lambda: socket.socket(socket.AF_UNIX).bind("/run/models/mine.sock"),
    "write": lambda: open("/run/models/x", "w"),
    "chmod": lambda: os.chmod(path, 0o666),
    "open the directory": lambda: os.chmod("/run/models", 0o777),
    "link it away": lambda: os.link(path, "/workspace/kept"),
    "see another slot": lambda: os.listdir(other),
    "connect to another's": lambda: connect(other + "/models/model.sock"),
    "connect to another's network": lambda: connect(other + "/models/egress.sock"),
}.items():
    try:
        attack()
    except OSError as error:
        print(name, "refused")
    else:
        print(name, "DONE")
print(sorted(os.listdir("/run")), os.listdir("/run/models"))
"""


@asynccontextmanager
async def answering(door: ModelDoor | EgressDoor, word: str, heard: asyncio.Event | None = None) -> AsyncIterator[None]:
    """A server at the door, as the model gateway is one; `heard`, when somebody was answered."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{word} {(await reader.read(100)).decode()}".encode())
        await writer.drain()
        writer.close()
        if heard is not None:
            heard.set()

    door.socket.unlink(missing_ok=True)
    directory = os.open(door.socket.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The slot's path may be longer than a socket's address.
        path = f"/proc/self/fd/{directory}/{door.socket.name}"
        server = await asyncio.start_unix_server(answer, path)
        if door.owner:
            os.chown(path, *door.owner)
        Path(path).chmod(0o600)
    finally:
        os.close(directory)
    async with server:
        yield


def script(workspace: Path, text: str, *arguments: str) -> Sequence[str]:
    (workspace / "script.py").write_text(text)
    return ["python3", "script.py", *arguments]


def output(heard: Heard) -> list[str]:
    assert [code for code, _ in heard.outputs()] == [0] * len(heard.outputs()), heard.outputs()
    return [line for _, text in heard.outputs() for line in text.splitlines()]


async def test_the_agent_reaches_the_server_and_after_a_restart_the_next_one(launcher: LocalLauncher) -> None:
    ask = {"run": ["python3", "-c", ASK, "/run/models/model.sock"]}
    again = {"run": ["python3", "-c", f"{ASK}\nprint('again')", "/run/models/model.sock"]}
    async with launched(launcher, [ask, {"wait_ms": 500}, again]) as (worker, link, _):
        door = await launcher.models(worker)
        heard = asyncio.Event()
        async with answering(door, "first", heard):
            listening = asyncio.create_task(listen(link.execute(assignment(worker)), link))
            async with asyncio.timeout(20):
                await heard.wait()
        async with answering(door, "second"):
            assert output(await listening) == ["first hello", "second hello", "again"]


async def test_the_agent_can_neither_replace_the_socket_nor_see_anothers(launcher: LocalLauncher) -> None:
    async with launched(launcher) as (other, _, _):
        others = await launcher.models(other)
        run = {"run": ["python3", "script.py", str(others.socket.parents[1])]}
        async with launched(launcher, [run], lambda _, workspace: script(workspace, TAMPER)) as (worker, link, _):
            door, network = await launcher.models(worker), await launcher.egress(other)
            async with answering(door, "mine"), answering(others, "others"), answering(network, "network"):
                *attacks, listing = output(await listen(link.execute(assignment(worker)), link))
    assert len(attacks) == 11
    assert [attack for attack in attacks if not attack.endswith(" refused")] == []
    # Debian's /run/lock is in the images of containers; a carrier holds both doors always, and the secrets of a Swarm are root's.
    seen = listing.replace("'lock', ", "").replace(", 'secrets'", "").replace("'egress.sock', ", "")
    assert sorted(ast.literal_eval(seen.replace("] [", ", ").strip())) == ["model.sock", "models", "treadle"]


async def test_every_worker_has_a_token_of_its_own_which_it_derives_itself(launcher: LocalLauncher) -> None:
    first, second = new_worker(), new_worker()
    with pytest.raises(WorkerLost):
        await launcher.models(first)
    for worker in (first, second):
        await launcher.workspace(spec(worker))
        await launcher.furnished(worker)
    doors = [await launcher.models(worker) for worker in (first, second, first)]
    assert doors[0] == doors[2]
    assert len({door.token for door in doors}) == 2
    slot = slot_of(launcher._root, first)
    config = Config(slot.secret(), Path("s"), Path("m"), Path("w"), orphan_seconds=1, max_processes=0)
    assert (config.model_access.socket, config.model_access.token) == (Path("m"), doors[0].token)
    assert doors[0].token not in slot.path.joinpath("secret").read_text(), "the secret does not follow from it"


@pytest.mark.parametrize("launcher", KINDS, indirect=True)
async def test_the_directory_belongs_to_the_server(launcher: LocalLauncher) -> None:
    async with launched(launcher) as (worker, _, _):
        door = await launcher.models(worker)
        status = door.socket.parent.stat()
        assert (status.st_uid, status.st_mode & 0o777) == (os.geteuid(), 0o755)
        workers = slot_of(launcher._root, worker).user() or (10001, 10001)
        assert door.owner == (workers if os.geteuid() == 0 else None)
    assert not door.socket.parent.exists()


async def test_without_a_sandbox_the_path_is_short_enough_to_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    monkeypatch.setattr(process, "probe", lambda: Unavailable("none here", "get one"))
    ask = {"run": ["python3", "-c", ASK, "../models/model.sock"]}
    async with launcher_in(deep, unsandboxed=True) as launcher, launched(launcher, [ask]) as (worker, link, _):
        config = launcher._job(slot_of(launcher._root, worker))["config"]
        assert isinstance(config, dict)
        assert config["models"] == "../models/model.sock"
        door = await launcher.models(worker)
        assert door.owner is None
        async with answering(door, "short"):
            assert output(await listen(link.execute(assignment(worker)), link)) == ["short hello"]


ASK_PROXY = """
import os, socket, urllib.parse
names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
(proxy,) = {os.environ[name] for name in names}
place = urllib.parse.urlsplit(proxy)
with socket.create_connection((place.hostname, place.port)) as door:
    door.sendall(b"hello")
    print(place.hostname, door.recv(100).decode(), os.environ["NO_PROXY"])
"""


async def test_an_agent_whose_session_allows_hosts_finds_a_proxy_that_leads_to_the_server(launcher: LocalLauncher) -> None:
    ask = {"run": ["python3", "-c", ASK_PROXY]}
    async with launched(launcher, [ask]) as (worker, link, _), answering(await launcher.egress(worker), "network"):
        allowed = replace(assignment(worker), allowed_hosts=("a.test",))
        assert output(await listen(link.execute(allowed), link)) == ["127.0.0.1 network hello localhost,127.0.0.1,::1"]
