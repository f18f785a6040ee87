"""Files in the sandbox's memory: no limit of a process counts what they cost the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.sandbox import require_sandbox
from support.workers import assignment, launched, launcher_in, listen

from server.kernel.errors import WorkerLost
from server.workers import process

LITTER = "n=0; while :; do n=$((n+1)); for i in 1 2 3 4 5 6 7 8 9; do : > {place}/$n.$i; done; done"


@pytest.mark.parametrize("place", ["/tmp", "$HOME", "/dev/shm"])
async def test_a_worker_with_too_many_files_in_memory_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    require_sandbox()
    monkeypatch.setattr(process, "SCRATCH_FILES", 2000)
    async with launcher_in(tmp_path) as launcher, launched(launcher, [{"run": LITTER.format(place=place)}]) as (worker, link, _):
        with pytest.raises(WorkerLost):
            await listen(link.execute(assignment(worker)), link)
        exit_ = await link.exited()
    assert exit_.oom_killed
    assert "more than 2000 files in /tmp, /home/agent, /dev/shm" in exit_.log_tail


async def test_a_worker_with_some_files_in_memory_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_sandbox()
    monkeypatch.setattr(process, "SCRATCH_FILES", 2000)
    some = "for n in $(seq 500); do : > /tmp/$n; : > $HOME/$n; : > /dev/shm/$n; done; sleep 1.2"
    async with launcher_in(tmp_path) as launcher, launched(launcher, [{"run": some}]) as (worker, link, _):
        heard = await listen(link.execute(assignment(worker)), link)
    assert heard.outputs() == [(0, "")]
