"""The statements of `queries.sql`, by name."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)


def _load(path: Path) -> dict[str, str]:
    _, *parts = _NAME.split(path.read_text())
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


SQL = MappingProxyType(_load(Path(__file__).with_name("queries.sql")))
"""A statement begins behind a line `-- name --` and ends before the next one."""
