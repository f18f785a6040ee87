"""Where everything that must survive is kept. Apart from `config` because the command line needs only this, and at once."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """`/var/lib/treadle` for root, else `$XDG_DATA_HOME/treadle` or `~/.local/share/treadle`."""
    if os.geteuid() == 0:
        return Path("/var/lib/treadle")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "treadle"


def chosen_data_dir(given: str | None) -> Path:
    """The one that was given, else that of the environment (TREADLE_DATA_DIR), else the default; absolute."""
    chosen = given or os.environ.get("TREADLE_DATA_DIR")
    return (Path(chosen) if chosen else default_data_dir()).expanduser().absolute()


def nearest_existing(path: Path) -> Path:
    """The path, or the first of its parents that is there."""
    return next((step for step in (path, *path.parents) if step.exists()), Path("/"))
