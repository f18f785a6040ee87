"""Runs a program as another user, who sees this tree and this Python even where only root gets: `python other_user.py UID COMMAND...`."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BIND_WITH_ALL_BELOW = 0x1000 | 0x4000


def as_user(uid: int, *command: str) -> list[str]:
    """The command, in a mount namespace of its own."""
    return ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, str(uid), *command]


def main(uid: int, command: list[str]) -> None:
    closed: dict[Path, set[Path]] = {}
    for needed in {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT}:
        for above in reversed(needed.parents):
            if not above.stat().st_mode & 0o001:
                closed.setdefault(above, set()).add(needed)
                break
    for directory, paths in closed.items():
        kept = {path: os.open(path, os.O_PATH) for path in paths}
        _mount("tmpfs", directory, "tmpfs", 0, "mode=755")
        for path, descriptor in kept.items():
            path.mkdir(parents=True)
            _mount(f"/proc/self/fd/{descriptor}", path, None, _BIND_WITH_ALL_BELOW, None)
            os.close(descriptor)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execvp(command[0], command)


def _mount(source: str, target: Path, kind: str | None, flags: int, data: str | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), bytes(target), kind and kind.encode(), flags, data and data.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount", str(target))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
