"""Commands as they can be typed here, for every hint that the command line gives."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from server.data_dir import default_data_dir

_WITH_ACTIONS = ("files", "credential", "pr")
"""Commands whose second word is one of theirs, and options come behind it."""


def typed(command: str, data_dir: Path | None = None) -> str:
    """`treadle <command>`: by name when the shell finds it, else by where it is installed; with --data-dir when that is not the
    default one."""
    where = "" if data_dir in (None, default_data_dir()) else f" --data-dir {shlex.quote(str(data_dir))}"
    verb, _, rest = command.partition(" ")
    if verb in _WITH_ACTIONS:
        action, _, rest = rest.partition(" ")
        verb = f"{verb} {action}"
    return f"{_program()} {verb}{where}{' ' if rest else ''}{rest}"


def _program() -> str:
    beside = Path(sys.executable).with_name("treadle")
    if shutil.which("treadle") or not beside.exists():
        return "treadle"
    return shlex.quote(str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside))
