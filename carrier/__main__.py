"""`python -m carrier`: the first program in a worker's container in a Swarm.

Its configuration is a file that root alone can read (a secret of the Swarm): one object of JSON with `port`, `certificate` and `key` (its
own), `server` (the certificate that it lets in) and `orphan_seconds`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from pathlib import Path

from carrier.service import Carrier, Configuration
from carrier.wall import raise_wall

_GIVEN = ("/workspace", "/tmp", "/home/agent", "/run/treadle")  # noqa: S108 the container's own
_BACKLOG = 128


def main() -> None:
    """Entry point."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    path, uid = Path(sys.argv[1]), int(sys.argv[2])
    configuration = Configuration(uid=uid, **json.loads(path.read_text(encoding="ascii")))
    # While there is a network to listen on.
    listener = socket.create_server(("", configuration.port), backlog=_BACKLOG)
    raise_wall(uid, _GIVEN)
    asyncio.run(Carrier(configuration, listener).serve())


if __name__ == "__main__":
    main()
