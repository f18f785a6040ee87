"""Paths as callers give them."""

from __future__ import annotations

import base64
import binascii

from server.git.walker.names import is_git_directory, is_gitattributes, is_gitmodules
from server.git.walker.screen import gitattributes_is_harmless, gitmodules_is_harmless
from server.kernel.errors import InvalidField, PathInvalid

FILE_BYTES = 16 * 1024 * 1024
"""The longest content of a write: a request holds no more."""
KEEP = b".gitkeep"
"""Makes a directory stay that nothing else is in: Git knows no empty ones."""
PATH_BYTES = 3000
DEPTH = 128
_NAME_BYTES = 255


def parts_of(path: str) -> tuple[bytes, ...]:
    """The names of a path that stays in its tree; none of the root's, which is empty. Errors: PathInvalid."""
    if not path:
        return ()
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise PathInvalid(ascii(path), "is no UTF-8") from None
    parts = tuple(encoded.split(b"/"))
    if b"\0" in encoded:
        raise PathInvalid(ascii(path), "holds a NUL")
    if any(part in {b"", b".", b".."} for part in parts):
        raise PathInvalid(path, "is not of the form a/b/c, relative and without `.` and `..`")
    if len(encoded) > PATH_BYTES or len(parts) > DEPTH or any(len(part) > _NAME_BYTES for part in parts):
        raise PathInvalid(path, "is too long or too deep")
    return parts


def writable_parts_of(path: str) -> tuple[bytes, ...]:
    """The same for a path that is to be written: it touches no `.git`, whatever the file system makes of names. Errors: PathInvalid."""
    parts = parts_of(path)
    if not parts:
        raise PathInvalid(path, "is the root")
    for part in parts:
        if is_git_directory(part):
            raise PathInvalid(path, "is, or looks to some file system like, Git's own directory")
        if (is_gitmodules(part) and part != b".gitmodules") or (is_gitattributes(part) and part != b".gitattributes"):
            raise PathInvalid(path, "looks to some file system like a file of Git's")
    return parts


def streamable_parts_of(path: str) -> tuple[bytes, ...]:
    """The same for a file whose content nobody has at once. Errors: PathInvalid."""
    parts = writable_parts_of(path)
    if parts[-1] in {b".gitmodules", b".gitattributes"}:
        raise PathInvalid(path, "is written by EditFiles: Git judges its content")
    return parts


def check_content(path: str, name: bytes, content: bytes) -> None:
    """What Git would refuse, and with it the whole commit. Errors: PathInvalid."""
    if name == b".gitmodules" and not gitmodules_is_harmless(content):
        raise PathInvalid(path, "has a line that Git does not take in a .gitmodules")
    if name == b".gitattributes" and not gitattributes_is_harmless(content):
        raise PathInvalid(path, "has more than Git reads of a .gitattributes")


def without_content(path: str) -> InvalidField:
    """The refusal of an edit that says how a file is, and not what is in it, where there is none."""
    return InvalidField("edits", f"{path!r} is not there: of a new file say the content, data or text")


def page_token(key: bytes) -> str:
    """For the page that begins behind the path `key`."""
    return base64.urlsafe_b64encode(key).decode()


def page_key(token: str) -> bytes:
    """Errors: InvalidField."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidField("page_token", "is not one of this call's") from None
