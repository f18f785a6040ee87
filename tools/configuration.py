"""Writes docs/configuration.md from the classes of settings; `--check` only compares.

The file is committed, so that it can be read anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from server.config import Settings
from server.gateway_settings import GatewaySettings
from server.spawner.settings import SpawnerSettings

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Every setting of the main server is an environment variable. A value that cannot be right stops the start and says why, and so does a
variable whose name begins with `TREADLE_` and is none of these: a slip in a limit's name would be no limit. (`treadle doctor` tells both.)
Left alone are `TREADLE_ADDRESS`, `TREADLE_API_KEY` and `TREADLE_API_KEY_FILE`, by which clients find a server, and what Kubernetes and
Docker set for services and links of these names. The commands that call a server do not look at its settings. `treadle up` sets the
database's URLs itself. With `TREADLE_SECRETS_DIR=/run/secrets`, values are also read from files there that are named as the variables
are, in small letters (`treadle_database_url`); a variable counts before its file. Made from `server/config.py`,
`server/spawner/settings.py` and `server/gateway_settings.py` by `tools/configuration.py`.

"""
COLUMNS = """| variable | default | meaning |
|---|---|---|
"""
SPAWNER = """
## Containers (launcher `docker`)

Read by the spawner alone (`python -m server.spawner`, which `treadle up` starts), beside the variables of the table above that it shares
with the server: `TREADLE_DATA_DIR`, `TREADLE_WORKER_ROOT`, `TREADLE_SPAWNER_SOCKET`, `TREADLE_WORKER_ORPHAN_SECONDS`,
`TREADLE_WORKER_MEMORY_MIB`, `TREADLE_LOG_FORMAT` and `TREADLE_LOG_LEVEL`. A server (`python -m server`) for which
`TREADLE_SPAWNER_SOCKET` or `TREADLE_SPAWNER_TCP` is set does not start with one of these variables,
or `TREADLE_WORKER_MEMORY_MIB`, in its own environment.

"""
GATEWAY = """
## The gateway by itself (`python -m server.gateway`)

Where it runs beside the server, as in `docker-compose.yml`. It also reads `TREADLE_GATEWAY_LISTEN`, `TREADLE_GATEWAY_METRICS_LISTEN`,
`TREADLE_GATEWAY_ORIGINS`, `TREADLE_GATEWAY_TLS_CERTIFICATE`, `TREADLE_GATEWAY_TLS_KEY`, `TREADLE_EGRESS_PROXY_CREDENTIAL`,
`TREADLE_EGRESS_NETWORKS`, `TREADLE_EGRESS_DENIED_NETWORKS`, `TREADLE_LOG_FORMAT` and `TREADLE_HEARTBEAT_SECONDS` of the first table.

"""


def table() -> str:
    """The whole page."""
    return HEAD + _rows(Settings.model_fields) + SPAWNER + _rows(_besides(SpawnerSettings)) + GATEWAY + _rows(_besides(GatewaySettings))


def _besides(kind: type[BaseSettings]) -> dict[str, FieldInfo]:
    return {name: field for name, field in kind.model_fields.items() if name not in Settings.model_fields}


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
