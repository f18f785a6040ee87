"""`treadle version`."""

from __future__ import annotations

import argparse
from importlib.metadata import version

from server.cli.failure import ExitCode


def run(_: argparse.Namespace) -> ExitCode:
    """Print the version."""
    print(f"treadle {version('treadle')}")
    return ExitCode.DONE
