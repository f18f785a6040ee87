"""What a person is shown and offered before an agent acts, and what a yes "for the like" covers: as little as its words say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from treadle.session.v1 import event_pb2 as session
from worker.changes import Look, difference, look
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
    if path := _edited(call, given, workspace):
        return Like(f"edit {path}", f"yes, and every further change of {_shown(workspace, path)}")
    same = json.dumps({name: value for name, value in given.items() if name not in _MERE_WORDS}, sort_keys=True)
    what = "this very command" if call.tool_kind == session.TOOL_KIND_EXECUTE else "the very same"
    return Like(f"{call.name} {same}", f"yes, and {what} again")


def foreseen(call: session.ToolCall, given: Mapping[str, Any], workspace: Path) -> list[session.FileChange]:
    """What an edit would do to its file as it is now; nothing where that cannot be said, and the input is all there is to see. Reads the
    file; changes nothing."""
    path = _edited(call, given, workspace)
    looks = _edit(call.name, look(Path(path)), given) if path else None
    change = difference(_shown(workspace, path), *looks) if looks else None
    return [] if change is None else [change]


def _edited(call: session.ToolCall, given: Mapping[str, Any], workspace: Path) -> str:
    """The file of an edit, where links lead to; empty for all else, and for what is no path."""
    path = given.get("notebook_path" if call.name == "NotebookEdit" else "file_path")
    known = call.tool_kind == session.TOOL_KIND_EDIT and isinstance(path, str) and "\0" not in path and plain(path) == path
    return os.path.realpath(workspace / path) if known and path else ""


def _shown(workspace: Path, path: str) -> str:
    # The name that the agent gave may be a link's: a person says yes to the file that is changed.
    return plain(shown(workspace, path))


def _edit(tool: str, before: Look, given: Mapping[str, Any]) -> tuple[Look, Look] | None:
    """Before and after, by the fields that this very tool reads: another's beside them may hold anything."""
    match tool, given:
        case "Write" | "write", {"content": str(content)}:
            return before, _look_of(content)
        case "Edit" | "edit", {"old_string": str(old), "new_string": str(new)}:
            return _replacement(before, old, new, every=given.get("replace_all") is True)
        case "NotebookEdit", {"new_source": str(new)} if given.get("edit_mode") != "delete":
            return _look_of(""), _look_of(new)
    return None


def _replacement(before: Look, old: str, new: str, *, every: bool) -> tuple[Look, Look]:
    """Where the place is not found, the two texts: the agent's program may look more closely."""
    text = before.content.decode(errors="replace")
    if old and before.whole and old in text:
        return before, _look_of(text.replace(old, new, -1 if every else 1))
    return _look_of(old), _look_of(new)


def _look_of(text: str) -> Look:
    return Look(exists=True, content=plain(text).encode())
