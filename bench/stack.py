"""What is measured: the main server as a process of its own, on an embedded Postgres with fsync on, and a Git server beside it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.git_server import GitServer, git_server

from server.config import Settings
from server.db.stores import open_postgres
from server.embedded.postgres import EmbeddedPostgres
from server.identity.local_user import ensure_local_user
from treadle.session.v1 import (
    event_pb2,
    session_service_pb2_grpc,
)
from treadle.session.v1 import session_service_pb2 as pb

CHANNEL = (("grpc.max_receive_message_length", 16 * 1024 * 1024), ("grpc.use_local_subchannel_pool", 1))


@dataclass
class Stack:
    """A running server and a way to call it."""

    address: str
    metadata: tuple[tuple[str, str], ...]
    git: GitServer
    settings: Settings
    process: asyncio.subprocess.Process
    ready_seconds: float

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        async with grpc.aio.insecure_channel(self.address, options=CHANNEL) as channel:
            yield session_service_pb2_grpc.SessionServiceStub(channel)

    def repository(self, name: str, *steps: dict[str, Any]) -> dict[str, str]:
        """A repository whose recording does `steps`; the request that plays it."""
        self.git.create(f"bench/{name}", {"README.md": "# bench\n", "r.jsonl": "".join(json.dumps(step) + "\n" for step in steps)})
        return {"repository_url": f"{self.git.url}/bench/{name}.git", "prompt": "go", "provider": "replay", "model": "r.jsonl"}

    def execute(self, stub: Any, **fields: str) -> Any:
        return stub.ExecuteSession(pb.ExecuteSessionRequest(**fields), metadata=self.metadata)

    def resume(self, stub: Any, session_id: str, after_seq: int = 0, **fields: Any) -> Any:
        return stub.Resume(pb.ResumeRequest(session_id=session_id, after_seq=after_seq, **fields), metadata=self.metadata)

    def rss_mb(self) -> float:
        """Resident memory of the server process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise ValueError("no VmRSS")

    async def drain(self, channel: grpc.aio.Channel, session_id: str, after_seq: int) -> int:
        """Follow a session to its end without decoding anything; returns how many bytes came."""
        call = channel.unary_stream("/treadle.session.v1.SessionService/Resume", request_serializer=pb.ResumeRequest.SerializeToString)
        total = 0
        async for data in call(pb.ResumeRequest(session_id=session_id, after_seq=after_seq), metadata=self.metadata):
            total += len(data)
        return total


def events_in(frame: Any) -> list[event_pb2.Event]:
    return list(frame.events.events)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[asyncio.subprocess.Process, float]]:
    """`python -m server`, and how long it took to listen."""
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    environ = {f"TREADLE_{k.upper()}": v.get_secret_value() if isinstance(v, SecretStr) else str(v) for k, v in values.items()}
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", env={"PATH": os.environ["PATH"]} | environ, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        host, _, port = settings.listen.rpartition(":")
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                await asyncio.sleep(0.005)
            else:
                writer.close()
                break
        yield process, time.perf_counter() - begun
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def stack(**changes: Any) -> AsyncIterator[Stack]:
    """Everything, on directories that vanish; `changes` are settings."""
    with tempfile.TemporaryDirectory(prefix="treadle-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        data = Path(folder) / "data"
        with git_server(Path(folder) / "git") as git:
            async with EmbeddedPostgres(data) as urls:
                settings = Settings(
                    data_dir=data,
                    listen=f"127.0.0.1:{_free_port()}",
                    metrics_listen="",
                    database_url=SecretStr(urls.app),
                    database_system_url=SecretStr(urls.system),
                    database_owner_url=SecretStr(urls.owner),
                    git_allowed_prefixes=git.url + "/",
                    log_level="warning",
                    **changes,
                )
                async with open_postgres(settings) as stores:
                    key = (await ensure_local_user(stores.keys, data)).read_text().strip()
                async with serving(settings) as (process, ready):
                    yield Stack(settings.listen, (("authorization", f"Bearer {key}"),), git, settings, process, ready)
