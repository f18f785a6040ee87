"""`.gitignore`, evaluated by libgit2 in an empty repository of our own that holds copies of the tree's `.gitignore` files only.

Matching can take exponential time, in one call that nothing can interrupt. So there is a budget of processor time for all of it, and
what enforces it is the kernel: when it is used up, SIGPROF ends this process. The trusted side knows that signal, and walks again
without rules.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tempfile

_FILE_BYTES = 64 * 1024
_LINES = 2000
_LINE_BYTES = 1024
_STARS = 6
_STARS_AFTER_TWO = 2
_PATH_BYTES = 1024
"""Longer paths are never ignored: with `**`, the time for one match grows with a power of the path's length."""


class Ignored:
    """Which new paths git would leave out. Modules are loaded only when there is a rule to ask about: they cost more than a small walk."""

    def __init__(self, *, cpu_seconds: float) -> None:
        """At most `cpu_seconds` of processor time in all, then the process dies of SIGPROF; with 0 nothing is ever ignored."""
        self._left = cpu_seconds
        self._enabled = cpu_seconds > 0
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
        if os.getpid() == 1:
            raise RuntimeError("the walker is process 1 of its namespace, which no signal ends: .gitignore would have no limit")
        self._root: tempfile.TemporaryDirectory[str] | None = None
        self._repository: Any = None

    def learn(self, directory: bytes, content: bytes) -> None:
        """Take over the `.gitignore` of a directory ("" for the root)."""
        if not self._enabled:
            return
        from pathlib import Path
        from tempfile import TemporaryDirectory

        if self._root is None:
            self._root = TemporaryDirectory(prefix="ignore-")
        target = Path(self._root.name, _text(directory))
        try:
            target.mkdir(parents=True, exist_ok=True)
            (target / ".gitignore").write_bytes(_affordable(content))
        except OSError:
            return  # a tree that needs more room for its rules than there is does without the rest of them

    def __call__(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether a path that the base does not hold is ignored."""
        if self._root is None or len(path) > _PATH_BYTES:
            return False
        if self._repository is None:
            self._repository = _empty_repository(self._root.name)
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, self._left)
        try:
            return bool(self._repository.path_is_ignored(_text(path) + ("/" if is_directory else "")))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            # Not from the timer: it is rounded up each time that it is set.
            self._left -= time.process_time() - begun
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGPROF)

    def close(self) -> None:
        """Remove the copies."""
        if self._root is not None:
            self._root.cleanup()


def _text(path: bytes) -> str:
    """As pygit2 takes it; a byte that is no UTF-8 becomes `?`, so that names do not grow."""
    return path.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()


def _affordable(content: bytes) -> bytes:
    """Without lines that only somebody who wants to burn our time would write: matching is exponential in the wildcards."""
    return b"\n".join(line for line in content[:_FILE_BYTES].split(b"\n")[:_LINES] if _is_affordable(line)) + b"\n"


def _is_affordable(line: bytes) -> bool:
    stars = line.count(b"*")
    more = stars - 2 * line.count(b"**")
    return len(line) <= _LINE_BYTES and b"\0" not in line and stars <= _STARS and (more == stars or more <= _STARS_AFTER_TWO)


def _empty_repository(root: str) -> Any:
    import pygit2
    from pygit2.enums import ConfigLevel

    for level in (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL, ConfigLevel.PROGRAMDATA):
        pygit2.settings.search_path[level] = ""
    return pygit2.init_repository(root)
