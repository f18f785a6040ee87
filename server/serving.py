"""What a running server tells commands in other shells, whose environment may be another one than its own."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
    git_allowed_hosts: str | None = None
    """TREADLE_GIT_ALLOWED_HOSTS; None of a server of before this was told, as below."""
    git_allowed_prefixes: str | None = None
    """TREADLE_GIT_ALLOWED_PREFIXES, with those that `treadle up` adds."""
    storage_tenant_mib: int = 0
    """TREADLE_STORAGE_TENANT_MIB."""
    arrangements: dict[str, str] = field(default_factory=dict)
    """See `arrangements`."""


def paid_formats(settings: Settings) -> list[str]:
    """The formats for which there is a credential; whether it is good is not asked."""
    from server.agents import claude_credential

    return ["anthropic"] * bool(claude_credential(settings)) + ["openai"] * bool(settings.openai_api_key.get_secret_value())


def arrangements(settings: Settings) -> dict[str, str]:
    """What the settings say of code hosts and of storage, in words, by the names that `treadle doctor` gives them."""
    below = f", and all below {settings.git_allowed_prefixes}" if settings.git_allowed_prefixes else ""
    hosts = ", ".join(host or "GitHub" for host in settings.github_client_ids)
    login = f"login in the browser for {hosts}" if hosts else "no login in the browser (TREADLE_GITHUB_CLIENT_ID)"
    key = "TREADLE_VAULT_KEY" if settings.vault_key.get_secret_value() else f"the key in {settings.data_dir / 'vault-key'}"
    taken = "taken, at POST /v1/webhooks/github" if settings.github_webhook_secrets else "none are taken (TREADLE_GITHUB_WEBHOOK_SECRET)"
    bucket = f"the bucket {settings.s3_bucket} on {settings.s3_endpoint}"
    place = bucket if settings.object_store == "s3" else settings.data_dir / "objects"
    days = f"{settings.retention_days:g} days, but for each session's newest" if settings.retention_days else "for ever"
    return {
        "code hosts": f"{settings.git_allowed_hosts}{below}; GitHub's API for {', '.join(settings.github_api_urls)}; {login}",
        "vault": f"users' credentials are sealed with {key}",
        "webhooks": taken,
        "objects": f"in {place}",
        "retention": f"snapshots are kept {days} (TREADLE_RETENTION_DAYS)",
    }


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
        git_allowed_hosts=settings.git_allowed_hosts,
        git_allowed_prefixes=settings.git_allowed_prefixes,
        storage_tenant_mib=settings.storage_tenant_mib,
        arrangements=arrangements(settings),
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
