"""Names of refs and commits, checked before they reach a command line."""

from __future__ import annotations

import hashlib
import re

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|\Z)")
SNAPSHOT = "refs/heads/snapshot"


def is_branch(name: str) -> bool:
    """Whether git would take this as a branch name (git-check-ref-format(1)), and no program as an option."""
    return (
        bool(name)
        and len(name) <= 250
        and name != "@"
        and not name.startswith(("-", "/", "."))
        and not (name.endswith(("/", ".")) or _FORBIDDEN.search(name))
    )


def branch_ref(name: str) -> str:
    """The full ref of a branch. Errors: ValueError for a name that git would not take."""
    if not is_branch(name):
        raise ValueError(f"not a branch name: {name!r}")
    return f"refs/heads/{name}"


def fetched_ref(branch: str) -> str:
    """Where a mirror keeps a remote's branch. A flat name, because branches come and go on the remote: one named `feature` that was
    deleted there would be in the way of `feature/x` here for ever. Errors: ValueError as for `branch_ref`."""
    return f"refs/treadle/fetched/{hashlib.sha1(branch_ref(branch).encode(), usedforsecurity=False).hexdigest()}"


def session_ref(session_id: str) -> str:
    """The private ref that keeps a session's commits. Errors: ValueError for an id that is no single ref component."""
    if not is_branch(session_id) or "/" in session_id:
        raise ValueError(f"not a session id: {session_id!r}")
    return f"refs/treadle/sessions/{session_id}"


def commit_id(value: str) -> str:
    """The value, if it is a full SHA-1. Errors: ValueError."""
    if not _COMMIT.match(value):
        raise ValueError(f"not a commit id: {value!r}")
    return value
