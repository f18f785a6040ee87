"""Port: how workers are started, found again, talked to and ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from server.kernel.agent_request import AgentRequest, Resolution
from server.kernel.event import WorkerBatch
from server.kernel.turn import Outcome

MAX_TRANSCRIPT_BYTES = 32 * 1024 * 1024
"""No agent's memory is larger, on any path."""


@dataclass(frozen=True)
class WorkerId:
    """A worker is known by its turn and attempt; `str()` gives `turn/attempt`."""

    turn_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.turn_id}/{self.attempt}"


@dataclass(frozen=True)
class WorkerSpec:
    """What a launcher must know to make a worker, before there is anything for it to do."""

    worker: WorkerId
    session_id: str
    tenant_id: str
    provider: str
    """The agent that it will run: a worker may hold no other."""


@dataclass(frozen=True)
class Assignment:
    """What a worker must know to run a turn. No credentials."""

    session_id: str
    turn_id: str
    attempt: int
    turn_number: int
    provider: str
    model: str
    prompt: str
    trace_parent: str = ""
    max_steps: int = 0
    """How often the agent may ask its model; 0 for no limit."""
    approvals: str = ""
    """Empty, or `ASK`."""
    allowed_hosts: Sequence[str] = ()
    """Where the agent may connect to, through the door; empty for nowhere: then there is no door."""


@dataclass(frozen=True)
class WorkerRequest:
    """The agent asks and waits: one event, and what may be answered to it. Its number follows the events that came before."""

    batch: WorkerBatch
    request: AgentRequest


class NoticeKind(StrEnum):
    """What a worker tells that is no event."""

    INPUT_WANTED = "INPUT_WANTED"
    """The agent would take an input now."""
    INPUT_UNWANTED = "INPUT_UNWANTED"
    INPUT_TAKEN = "INPUT_TAKEN"
    REQUEST_WITHDRAWN = "REQUEST_WITHDRAWN"
    PREPARED = "PREPARED"
    """The repository's `.treadle/setup` has run, and the agent starts."""


@dataclass(frozen=True)
class WorkerNotice:
    """Something that is no event, at its place between the events. A new stream brings all of them again. The id is as hostile as
    everything that a worker says."""

    kind: NoticeKind
    id: str = ""
    """Of the input or the request; of what was prepared its SHA-256, or nothing."""


WorkerItem = WorkerBatch | WorkerRequest | WorkerNotice


@dataclass(frozen=True)
class WorkerExit:
    """How a worker's process ended; `code` is None when nobody could see it (128 + n for signal n)."""

    code: int | None
    oom_killed: bool = False
    log_tail: str = ""
    stopped: bool = False
    """It was ended, as nothing was wanted of it any more: then its code says nothing of it."""


@dataclass(frozen=True)
class Occupied:
    """What a workspace takes of the disk: bytes, and files of any kind; not `counted` where that took too long."""

    bytes: int
    files: int
    counted: bool = True


@dataclass(frozen=True)
class WorkerResult:
    """The worker's last word. All its events up to `last_worker_seq` were yielded before it."""

    outcome: Outcome
    last_worker_seq: int
    worked: tuple[datetime, datetime] | None = None
    """When it began and ended, as it says; None when it does not."""


@dataclass(frozen=True)
class Capability:
    """What the launcher can do on this machine, for doctor, logs and events."""

    name: str
    sandboxed: bool
    detail: str
    """One line: how the wall is built, or why there is none and what runs all the same."""
    providers: tuple[str, ...]
    """The agents that are there to be run."""
    remedy: str = ""
    """What to do to get a wall, when there is none."""


@dataclass(frozen=True)
class ModelDoor:
    """Where a worker's agent reaches models: the server listens there as long as the agent's part of the turn lasts."""

    socket: Path
    """The unix socket to listen on. Its directory belongs to the server alone and outlives every server process, so a worker sees
    the socket of whichever server is there now. The path may be longer than a socket's address can be."""
    token: str
    """What each request must carry, as an agent carries its API key. Derived from the turn's secret: nothing of it is stored, and a
    server that finds the worker knows it."""
    owner: tuple[int, int] | None
    """Uid and gid that the socket is given to, so that only the agent can connect; None when that is the server's own user."""


@dataclass(frozen=True)
class EgressDoor:
    """Where a worker's agent reaches the network, if its session allows any: beside the door to models, and as that one."""

    socket: Path
    owner: tuple[int, int] | None


