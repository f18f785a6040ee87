"""`python -m server`: the main server alone, for deployments that bring their own Postgres. `treadle up` brings everything."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Exit code 0 after SIGTERM or SIGINT, 1 when the server could not go on."""
    # Read when grpc is imported. We fork only to run other programs; gRPC's own preparations for a fork print warnings then.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from server.config import Settings
    from server.serve import serve_until_signal

    return serve_until_signal(Settings())


if __name__ == "__main__":
    sys.exit(main())
