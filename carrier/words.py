"""What a server says to a carrier: on each connection one line of JSON, `{"do": …}`, which is answered by another.

state                how far it is: {"phase": …, "machine": …}
fill                 then a tree (tree.py); answered when all of it is there
start   line, calls  start the worker, with `line` on its standard input, unless that happened; `calls` filters its system calls
worker               from here on this is a connection to the worker's socket (joined.py)
door    name         kept until the agent connects to that door of the server's; then TAKEN, and from here on it is that connection
wait                 answered when the worker, and all that it started, has ended: {"code", "stopped", "oom_killed",
                     "log_tail"}
stop                 end it, then as wait; from now on none is started
take                 answered, then the tree that it left
leave                answered, then the container ends
occupied             {"bytes": …, "files": …} that it takes of the disk
"""

from __future__ import annotations

import json
from typing import Any

LINE_BYTES = 256 * 1024
"""No line is longer."""
EMPTY, FULL, RUNNING, ENDED = "empty", "full", "running", "ended"
TAKEN = b"!"
"""The agent has connected to the door that a connection was kept for."""


class Unclear(Exception):
    """What was said is no line, or says that something did not work."""


def line(words: dict[str, Any]) -> bytes:
    """As it is sent."""
    return json.dumps(words).encode() + b"\n"


def read(data: bytes) -> dict[str, Any]:
    """As it was received. Errors: Unclear."""
    try:
        words = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unclear("what was said is no line of JSON, or breaks off") from error
    if not isinstance(words, dict):
        raise Unclear("what was said is no object")
    if "error" in words:
        # JSON has halves of characters, which no file takes.
        raise Unclear(str(words["error"])[:500].encode(errors="replace").decode())
    return words
