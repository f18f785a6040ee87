"""Real workers for tests: a launcher in a folder of its own, recordings, and streams read to their end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from support.containers import socket_for
from support.swarm import container_of_slot

from server.config import Settings
from server.kernel.ports.launcher import Assignment, WorkerId, WorkerItem, WorkerNotice, WorkerRequest, WorkerResult, WorkerSpec
from server.workers.client import WorkerLink
from server.workers.docker import open_docker_launcher
from server.workers.local import LocalLauncher
from server.workers.process import open_process_launcher
from server.workers.slot import slot_of
from server.workers.swarm import open_swarm_launcher
from treadle.worker.v1.worker_event_pb2 import WorkerEvent

RECORDING = ".recording.jsonl"


@dataclass
class Heard:
    """What a worker said."""

    bodies: list[bytes] = field(default_factory=list)
    result: WorkerResult | None = None

    @property
    def events(self) -> list[WorkerEvent]:
        return [WorkerEvent.FromString(body) for body in self.bodies]

    def outputs(self) -> list[tuple[int, str]]:
        """Exit code and output of every command."""
        results = [event.tool_result for event in self.events if event.WhichOneof("body") == "tool_result"]
        return [(result.exit_code, "".join(part.text for part in result.parts)) for result in results]


@asynccontextmanager
async def launcher_in(folder: Path, kind: str = "process", **settings: Any) -> AsyncIterator[LocalLauncher]:
    """`docker` needs a spawner for the folder."""
    given = {"data_dir": folder, "launcher": kind, "spawner_socket": socket_for(folder)} | settings
    kinds = {"process": open_process_launcher, "docker": open_docker_launcher, "swarm": open_swarm_launcher}
    async with kinds[kind](Settings(**given)) as launcher:
        yield launcher


def new_worker() -> WorkerId:
    return WorkerId(turn_id=str(uuid4()), attempt=1)


def spec(worker: WorkerId, provider: str = "replay") -> WorkerSpec:
    return WorkerSpec(worker, session_id=str(uuid4()), tenant_id="t", provider=provider)


def assignment(worker: WorkerId, model: str = "./" + RECORDING, provider: str = "replay") -> Assignment:
    return Assignment(
        session_id="s", turn_id=worker.turn_id, attempt=1, turn_number=1, provider=provider, model=model, prompt="please do it"
    )


@asynccontextmanager
async def launched(
    launcher: LocalLauncher, steps: Sequence[Mapping[str, Any]] = (), furnish: Callable[[WorkerId, Path], object] = lambda *_: None
) -> AsyncIterator[tuple[WorkerId, WorkerLink, Path]]:
    """A worker with a recording, and what `furnish` adds, in its workspace; collected and removed afterwards."""
    worker = new_worker()
    workspace = await launcher.workspace(spec(worker))
    (workspace / RECORDING).write_text("".join(json.dumps(step) + "\n" for step in steps))
    furnish(worker, workspace)
    await launcher.furnished(worker)
    link = await launcher.launch(worker)
    try:
        yield worker, link, workspace
    finally:
        await link.close()
        await launcher.collect(worker)
        await launcher.remove(worker)


async def listen(items: AsyncIterator[WorkerItem | WorkerResult], link: WorkerLink | None = None, limit: float = 30) -> Heard:
    """Read a stream to its result; acknowledges to `link` when given. Notices are passed over."""
    heard = Heard()
    async with asyncio.timeout(limit), aclosing(items) as stream:
        async for item in stream:
            if isinstance(item, WorkerResult):
                heard.result = item
            elif not isinstance(item, WorkerNotice):
                batch = item.batch if isinstance(item, WorkerRequest) else item
                heard.bodies += batch.bodies
                if link is not None:
                    await link.acknowledge(batch.last_worker_seq)
    return heard


async def play(launcher: LocalLauncher, *steps: Mapping[str, Any]) -> Heard:
    """Run a recording through a real worker."""
    async with launched(launcher, steps) as (worker, link, _):
        return await listen(link.execute(assignment(worker)), link)


async def eventually(condition: Any, limit: float = 5) -> None:
    """Wait until a condition of the outside world holds, for example that a process is gone."""
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def python_of(launcher: LocalLauncher, worker: WorkerId) -> int:
    """The worker's own process, as this machine sees it: the Python that has its workspace mounted, or is in its Swarm's container."""
    slot = slot_of(launcher._root, worker).path.name
    file, mark = "mountinfo", f"/{slot}/workspace "
    if launcher.capability.name == "swarm":
        file, mark = "cgroup", container_of_slot(slot).id
    for pid in processes_with("-m\0worker"):
        entry = Path("/proc", str(pid))
        with suppress(OSError):
            if mark in (entry / file).read_text() and "python" in (entry / "exe").readlink().name:
                return pid
    raise ProcessLookupError(str(worker))


def processes_with(marker: str) -> list[int]:
    """Processes whose command line holds the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
