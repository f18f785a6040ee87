"""Files that git itself would refuse, and with them the whole import: found here, so that only they are left out.

Stricter than git's fsck on purpose: it accepts a small grammar and does not try to read the rest as git would.
"""

from __future__ import annotations

import re

from server.git.walker.names import is_git_directory, is_gitattributes, is_gitmodules, is_plain

_MODULES_LINE = re.compile(
    rb"""\s*(?:
        [#;].*
      | \[submodule\ "(?P<name>[A-Za-z0-9._/+@\ -]+)"\]
      | (?:path|branch|ignore|shallow|fetchRecurseSubmodules|update|url)\s*=\s*(?P<value>[^-\s"\\!#;][^"\\#;]*)?
    )?\s*\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_URL = re.compile(
    rb"(?:https?|ssh|git)://[A-Za-z0-9][A-Za-z0-9.@:/_~+-]*\Z|\.\.?/[A-Za-z0-9./_~+-]*\Z|[a-z]+@[A-Za-z0-9][A-Za-z0-9.-]*:[A-Za-z0-9./_~+-]+\Z"
)
_MODULES_BYTES = 256 * 1024
_ATTRIBUTES_BYTES = 1024 * 1024
_ATTRIBUTES_LINE = 2048


def gitmodules_is_harmless(content: bytes) -> bool:
    """Whether every line is a plain submodule setting with an ordinary URL and path."""
    return len(content) <= _MODULES_BYTES and all(_modules_line_is_harmless(line) for line in content.split(b"\n"))


def _modules_line_is_harmless(line: bytes) -> bool:
    found = _MODULES_LINE.match(line)
    if not found:
        return False
    name, value = found["name"], (found["value"] or b"").strip()
    if b".." in (name or b"").split(b"/"):
        return False
    key = line.split(b"=")[0].strip().lower()
    if key == b"url":
        return bool(_URL.match(value)) and b"/../.." not in value
    return key != b"update" or value in {b"", b"checkout", b"rebase", b"merge", b"none"}


def gitattributes_is_harmless(content: bytes) -> bool:
    """Whether git would read all of it: 2,048 bytes a line at most."""
    return len(content) <= _ATTRIBUTES_BYTES and all(len(line) < _ATTRIBUTES_LINE for line in content.split(b"\n"))


def refused_name(name: bytes, *, is_directory: bool) -> str:
    """Why nothing may have this name ("" when it may)."""
    if is_plain(name):
        return ""
    if is_git_directory(name):
        return "GIT_DIRECTORY"
    if is_gitmodules(name) and (is_directory or name != b".gitmodules"):
        return "BAD_GITMODULES"
    if is_gitattributes(name) and (is_directory or name != b".gitattributes"):
        return "BAD_GITATTRIBUTES"
    return ""


def refused_content(name: bytes, content: bytes | None) -> str:
    """Why a file of this name may not have this content ("" when it may); None is one too large to be looked at."""
    if is_plain(name):
        return ""
    if is_gitmodules(name) and not (content is not None and gitmodules_is_harmless(content)):
        return "BAD_GITMODULES"
    if is_gitattributes(name) and not (content is not None and gitattributes_is_harmless(content)):
        return "BAD_GITATTRIBUTES"
    return ""
