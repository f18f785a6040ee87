"""`python -m worker`: serves one turn on a unix socket, then waits to be ended.

Its configuration is one line of JSON on standard input, because a command line and an environment can be read by others:
`secret` (64 hexadecimal digits), `socket`, `models` (the server's socket for model requests; the one for the network is beside it) and
`workspace` (paths), `orphan_seconds`, `max_processes` (0 for no limit), and perhaps `preload`, the agent to load before anybody is let in:
for a worker that waits for its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import resource
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from worker.descendants import adopt_orphans, hide_memory, kill_descendants
from worker.oom import keep_place
from worker.provider import ModelAccess, ProviderFailed, make_provider

if TYPE_CHECKING:
    from worker.service import WorkerService

_CONFIG_BYTES = 64 * 1024
_RECEIVE_BYTES = 17 * 1024 * 1024
_RELAY_NAME = "agent.sock"
"""Not longer than that of the worker's own socket: paths of sockets end at 107 bytes."""
_EGRESS_NAME = "egress.sock"
"""Of the server's socket for the network, beside the one for models."""


@dataclass(frozen=True)
class Config:
    """What the launcher tells."""

    secret: bytes
    socket: Path
    models: Path
    workspace: Path
    orphan_seconds: float
    max_processes: int
    preload: str = ""

    @property
    def model_access(self) -> ModelAccess:
        """What the agent needs to reach a model. The token follows from the secret, which the agent does not get."""
        return ModelAccess(self.models, hmac.new(self.secret, b"models", hashlib.sha256).hexdigest())


def read_config() -> Config:
    """Read the line and close standard input, so that nothing this process starts can have it. Errors: ValueError."""
    line = sys.stdin.readline(_CONFIG_BYTES)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    fields = json.loads(line)
    return Config(
        secret=bytes.fromhex(fields["secret"]),
        socket=Path(fields["socket"]),
        models=Path(fields["models"]),
        workspace=Path(fields["workspace"]),
        orphan_seconds=float(fields["orphan_seconds"]),
        max_processes=int(fields["max_processes"]),
        preload=str(fields.get("preload", "")),
    )


async def serve(config: Config) -> None:
    """Serve until no server was heard for the orphan limit."""
    from worker.engine import Engine
    from worker.model_relay import relayed
    from worker.service import WorkerService
    from worker.spool import Spool
    from worker.way_out import opened_way_out

    if config.preload:
        # What cannot be loaded is told by the turn that asks for it.
        with contextlib.suppress(ProviderFailed):
            await asyncio.to_thread(make_provider, config.preload)
    spool = Spool()
    relay = config.socket.with_name(_RELAY_NAME)
    async with relayed(config.model_access, relay, away_seconds=config.orphan_seconds) as models:
        way_out = partial(opened_way_out, config.models.with_name(_EGRESS_NAME), away_seconds=config.orphan_seconds)
        await _serve(config, WorkerService(config.secret, Engine(spool, config.workspace, models, way_out), spool))


async def _serve(config: Config, service: WorkerService) -> None:
    import grpc

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _RECEIVE_BYTES), ("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((service.handlers(),))
    # Bound under another name first: whoever sees the final name can connect at once.
    unready = config.socket.with_suffix(".new")
    server.add_insecure_port(f"unix:{unready}")
    await server.start()
    # The server may be another user. Who gets as far as here is decided by the directories above.
    unready.chmod(0o666)
    unready.rename(config.socket)
    await service.orphaned(config.orphan_seconds)
    logging.getLogger(__name__).warning("no server was heard for %s s; the turn is given up", config.orphan_seconds)
    await server.stop(None)


def main() -> None:
    """Entry point."""
    keep_place()
    hide_memory()
    adopt_orphans()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    config = read_config()
    if config.max_processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (config.max_processes, config.max_processes))
    os.chdir(config.workspace)
    try:
        asyncio.run(serve(config))
    finally:
        kill_descendants()


if __name__ == "__main__":
    main()
