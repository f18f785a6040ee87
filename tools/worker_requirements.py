"""Prints what a worker's image needs for the agent that is named: what the messages need, and the agent's extra."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(provider: str) -> None:
    """From the two files beside this one, as worker/Dockerfile lays them."""
    protos, treadle = (tomllib.loads(Path(name).read_text())["project"] for name in ("protos.toml", "pyproject.toml"))
    sys.stdout.write("\n".join(f"'{each}'" for each in [*protos["dependencies"], *treadle["optional-dependencies"].get(provider, [])]))


if __name__ == "__main__":
    main(*sys.argv[1:])
