"""A hostile agent in a real worker of each launcher: everything that it tries fails, for the reason for which it should."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support import attacks
from support.attacks import ATTACKS, CONTROLS, OUTSIDE, Planted
from support.containers import socket_for
from support.launchers import ALL_KINDS, opened
from support.seal import POOLED, expected, record
from support.workers import assignment, eventually, launched, listen

from server.kernel.ports.launcher import WorkerId
from server.workers.local import LocalLauncher
from server.workers.slot import slot_of, slots

pytestmark = pytest.mark.timeout(300)
SCRIPT = Path(attacks.__file__)
TOLD = "planted.json"
JOIN_SESSION_KEYRING, SESSION_KEYRING = 1, -3


@contextmanager
def planted_in(data: Path, slot: Path) -> Iterator[Planted]:
    """Targets that are really there: a file, a process, a key, and listeners, each reachable by anybody who can see it."""
    key = secrets.token_hex(32)
    canary = data / "identity.key"
    canary.write_text(key)
    canary.chmod(0o644)
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("ANTHROPIC_API_KEY", key)
        attacks.system_call("keyctl", JOIN_SESSION_KEYRING, None)
        attacks.system_call("add_key", b"user", key[:16].encode(), b"canary", 6, SESSION_KEYRING)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        path, abstract = str(data / "host.sock"), f"treadle-test-{os.getpid()}-{data.name}"
        spawner = socket_for(data)
        # Where the launcher needs none, something else listens there.
        for address in (path, "\0" + abstract, *([] if spawner.exists() else [str(spawner)])):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(address)
            listening.listen()
            if address == str(spawner):
                stack.callback(spawner.unlink)
        Path(path).chmod(0o666)
        door = slot.parent / "models"
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        with at(door) as place:
            listening.bind(f"{place}/egress.sock")
        (door / "egress.sock").chmod(0o666)
        listening.listen()
        yield Planted(
            str(canary), str(slot), str(door), os.getpid(), tcp.getsockname()[1], path, abstract, str(spawner), key[:16], (key[::-1],)
        )


@contextmanager
def at(folder: Path) -> Iterator[str]:
    """A short path to it."""
    descriptor = os.open(folder, os.O_PATH)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def tell(place: Path, planted: Planted, *more: str) -> None:
    told = {name: value for name, value in asdict(planted).items() if name != "parent"}
    place.write_text(json.dumps(told | {"secrets": [*planted.secrets, *more]}))


@pytest.fixture(scope="module", params=[*ALL_KINDS, POOLED])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def outcomes(kind: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    data = tmp_path_factory.mktemp("data")
    data.chmod(0o755)
    pool = {"worker_pool": "replay=2"} if kind == POOLED else {}
    async with opened("docker" if pool else kind, data, worker_memory_mib=1024, **pool) as launcher:
        ready: set[str] = set()
        if pool:
            await eventually(lambda: sum(slot.is_ready for slot in slots(launcher._root)) == 2, limit=60)
            ready = {slot.container() for slot in slots(launcher._root)}
        async with launched(launcher) as (_, _, other):
            with planted_in(data, other) as planted:
                told = await attacked(launcher, planted, data, kind, ready)
    record(kind, {attack: told[attack] for attack in ATTACKS})
    yield told


async def attacked(launcher: LocalLauncher, planted: Planted, data: Path, kind: str, ready: set[str]) -> dict[str, Any]:
    """What comes of it all in a worker; one of those that were `ready`, if any were."""
    # What the image has; behind bubblewrap it is this very Python.
    python = sys.executable if kind == "process" else "python3"

    def furnish(worker: WorkerId, workspace: Path) -> None:
        shutil.copy(SCRIPT, workspace)
        tell(workspace / TOLD, planted, slot_of(launcher._root, worker).secret().hex()[::-1])
        (workspace / TOLD).chmod(0o644)

    async with launched(launcher, [{"run": [python, "-I", "-S", SCRIPT.name, TOLD]}], furnish) as (worker, link, workspace):
        slot = slot_of(launcher._root, worker)
        assert not ready or slot.container() in ready
        heard = await listen(link.execute(assignment(worker)), link, limit=200)
        (code, output), *_ = heard.outputs()
        assert code == 0, output
        tell(data / TOLD, planted)
        command = [sys.executable, "-I", "-S", SCRIPT, data / TOLD, "outside"]
        outside = subprocess.run(command, capture_output=True, text=True, check=True)
        user = (slot.user() or (10001,))[0]
        return {
            **json.loads(output),
            "user": user,
            # In a Swarm it stays in the container.
            "owner": user if kind == "swarm" else (workspace / "suid-0").stat().st_uid,
            "outside": json.loads(outside.stdout),
        }


def test_the_agent_is_a_child_of_the_worker(outcomes: dict[str, Any]) -> None:
    """Else the attacks on the worker would be attacks on something else."""
    assert outcomes["worker"].endswith("-m\0worker\0")


def test_the_agent_is_nobody_outside(outcomes: dict[str, Any], kind: str) -> None:
    nobody = outcomes["user"] if os.geteuid() == 0 or kind == "swarm" else os.geteuid()
    assert outcomes["uid"] == (10001 if kind == "process" else nobody)
    assert outcomes["owner"] == nobody


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_cannot(attack: str, outcomes: dict[str, Any], kind: str) -> None:
    assert outcomes[attack] in expected(attack, kind)


@pytest.mark.parametrize("deed", CONTROLS)
def test_it_can(deed: str, outcomes: dict[str, Any], kind: str) -> None:
    """Of each kind of attack, the harmless deed: so the attacks are not held by being misspelt."""
    if (kind, deed) == ("swarm", "read its own memory by a call"):
        # A service has the engine's own filter besides ours, and that forbids it.
        assert outcomes[deed] == "EPERM"
    else:
        assert outcomes[deed] == "DONE"


@pytest.mark.parametrize("attack", OUTSIDE)
def test_it_could_without_the_wall(attack: str, outcomes: dict[str, Any]) -> None:
    """What was planted is there, and only the wall is in between."""
    assert outcomes["outside"][attack] == "DONE"
