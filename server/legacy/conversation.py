"""A conversation of the old system, as this one's worker lays it down for Claude (worker/providers/claude_transcript.py).

There the program finds it by the directory in which it works now; the old one, which is in every line, decides nothing.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import PurePosixPath

PROVIDER = "claude"
MAX_BYTES = 32 * 1024 * 1024
_SECRETS = re.compile(
    rb'(?<=://)[^\s/@"\\]{8,}(?=@)'  # in the URL of a remote: the old system put its token there
    rb"|\b(?:gh[pousr]_|github_pat_|sk-)[A-Za-z0-9_-]{20,}"
)


def transcript_from(path: str, lines: bytes) -> bytes:
    """The transcript; none for what is no conversation, or is longer than a transcript may be. Takes some 10 ms per MiB."""
    try:
        conversation = str(uuid.UUID(PurePosixPath(path).stem))
    except ValueError:
        return b""
    # A line that was not finished when the program was killed is none.
    whole = lines[: lines.rfind(b"\n") + 1]
    made = json.dumps({"session_id": conversation}).encode() + b"\n" + _SECRETS.sub(lambda match: b"*" * len(match[0]), whole)
    return made if whole and len(made) <= MAX_BYTES else b""
