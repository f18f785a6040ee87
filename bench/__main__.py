"""`python -m bench [name ...]`: all benchmarks, or the named ones; `python -m bench storage --only PART`: a part of one that has parts."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys

NAMES = ("start", "execute", "replay", "latency", "relay", "gateway", "models", "agents", "api", "pool", "storage", "crowd", "idle")


def main() -> int:
    """0, or 2 for a name that there is not."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", metavar="name")
    parser.add_argument("--only", metavar="PART", default="")
    arguments = parser.parse_args()
    chosen = arguments.names or NAMES
    if unknown := set(chosen) - set(NAMES):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
        return 2
    for name in chosen:
        asyncio.run(importlib.import_module(f"bench.{name}").run(*filter(None, [arguments.only])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