class Worker(Protocol):
    """A live worker with a proven connection (the turn's secret, both ways).

    Everything it says has been validated and stripped by the adapter; a worker that breaks the protocol raises
    WorkerProtocolBroken from the stream. Losing the connection while the process lives raises WorkerLost from the stream after the
    adapter's own retries.
    """

    @property
    def has_turn(self) -> bool:
        """Whether the worker already has its assignment: then `resume`, else `execute`."""
        ...

    async def load_transcript(self, transcript: bytes) -> None:
        """Give the agent its memory of earlier turns, before `execute`; a repeated call replaces it. Bounded. Errors: WorkerLost."""
        ...

    async def read_transcript(self) -> bytes:
        """The agent's memory after the turn, once the result is known; empty when there is nothing to keep. At most
        MAX_TRANSCRIPT_BYTES, hostile, for nobody to parse but the same agent. Bounded. Errors: WorkerLost, WorkerProtocolBroken."""
        ...

    def execute(self, assignment: Assignment) -> AsyncGenerator[WorkerItem | WorkerResult, None]:
        """Hand over the turn and stream to the result (the last item)."""
        ...

    def resume(self, after_worker_seq: int) -> AsyncGenerator[WorkerItem | WorkerResult, None]:
        """Stream what happened after `after_worker_seq` to the result."""
        ...

    async def acknowledge(self, worker_seq: int) -> bool:
        """Tell that everything up to `worker_seq` is durable. Bounded. False when that could not be told: tell it again, for a worker
        whose window is full says nothing until it hears."""
        ...

    async def interrupt(self, reason: str) -> None:
        """Ask the worker to stop its agent and send its result. Bounded. Errors: WorkerLost."""
        ...

    async def give(self, input_id: str, text: str) -> None:
        """Hand over something that the user said; repeatable. Bounded. Errors: WorkerLost."""
        ...

    async def resolve(self, resolution: Resolution) -> None:
        """Answer a request of the agent; repeatable. Bounded. Errors: WorkerLost."""
        ...

    async def exited(self) -> WorkerExit:
        """Wait until the process, and all that it started, is gone."""
        ...

    async def close(self) -> None:
        """Drop the connection; the worker goes on."""
        ...


class Launcher(Protocol):
    """Starts workers on this machine. A worker outlives the server that started it.

    - `workspace` gives the directory to build the workspace in; it exists afterwards, is private to the server, and belongs to
      this (turn, attempt) alone. What the worker is for is kept with it, so that any server here can launch it. `furnished` says,
      durably, that it is complete.
    - `models` gives the door to models of this worker alone; whoever listens there must do so before `launch`, since the agent may
      call at once. It opens nothing by itself. `egress` is the same for the network.
    - `launch` starts the worker unless it was started before: then it connects to it. Two servers that launch the same worker at
      the same time start one. A worker that was started before and is gone raises WorkerLost (its exit in `collect`), and so does
      one whose furnished workspace is not here: it runs, or ran, on another machine, and nothing is started in its place.
    - `left` gives the workspace as the worker left it. It never makes one: an empty directory would read as "everything was deleted".
    - `collect` kills whatever is left of the worker, waits until all its processes are gone (so nobody writes to the workspace any
      more), and returns the exit. Repeatable. The workspace stays.
    - `remove` deletes everything of the worker. Repeatable.
    - `leftovers` lists workers whose files are still on this machine.

    Errors: LaunchFailed (could not start or not connect within the start limit), NoRoom (not yet: launch it again), WorkerLost.
    """

    @property
    def capability(self) -> Capability:
        """What this launcher can do here; probed once, by running it."""
        ...

    @property
    def available(self) -> bool:
        """Whether, as far as is known, a worker can be made now."""
        ...

    async def workspace(self, spec: WorkerSpec) -> Path:
        """The workspace directory of this worker, created if needed."""
        ...

    async def furnished(self, worker: WorkerId) -> None:
        """The workspace is complete: from now on the worker may be launched. Repeatable."""
        ...

    async def left(self, worker: WorkerId) -> Path:
        """The workspace that was furnished for this worker. Errors: WorkerLost when it is not on this machine."""
        ...

    async def live(self, worker: WorkerId) -> Path:
        """The workspace of a worker that runs on this machine: hostile, and written to by its agent meanwhile. Errors: WorkerLost when
        it is on another machine, or never was furnished."""
        ...

    async def models(self, worker: WorkerId) -> ModelDoor:
        """The door to models of a worker whose workspace was furnished. Errors: WorkerLost when that is not on this machine."""
        ...

    async def egress(self, worker: WorkerId) -> EgressDoor:
        """The door to the network, as `models`."""
        ...

    async def launch(self, worker: WorkerId) -> Worker:
        """Start or find the worker, and connect."""
        ...

    async def collect(self, worker: WorkerId) -> WorkerExit:
        """Kill it, wait for it, tell how it ended. WorkerExit(None) when it never ran."""
        ...

    async def remove(self, worker: WorkerId) -> None:
        """Forget it, files and all."""
        ...

    async def occupied(self, worker: WorkerId) -> Occupied:
        """What its workspace takes, as far as this server may see."""
        ...

    async def leftovers(self) -> list[WorkerId]:
        """Workers that have files here."""
        ...
