"""`python -m server`: the main server alone, for deployments that bring their own Postgres. `treadle up` brings everything."""

from __future__ import annotations

import sys

from server.config import Settings
from server.serve import serve_until_signal


def main() -> int:
    """Exit code 0 after SIGTERM or SIGINT, 1 when the server could not go on."""
    return serve_until_signal(Settings())


if __name__ == "__main__":
    sys.exit(main())
