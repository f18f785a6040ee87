"""Names that some file system takes for `.git`, `.gitmodules` or `.gitattributes`, as git's own fsck sees them.

Source: git 2.39 `path.c` (is_ntfs_dotgit, is_ntfs_dot_generic) and `utf8.c` (next_hfs_char, is_hfs_dot_generic).
"""

from __future__ import annotations

import re

_HFS_IGNORES = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])
_NTFS_TAIL = r"[ .]*(:.*)?\Z"
_GIT = re.compile(r"(\.git|git~1)" + _NTFS_TAIL, re.IGNORECASE | re.ASCII | re.DOTALL)


def _dot_file(name: str, short: str) -> re.Pattern[str]:
    forms = [rf"\.{name}", rf"{name[:6]}~[1-4]"]
    # NTFS falls back to a hash when the first four short names are taken: `gi7eba~1`, `gi7eb~12`, ... eight characters in all.
    forms += [rf"{short[:kept]}~[1-9][0-9]{{{6 - kept}}}" for kept in range(7)]
    return re.compile(f"({'|'.join(forms)}){_NTFS_TAIL}", re.IGNORECASE | re.ASCII | re.DOTALL)


_GITMODULES = _dot_file("gitmodules", "gi7eba")
_GITATTRIBUTES = _dot_file("gitattributes", "gi7d29")


def is_plain(name: bytes) -> bool:
    """Whether none of the others needs to be asked: so it is with most names, at a tenth of the price."""
    return name.isascii() and name[:1] != b"." and b"~" not in name and b"\\" not in name


def are_plain(names: bytes) -> bool:
    """The same of many, each with a NUL behind it: one by one, 80,000 take ten times as long."""
    return is_plain(names) and b"\0." not in names


def is_git_directory(name: bytes) -> bool:
    """Whether the name of a file or directory is `.git` on HFS+ or NTFS, or anywhere."""
    return _matches(_GIT, name)


def is_gitmodules(name: bytes) -> bool:
    """Whether the name is `.gitmodules` after folding."""
    return _matches(_GITMODULES, name)


def is_gitattributes(name: bytes) -> bool:
    """Whether the name is `.gitattributes` after folding."""
    return _matches(_GITATTRIBUTES, name)


def is_safe_path(path: bytes) -> bool:
    """Whether a path stays in its tree and touches no `.git`."""
    parts = path.split(b"/")
    return b"\0" not in path and all(part not in {b"", b".", b".."} and not is_git_directory(part) for part in parts)


def _matches(pattern: re.Pattern[str], name: bytes) -> bool:
    if is_plain(name):
        return False
    parts = name.decode("utf-8", "surrogateescape").split("\\")
    return any(pattern.match(part) or pattern.match(part.translate(_HFS_IGNORES)) for part in parts)
