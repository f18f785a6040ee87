"""A hostile agent in a real worker: everything that it tries fails, for the reason for which it should."""

from __future__ import annotations

import json
import os
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
from support.sandbox import require_sandbox
from support.workers import assignment, launched, launcher_in, listen

SCRIPT = Path(attacks.__file__)


@contextmanager
def planted_in(data: Path, slot: Path) -> Iterator[Planted]:
    """Targets that are really there: a file, a process, and three listeners, each reachable by anybody who can see it."""
    canary = data / "identity.key"
    canary.write_text("canary")
    canary.chmod(0o644)
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        path, abstract = str(data / "host.sock"), f"treadle-test-{os.getpid()}-{data.name}"
        for address in (path, "\0" + abstract):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(address)
            listening.listen()
        Path(path).chmod(0o666)
        yield Planted(str(canary), str(slot), os.getpid(), tcp.getsockname()[1], path, abstract)


def arguments(planted: Planted) -> str:
    return json.dumps({name: value for name, value in asdict(planted).items() if name != "parent"})


@pytest.fixture(scope="module")
async def outcomes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    require_sandbox()
    data = tmp_path_factory.mktemp("data")
    data.chmod(0o755)
    async with launcher_in(data, worker_memory_mib=512) as launcher, launched(launcher) as (_, _, other):
        with planted_in(data, other) as planted:
            run = [sys.executable, "-I", "-S", SCRIPT.name, arguments(planted)]
            async with launched(launcher, [{"run": run}]) as (worker, link, workspace):
                shutil.copy(SCRIPT, workspace)
                heard = await listen(link.execute(assignment(worker)), link, limit=60)
                (code, output), *_ = heard.outputs()
                assert code == 0, output
                outside = subprocess.run(
                    [sys.executable, "-I", "-S", SCRIPT, arguments(planted), "outside"], capture_output=True, text=True, check=True
                )
                yield {
                    **json.loads(output),
                    "owner": (workspace / "suid-0").stat().st_uid,
                    "outside": json.loads(outside.stdout),
                }


def test_the_agent_is_a_child_of_the_worker(outcomes: dict[str, Any]) -> None:
    """Else the attacks on the worker would be attacks on something else."""
    assert outcomes["worker"].endswith("-m\0worker\0")


def test_the_agent_is_nobody_outside(outcomes: dict[str, Any]) -> None:
    assert outcomes["uid"] == 10001
    assert outcomes["owner"] == (10001 if os.geteuid() == 0 else os.geteuid())


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_cannot(attack: str, outcomes: dict[str, Any]) -> None:
    assert outcomes[attack] in ATTACKS[attack][1]


@pytest.mark.parametrize("deed", CONTROLS)
def test_it_can(deed: str, outcomes: dict[str, Any]) -> None:
    """Of each kind of attack, the harmless deed: so the attacks are not held by being misspelt."""
    assert outcomes[deed] == "DONE"


@pytest.mark.parametrize("attack", OUTSIDE)
def test_it_could_without_the_sandbox(attack: str, outcomes: dict[str, Any]) -> None:
    """What was planted is there, and only the sandbox is in between."""
    assert outcomes["outside"][attack] == "DONE"
