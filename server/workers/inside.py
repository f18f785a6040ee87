"""Where a worker finds its things behind its wall, whatever that is built of."""

from __future__ import annotations

from pathlib import PurePosixPath

from server.workers.slot import MODEL_SOCKET_NAME, SOCKET_NAME

WORKSPACE, RUN, MODELS = PurePosixPath("/workspace"), PurePosixPath("/run/treadle"), PurePosixPath("/run/models")
ENVIRONMENT = {"GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "ERROR"}


def configuration(*, orphan_seconds: float, max_processes: int) -> dict[str, object]:
    """What the worker is told on its standard input (worker/__main__.py), without the secret."""
    return {
        "socket": str(RUN / SOCKET_NAME),
        "models": str(MODELS / MODEL_SOCKET_NAME),
        "workspace": str(WORKSPACE),
        "orphan_seconds": orphan_seconds,
        "max_processes": max_processes,
    }
