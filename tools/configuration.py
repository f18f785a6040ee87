"""Writes docs/configuration.md from server/config.py and server/spawner/settings.py; `--check` only compares.

The file is committed, so that it can be read anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from server.config import Settings
from server.spawner.settings import SpawnerSettings

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Every setting of the main server is an environment variable. A value that cannot be right stops the start and says why, and so does a
variable whose name begins with `TREADLE_` and is none of these: a slip in a limit's name would be no limit. (`treadle doctor` tells both.)
Left alone are `TREADLE_ADDRESS`, `TREADLE_API_KEY` and `TREADLE_API_KEY_FILE`, by which clients find a server, and what Kubernetes and
Docker set for services and links of these names. The commands that call a server do not look at its settings. `treadle up` sets the
database's URLs itself. Made from `server/config.py` and `server/spawner/settings.py` by `tools/configuration.py`.

"""
COLUMNS = """| variable | default | meaning |
|---|---|---|
"""
SPAWNER = """
## Containers (launcher `docker`)

Read by the spawner alone (`python -m server.spawner`, which `treadle up` starts), beside the variables of the table above that it shares
with the server: `TREADLE_DATA_DIR`, `TREADLE_WORKER_ROOT`, `TREADLE_SPAWNER_SOCKET`, `TREADLE_WORKER_ORPHAN_SECONDS`,
`TREADLE_WORKER_MEMORY_MIB`, `TREADLE_LOG_FORMAT` and `TREADLE_LOG_LEVEL`.

"""


def table() -> str:
    """The whole page."""
    own = {name: field for name, field in SpawnerSettings.model_fields.items() if name not in Settings.model_fields}
    return HEAD + _rows(Settings.model_fields) + SPAWNER + _rows(own)


def _rows(fields: Mapping[str, FieldInfo]) -> str:
    rows = [f"| `TREADLE_{name.upper()}` | {_default(field.default)} | {field.description} |\n" for name, field in fields.items()]
    return COLUMNS + "".join(rows)


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
