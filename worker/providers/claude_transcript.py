"""What the Claude program remembers a session by: one file of JSON lines, named by the conversation's id.

It is laid into an empty configuration directory before the program starts, and read back after it ended. Carried between turns are the
id, and the file without the lines that only say what was sent to the model: they are most of it, and nothing needs them.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

_LEFT_OUT = re.compile(rb'\{"type":"(?:api-request[a-z-]*|cost-state)"')
"""Also the running cost, so that the program's figures are those of one turn (the server counts by itself)."""
MAX_BYTES = 32 * 1024 * 1024
"""What is kept of an agent at most (worker/engine.py)."""


class Transcript:
    """The transcript of one conversation in one configuration directory."""

    def __init__(self, home: Path, workspace: Path) -> None:
        self.session_id = str(uuid.uuid4())
        """The conversation's id: our choice for a new one."""
        self._folder = home / "projects" / re.sub(r"[^A-Za-z0-9]", "-", str(workspace.resolve()))
        self._home = home

    @property
    def exists(self) -> bool:
        """Whether there is a conversation to go on with."""
        return self._path.exists()

    @property
    def _path(self) -> Path:
        return self._folder / f"{self.session_id}.jsonl"

    def write(self, data: bytes) -> None:
        """Lay down what `read` gave in an earlier turn; nothing for no bytes. Errors: ValueError when it is none."""
        if not data:
            return
        head, _, lines = data.partition(b"\n")
        found = json.loads(head)
        session_id = found.get("session_id") if isinstance(found, dict) else None
        if not isinstance(session_id, str) or str(uuid.UUID(session_id)) != session_id:
            raise ValueError("the transcript names no conversation")
        self.session_id = session_id
        self._folder.mkdir(parents=True)
        self._path.write_bytes(lines)

    def read(self) -> bytes:
        """What to keep; empty when the conversation did not begin. Of one above 32 MiB a little more than that, which is not kept."""
        # The program may have chosen another folder: its rule for the name is its own.
        path = next(iter((self._home / "projects").glob(f"*/{self.session_id}.jsonl")), None)
        if path is None:
            return b""
        kept = [json.dumps({"session_id": self.session_id}).encode() + b"\n"]
        size = len(kept[0])
        with path.open("rb") as lines:
            for line in lines:
                # A line that was not finished when the program was killed is none.
                if _LEFT_OUT.match(line) or not line.endswith(b"\n"):
                    continue
                kept.append(line)
                size += len(line)
                if size > MAX_BYTES:
                    break
        return b"".join(kept) if len(kept) > 1 else b""
