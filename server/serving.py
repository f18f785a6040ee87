"""What a running server tells commands in other shells, whose environment may be another one than its own."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.composition import Server
    from server.config import Settings


@dataclass(frozen=True)
class Serving:
    """Facts about the server that its environment decided. No secrets."""

    agent: str
    """The agent of a session that names none."""
    why: str
    credentials: list[str]
    """The formats of models that it can pay for."""
    address: str
    """Where it speaks gRPC."""
    launcher: str
    """By name."""
    workers: str
    """In words: how they are walled off."""
    providers: list[str]
    """The agents that it can run."""
    egress_hosts: str
    """TREADLE_EGRESS_HOSTS."""
    egress_proxy: str
    """TREADLE_EGRESS_PROXY."""
    spawner: str = ""
    """Where its spawner is called: a socket's path or `host:port`; empty for a launcher that has none."""
    host: str = ""
    """The name of the machine, or container, that it runs in."""


def paid_formats(settings: Settings) -> list[str]:
    """The formats for which there is a credential; whether it is good is not asked."""
    from server.agents import claude_credential

    return ["anthropic"] * bool(claude_credential(settings)) + ["openai"] * bool(settings.openai_api_key.get_secret_value())


@contextmanager
def told_others(settings: Settings, server: Server) -> Iterator[None]:
    """While the context is open, `read_serving` finds it."""
    file = settings.data_dir / "serving.json"
    capability = server.launcher.capability
    serving = Serving(
        agent=server.agent.name,
        why=server.agent.why,
        credentials=paid_formats(settings),
        address=server.api.address,
        launcher=capability.name,
        workers=capability.detail if capability.sandboxed else f"NOT sandboxed: {capability.detail}",
        providers=list(capability.providers),
        egress_hosts=settings.egress_hosts,
        egress_proxy=settings.egress_proxy,
        spawner="" if capability.name == "process" else settings.spawner_tcp or str(settings.spawner_address.absolute()),
        host=socket.gethostname(),
    )
    text = json.dumps(asdict(serving))
    with open(file, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as written:
        written.write(text + "\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def read_serving(data_dir: Path) -> Serving | None:
    """What the server that runs on the data directory said; a crashed one leaves it, too."""
    try:
        return Serving(**json.loads((data_dir / "serving.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
