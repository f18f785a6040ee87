"""A whole Treadle for tests: real Postgres, real Git over HTTP, the real launcher; in this process, or as one that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from pydantic import SecretStr
from support.git_server import GitServer, git
from support.log_checker import check_log
from support.nursery import Child, Nursery
from support.other_user import as_user

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2, session_service_pb2_grpc
from treadle.session.v1 import session_service_pb2 as pb

Frame = pb.ExecuteSessionResponse | pb.ResumeResponse


@dataclass(frozen=True)
class Client:
    """A caller with an API key."""

    address: str
    key: str
    channel: grpc.aio.Channel
    stub: Any

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)

    async def call(self, method: str, request: Any) -> Any:
        return await getattr(self.stub, method)(request, metadata=self.metadata, timeout=60)

    def execute(self, **fields: Any) -> Any:
        return self.stub.ExecuteSession(pb.ExecuteSessionRequest(**fields), metadata=self.metadata, timeout=100)

    def resume(self, session_id: str, after_seq: int = 0, **fields: Any) -> Any:
        return self.stub.Resume(pb.ResumeRequest(session_id=session_id, after_seq=after_seq, **fields), metadata=self.metadata, timeout=100)

    async def run(self, **fields: Any) -> list[event_pb2.Event]:
        """Execute to the end; the turn's events."""
        return await events_of(self.execute(**fields))

    async def log(self, session_id: str, *, ended: bool = True) -> list[event_pb2.Event]:
        """The whole log, checked."""
        events = await events_of(self.resume(session_id, follow=False))
        check_log(events, ended=ended)
        return events


async def events_of(stream: Any) -> list[event_pb2.Event]:
    return [event async for frame in stream for event in frame.events.events]


def recording(*steps: dict[str, Any]) -> str:
    """A recording for the provider `replay`, one step per line."""
    return "".join(json.dumps(step) + "\n" for step in steps)


def branch_of(events: list[event_pb2.Event]) -> str:
    """The session's branch, as its log tells it."""
    return next(event.git_updated.branch for event in events if event.git_updated.branch)


def workers(events: list[event_pb2.Event]) -> list[event_pb2.WorkerUpdated]:
    """All that was told of workers."""
    return [event.worker_updated for event in events if event.HasField("worker_updated")]


def kinds(events: list[event_pb2.Event]) -> list[str]:
    return [event.WhichOneof("body") or "" for event in events]


def error_info(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, dict[str, str], list[str]]:
    """(status, reason, metadata, fields) of a refused call."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info, fields = error_details_pb2.ErrorInfo(), []
    for detail in status_pb2.Status.FromString(details).details:
        violation = error_details_pb2.BadRequest()
        if not detail.Unpack(info) and detail.Unpack(violation):
            fields = [one.field for one in violation.field_violations]
    return error.code(), info.reason, dict(info.metadata), fields


@asynccontextmanager
async def connected(address: str, key: str) -> AsyncIterator[Client]:
    options = (("grpc.max_receive_message_length", 16 * 1024 * 1024), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Client(address, key, channel, session_service_pb2_grpc.SessionServiceStub(channel))


def settings_for(urls: DatabaseUrls, data_dir: Path, git_server: GitServer, **changes: Any) -> Settings:
    fields = {
        "data_dir": data_dir,
        "listen": "127.0.0.1:0",
        "metrics_listen": "",
        "database_url": SecretStr(urls.app),
        "database_system_url": SecretStr(urls.system),
        "database_owner_url": SecretStr(urls.owner),
        "git_allowed_prefixes": git_server.url + "/",
        # Nobody outside of the tests is called.
        "github_apis": "",
    }
    return Settings(**(fields | changes))


@asynccontextmanager
async def in_process(settings: Settings, *, mark: Callable[[str], None] | None = None) -> AsyncIterator[tuple[Any, Client]]:
    """The server in this process; (server, client of the local user)."""
    from server.composition import compose
    from server.identity.local_user import ensure_local_user

    async with compose(settings, mark=mark) as server:
        key = (await ensure_local_user(server.stores.keys, settings.data_dir)).read_text().strip()
        async with connected(server.api.address, key) as client:
            yield server, client


class Killable:
    """The server in a process of its own (tests/support/killable.py), which kills itself with SIGKILL at a named point."""

    def __init__(
        self, settings: Settings, log: Path, *, nursery: Nursery | None = None, user: int | None = None, **environment: str
    ) -> None:
        """`user`: as whom it runs, where that is not ours."""
        self._settings = settings
        self._user = user
        self._environment = environment
        self._log = log
        self._nursery = nursery
        self.process: asyncio.subprocess.Process | Child | None = None
        self.address = ""

    @property
    def key(self) -> str:
        return (self._settings.data_dir / "api-key").read_text().strip()

    async def start(self, *, kill_at: str = "", nth: int = 1, **changes: Any) -> None:
        """Start and wait until it listens; `kill_at` names the point, `nth` which passing of it is the last. It may die while starting.
        `changes`: of its settings, for this life."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "KILL_AT": kill_at,
            "KILL_NTH": str(nth),
            **self._environment,
        }
        for name in self._settings.model_fields_set:
            value = getattr(self._settings, name)
            environment[f"TREADLE_{name.upper()}"] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        environment |= {f"TREADLE_{name.upper()}": str(value) for name, value in changes.items()}
        if self._nursery is not None:
            self.process = await self._nursery.bear(environment, self._log)
        else:
            command = [sys.executable, "-m", "support.killable"]
            with self._log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *(command if self._user is None else as_user(self._user, *command)),
                    env=environment,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    cwd=Path(__file__).parents[1],
                )
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            line = await self.process.stdout.readline()
        self.address = line.decode().strip()

    async def wait_killed(self) -> int:
        """Wait for its death; returns the exit code (-9 when it killed itself)."""
        assert self.process is not None
        async with asyncio.timeout(60):
            return await self.process.wait()

    async def stop(self, *, kill: bool = False) -> None:
        if self.process is not None and self.process.returncode is None:
            (self.process.kill if kill else self.process.terminate)()
            async with asyncio.timeout(30):
                await self.process.wait()


def pushed_files(bare: Path, branch: str) -> dict[str, str]:
    """Path → content of a branch of a bare repository."""
    paths = git(bare, "ls-tree", "-r", "-z", "--name-only", branch).split("\0")
    return {path: git(bare, "show", f"{branch}:{path}") for path in paths if path}
