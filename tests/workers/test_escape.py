"""A hostile agent in a real worker: everything that it tries fails."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import attacks_list
from support.sandbox import require_sandbox
from support.workers import assignment, launched, launcher_in, listen

ATTACKS = Path(attacks_list.__file__).with_name("attacks.py")


@pytest.fixture(scope="module")
async def outcomes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    require_sandbox()
    data = tmp_path_factory.mktemp("data")
    canary = data / "identity.key"
    canary.write_text("canary")
    canary.chmod(0o644)
    data.chmod(0o755)
    async with launcher_in(data) as launcher, launched(launcher) as (_, _, other):
        run = [sys.executable, "-I", "-S", "attacks.py", str(canary), str(other), str(os.getpid())]
        async with launched(launcher, [{"run": run}]) as (worker, link, workspace):
            shutil.copy(ATTACKS, workspace / "attacks.py")
            heard = await listen(link.execute(assignment(worker)), link)
            (code, output), *_ = heard.outputs()
            assert code == 0, output
            yield {**json.loads(output), "owner": (workspace / "suid").stat().st_uid}


def test_the_agent_is_a_child_of_the_worker(outcomes: dict[str, str]) -> None:
    """Else the attacks on the worker would be attacks on something else."""
    assert outcomes["worker"].endswith("-m\0worker\0")


def test_the_agent_is_nobody_outside(outcomes: dict[str, str]) -> None:
    assert outcomes["uid"] == 10001
    assert outcomes["owner"] == (10001 if os.geteuid() == 0 else os.geteuid())


@pytest.mark.parametrize("attack", attacks_list.NAMES)
def test_it_cannot(attack: str, outcomes: dict[str, str]) -> None:
    assert outcomes[attack] != "DONE"


def test_every_attack_was_tried(outcomes: dict[str, str]) -> None:
    assert set(outcomes) - {"worker", "uid", "owner"} == set(attacks_list.NAMES)
