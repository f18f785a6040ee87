"""Writes docs/configuration.md from server/config.py; `--check` only compares. The file is committed, so that it can be read anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from server.config import Settings

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Every setting of the main server is an environment variable. A value that cannot be right stops the start and says why, and so does a
variable whose name begins with `TREADLE_` and is none of these: a slip in a limit's name would be no limit. (`treadle doctor` tells both.)
Left alone are `TREADLE_ADDRESS`, `TREADLE_API_KEY` and `TREADLE_API_KEY_FILE`, by which clients find a server, and what Kubernetes and
Docker set for services and links of these names. The commands that call a server do not look at its settings. `treadle up` sets the
database's URLs itself. Made from `server/config.py` by `tools/configuration.py`.

| variable | default | meaning |
|---|---|---|
"""


def table() -> str:
    """The whole page."""
    rows = [
        f"| `TREADLE_{name.upper()}` | {_default(field.default)} | {field.description} |" for name, field in Settings.model_fields.items()
    ]
    return HEAD + "\n".join(rows) + "\n"


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "`/var/lib/treadle` for root, else `~/.local/share/treadle`"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{value}`" if value not in ("", None) else "none"


def main() -> int:
    """0 when the page is as it should be."""
    if "--check" in sys.argv:
        if TARGET.read_text() != table():
            print("docs/configuration.md is not what tools/configuration.py makes of server/config.py")
            return 1
        return 0
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
