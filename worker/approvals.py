"""What a person is offered before an agent acts, and what a yes "for the like" covers: as little as its words say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from treadle.session.v1 import event_pb2 as session
from worker.paths import shown
from worker.text import plain

ALLOW: Final = "allow"
ALLOW_LIKE: Final = "allow-like"
REJECT: Final = "reject"

_MERE_WORDS = ("description", "timeout", "timeout_seconds")
"""Fields of commands that do not change what is run."""


@dataclass(frozen=True)
class Like:
    """What counts as the same again. A command's first words would cover whatever is chained behind them."""

    key: str
    label: str

    def options(self) -> list[session.ApprovalOption]:
        """The answers that are offered."""
        return [
            session.ApprovalOption(id=ALLOW, kind=session.APPROVAL_OPTION_KIND_ALLOW_ONCE),
            session.ApprovalOption(id=ALLOW_LIKE, kind=session.APPROVAL_OPTION_KIND_ALLOW_SESSION, label=self.label),
            session.ApprovalOption(id=REJECT, kind=session.APPROVAL_OPTION_KIND_REJECT_ONCE),
        ]


def like(call: session.ToolCall, given: Mapping[str, Any], workspace: Path) -> Like:
    """For an edit: changes of the same file, whatever it is called. For all else: the very same again."""
    path = given.get("notebook_path" if call.name == "NotebookEdit" else "file_path")
    if call.tool_kind == session.TOOL_KIND_EDIT and isinstance(path, str) and path and is_text(path):
        words = f"yes, and every further change of {shown(workspace, path)}"
        return Like(f"edit {os.path.realpath(workspace / path)}", words)
    same = json.dumps({name: value for name, value in given.items() if name not in _MERE_WORDS}, sort_keys=True)
    what = "this very command" if call.tool_kind == session.TOOL_KIND_EXECUTE else "the very same"
    return Like(f"{call.name} {same}", f"yes, and {what} again")


def is_text(path: str) -> bool:
    """Whether a file could have this path, and an event hold it."""
    return "\0" not in path and plain(path) == path
