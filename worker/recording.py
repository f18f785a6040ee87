"""Recordings: where they are found, and what a valid one looks like."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.paths import within
from worker.provider import ProviderFailed

Step = Mapping[str, Any]

_BUNDLED = Path(__file__).parent / "providers" / "recordings"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_MAX_BYTES = 16 * 1024 * 1024
_KINDS: dict[str, tuple[type, ...]] = {
    "say": (str,),
    "think": (str,),
    "plan": (list,),
    "write": (str,),
    "edit": (str,),
    "delete": (str,),
    "run": (str, list),
    "usage": (dict,),
    "burst": (int,),
    "approve": (str,),
    "ask": (str,),
    "listen": (int,),
    "fail": (str,),
}
_NEEDS = {"write": ("content",), "edit": ("old", "new"), "burst": ("text",)}


def load_recording(name: str, workspace: Path) -> list[Step]:
    """The steps of a bundled recording, or of a path relative to the workspace. Errors: ProviderFailed."""
    path = _BUNDLED / f"{name}.jsonl" if _NAME.fullmatch(name) else within(workspace, name)
    try:
        with path.open(encoding="utf-8") as lines:
            text = lines.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        known = ", ".join(sorted(bundled.stem for bundled in _BUNDLED.glob("*.jsonl")))
        raise ProviderFailed(f"there is no recording {name!r}; bundled are {known}, any other is a path in the repository") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror or "error" if isinstance(error, OSError) else "it is not UTF-8"
        raise ProviderFailed(f"the recording {name!r} cannot be read: {reason.lower()}") from error
    if len(text) > _MAX_BYTES:
        raise ProviderFailed(f"the recording {name!r} is larger than 16 MiB")
    return [_step(line, f"{name}:{number}") for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def kind_of(step: Step) -> str | None:
    """The key that says what the step does; None when it only waits."""
    return next((key for key in _KINDS if key in step), None)


def _step(line: str, place: str) -> Step:
    try:
        step = json.loads(line)
    except ValueError as error:
        raise ProviderFailed(f"recording {place}: {error}") from error
    if not isinstance(step, dict):
        raise ProviderFailed(f"recording {place}: a step is an object")
    kind = kind_of(step)
    if kind is None and "wait_ms" not in step:
        raise ProviderFailed(f"recording {place}: no step that this version knows ({', '.join(_KINDS)}, wait_ms)")
    if kind is not None and not isinstance(step[kind], _KINDS[kind]):
        raise ProviderFailed(f"recording {place}: {kind!r} has a value of the wrong type")
    missing = [key for key in _NEEDS.get(kind or "", ()) if not isinstance(step.get(key), str)]
    if missing:
        raise ProviderFailed(f"recording {place}: {kind!r} needs {', '.join(missing)}")
    return step
