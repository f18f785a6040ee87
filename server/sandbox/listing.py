"""How each file of a workspace looked when it was given to its worker: what still looks so need not be read again.

Whoever gives a workspace away makes the list, after the last change of owner, and keeps it where no worker can write. A file's owner can
set its size and its time of modification back, but neither its inode's number nor the time of its last change, which the kernel sets with
every write, rename, link and change of mode. Each file is listed in its directory, so a directory that takes the place of another one
brings other inodes. As in git's index, what was changed in the last moments before it was looked at is left out: a change in the same
tick of the clock would not show. So are times of whole seconds, which may be all that a file system has.

Not every file system sets that time when a page is written that a process had mapped and read before: tmpfs does not. So there is a list
on those alone that do, and are known to; elsewhere every file is read. An overlay does as what it lies upon does, which it does not tell.

Standard library only, and little of it: every start of a worker waits for it.
"""

from __future__ import annotations

import os
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Directory = tuple[bytes, bytes]
    """The names of its files, each with a NUL behind it, and in the same order what is compared of them."""

_SECOND = 1_000_000_000
_RACY_NS = 20_000_000
"""Two ticks of the slowest clock (HZ=100)."""
_DEPTH = 128
_MOST = 400_000
"""Entries of all directories; what is beyond is read."""
_STATUS = struct.Struct("=QQIqq")
_FRAME = struct.Struct("=III")
_TELLING = frozenset({b"ext4", b"xfs", b"btrfs"})
"""Their page_mkwrite calls file_update_time()."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def beside(workspace: Path) -> Path:
    """Where the list of a workspace is kept."""
    return workspace.with_name(f"{workspace.name}.listing")


def take(tree: str) -> bytes:
    """The list of a tree to which nobody writes, as it is now; without its `.git`. Empty where no list says anything. Blocks. Errors:
    OSError."""
    top = os.open(tree, _DIRECTORY)
    try:
        return b"".join(_take(top, b"", 0, [_MOST])) if _file_system(top) in _TELLING else b""
    finally:
        os.close(top)


def carried(listing: bytes, tree: str, change: Callable[[], None]) -> bytes:
    """A list over a change of owners, to which each file's time of change bears witness: of those that looked as listed until then, how
    they look from then on. Nobody else writes there. Blocks. Errors: OSError."""
    listed, before = read(listing), read(take(tree)) if listing else {}
    change()
    if not listing:
        return b""
    return b"".join(_frame(path, _of(after, _untouched(listed.get(path), before.get(path)))) for path, after in read(take(tree)).items())


def _untouched(listed: Directory | None, now: Directory | None) -> set[bytes]:
    if listed is None or now is None:
        return set()
    was = each(listed)
    return {name for name, status in each(now).items() if was.get(name) == status}


def _of(directory: Directory, names: set[bytes]) -> Directory:
    kept = {name: status for name, status in each(directory).items() if name in names}
    return b"".join(name + b"\0" for name in kept), b"".join(kept.values())


def read(listing: bytes) -> dict[bytes, Directory]:
    """Each directory by its path, with a slash behind it; the root's is empty. What a power cut has torn says nothing of any file."""
    found: dict[bytes, Directory] = {}
    position = 0
    while position + _FRAME.size <= len(listing):
        parts = []
        lengths = _FRAME.unpack_from(listing, position)
        position += _FRAME.size
        for length in lengths:
            parts.append(listing[position : position + length])
            position += length
        found[parts[0]] = (parts[1], parts[2])
    return found


def look(files: Sequence[os.DirEntry[str]]) -> Directory:
    """At these files of one directory, as they are now. Errors: OSError."""
    found = [file.stat(follow_symlinks=False) for file in files]
    pack = _STATUS.pack
    statuses = b"".join([pack(each.st_ino, each.st_size, each.st_mode, each.st_mtime_ns, each.st_ctime_ns) for each in found])
    return os.fsencode("\0".join([*[file.name for file in files], ""])), statuses


def each(directory: Directory) -> dict[bytes, bytes]:
    """What is compared of a file, by its name."""
    names, statuses = directory
    size = _STATUS.size
    return {name: statuses[number * size : (number + 1) * size] for number, name in enumerate(names.split(b"\0")[:-1])}


def _file_system(opened: int) -> bytes:
    """Of proc_pid_fdinfo(5) and proc_pid_mountinfo(5): the number of a device does not tell, on btrfs it is none of any mount's."""
    with open(f"/proc/self/fdinfo/{opened}", "rb") as facts:  # noqa: PTH123 - pathlib is much to load
        mount = next((line.split()[1] for line in facts if line.startswith(b"mnt_id:")), b"")
    with open("/proc/self/mountinfo", "rb") as mounts:  # noqa: PTH123
        kinds = (line.partition(b" - ")[2].split()[0] for line in mounts if line.split()[0] == mount)
        return next(kinds, b"")


def _take(here: int, path: bytes, depth: int, room: list[int]) -> Iterator[bytes]:
    files, below = [], []
    now = time.time_ns()
    with os.scandir(here) as entries:
        for entry in entries:
            room[0] -= 1
            if room[0] < 0:
                return
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            elif _is_telling(entry.stat(follow_symlinks=False).st_ctime_ns, now):
                files.append(entry)
        yield _frame(path, look(files))
    for name in below if depth < _DEPTH else ():
        if path or name != ".git":
            inner = os.open(name, _DIRECTORY, dir_fd=here)
            try:
                yield from _take(inner, path + os.fsencode(name) + b"/", depth + 1, room)
            finally:
                os.close(inner)


def _frame(path: bytes, directory: Directory) -> bytes:
    names, statuses = directory
    return _FRAME.pack(len(path), len(names), len(statuses)) + path + names + statuses if names else b""


def _is_telling(changed: int, now: int) -> bool:
    return changed + _RACY_NS < now and changed % _SECOND != 0
