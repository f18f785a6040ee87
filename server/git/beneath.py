"""Opens what lies beneath a directory whose owner may swap any of it for a link at any moment (openat2(2), else one name at a time)."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence

_OPENAT2 = 437  # on every architecture
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_RESOLVE = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_RENAME_NOREPLACE = 1
_TRIES = 64
"""The kernel gives up (EAGAIN) when something on the way was renamed meanwhile; who renames in a loop makes it do so again and again."""

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _Kernel:
    has_openat2 = True


def open_beneath(root: int, parts: Sequence[bytes], flags: int) -> int:
    """A descriptor of what is at a path beneath the directory `root`, links never followed; `parts` are names. Blocks.
    Errors: OSError: ELOOP for a link, ENOENT, ENOTDIR, ..."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    if _Kernel.has_openat2:
        try:
            return _openat2(root, b"/".join(parts) or b".", flags)
        except OSError as error:
            # Also of a sandbox that does not know the call.
            if error.errno not in {errno.ENOSYS, errno.EPERM}:
                raise
            _Kernel.has_openat2 = False
    return walk_beneath(root, parts, flags)


def walk_beneath(root: int, parts: Sequence[bytes], flags: int) -> int:
    """The same without openat2: each directory is opened in the one before. Errors: OSError."""
    if not parts:
        return os.open(".", flags, dir_fd=root)
    directory = os.dup(root)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = below
        return os.open(parts[-1], flags, dir_fd=directory)
    finally:
        os.close(directory)


def move(source: int, name: bytes, target: int, to: bytes) -> None:
    """Rename from one directory into another, to where nothing is. Blocks. Errors: OSError: EEXIST, ENOENT, ..."""
    if _libc.renameat2(source, name, target, to, _RENAME_NOREPLACE):
        _raise(name)


def _openat2(root: int, path: bytes, flags: int) -> int:
    how = _OpenHow(flags, 0, _RESOLVE)
    for _ in range(_TRIES):
        descriptor = int(_libc.syscall(_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how)))
        if descriptor >= 0:
            return descriptor
        if ctypes.get_errno() not in {errno.EAGAIN, errno.EINTR}:
            break
    return _raise(path)


def _raise(path: bytes) -> int:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), os.fsdecode(path))
