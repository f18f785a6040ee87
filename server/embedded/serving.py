"""What a running `treadle up` tells commands in other shells, whose environment may be another one than its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.agents import Choice
    from server.config import Settings


@dataclass(frozen=True)
class Serving:
    """Facts about the server that its environment decided. No secrets."""

    agent: str
    """The agent of a session that names none."""
    why: str
    credentials: list[str]
    """The formats of models that it can pay for."""


def paid_formats(settings: Settings) -> list[str]:
    """The formats for which there is a credential; whether it is good is not asked."""
    from server.agents import claude_credential

    return ["anthropic"] * bool(claude_credential(settings)) + ["openai"] * bool(settings.openai_api_key.get_secret_value())


@contextmanager
def told_others(data_dir: Path, settings: Settings, agent: Choice) -> Iterator[None]:
    """While the context is open, `read_serving` finds it."""
    file = data_dir / "serving.json"
    text = json.dumps(asdict(Serving(agent.name, agent.why, paid_formats(settings))))
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
