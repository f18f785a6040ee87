"""What stops a start, and how a program says so."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime


class StartRefused(Exception):
    """The server cannot start like this; the message says what is wrong and what to change. Each place that knows has its own type."""


class SettingsUnfit(StartRefused):
    """The settings do not work here; the message says which, and what to do."""


def tell(program: str, words: str, *, level: str = "error") -> None:
    """On stderr, where no log is set up yet: for people, or as the log would have it."""
    if os.environ.get("TREADLE_LOG_FORMAT", "").lower() == "json":
        words = json.dumps({"message": words, "event": f"{program}.says", "level": level, "timestamp": datetime.now(UTC).isoformat()})
    else:
        words = f"{program}: {words}"
    print(words, file=sys.stderr, flush=True)
