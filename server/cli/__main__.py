"""The `treadle` command; `python -m server.cli` where its script is not installed."""

from __future__ import annotations

import signal
import sys


def run() -> int:
    """While the rest is being imported, Ctrl-C ends the process as it ends any other: without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from server.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
