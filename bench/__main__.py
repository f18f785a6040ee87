"""`python -m bench [name ...]`: all benchmarks, or the named ones."""

from __future__ import annotations

import asyncio
import importlib
import sys

NAMES = ("start", "execute", "replay", "latency", "relay", "gateway", "models", "agents", "api", "pool", "crowd", "idle")


def main() -> int:
    """0, or 2 for a name that there is not."""
    chosen = sys.argv[1:] or NAMES
    if unknown := set(chosen) - set(NAMES):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
        return 2
    for name in chosen:
        asyncio.run(importlib.import_module(f"bench.{name}").run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
