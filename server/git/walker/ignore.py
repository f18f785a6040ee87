"""`.gitignore`, evaluated by libgit2 in an empty repository of our own that holds copies of the tree's `.gitignore` files only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tempfile

_FILE_BYTES = 64 * 1024
_LINES = 2000
_LINE_BYTES = 1024
_STARS = 6


class Ignored:
    """Which new paths git would leave out. Modules are loaded only when there is a rule to ask about: they cost more than a small walk."""

    def __init__(self) -> None:
        self._root: tempfile.TemporaryDirectory[str] | None = None
        self._repository: Any = None

    def learn(self, directory: bytes, content: bytes) -> None:
        """Take over the `.gitignore` of a directory ("" for the root)."""
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
        if self._root is None:
            return False
        if self._repository is None:
            self._repository = _empty_repository(self._root.name)
        return bool(self._repository.path_is_ignored(_text(path) + ("/" if is_directory else "")))

    def close(self) -> None:
        """Remove the copies."""
        if self._root is not None:
            self._root.cleanup()


def _text(path: bytes) -> str:
    """As pygit2 takes it; a byte that is no UTF-8 becomes `?`, so that names do not grow."""
    return path.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()


def _affordable(content: bytes) -> bytes:
    """Without lines that only somebody who wants to burn our time would write: matching is exponential in the wildcards."""
    lines = content[:_FILE_BYTES].split(b"\n")[:_LINES]
    return b"\n".join(line for line in lines if len(line) <= _LINE_BYTES and line.count(b"*") <= _STARS and b"\0" not in line) + b"\n"


def _empty_repository(root: str) -> Any:
    import pygit2
    from pygit2.enums import ConfigLevel

    for level in (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL, ConfigLevel.PROGRAMDATA):
        pygit2.settings.search_path[level] = ""
    return pygit2.init_repository(root)
