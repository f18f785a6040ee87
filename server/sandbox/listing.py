"""How each file of a workspace looked when it was given to its worker: what still looks so need not be read again.

Whoever gives a workspace away makes the list, after the last change of owner, and keeps it where no worker can write. A file's owner can
set its size and its time of modification back, but neither its inode's number nor the time of its last change, which the kernel sets with
every write, rename, link and change of mode: but for ioctls that exchange the blocks of two files. ext4's is refused to workers (calls.py).
XFS has more than one (XFS_IOC_SWAPEXT, XFS_IOC_EXCHANGE_RANGE), so there is no list on it.

Each file is listed in its directory, so a directory that takes the place of another one brings other inodes. A directory is listed itself,
too, with the names of those in it: while it looks as listed nothing has come into it or gone, and it need not be read, which costs half as
much as to look at its files. As in git's index, what was changed in the last moments before it was looked at is left out: a change in the
same tick of the clock would not show. So are times of whole seconds, which may be all that a file system has.

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

    Files = tuple[bytes, bytes]
    """Names, each with a NUL behind it, sorted, and in the same order what is compared of them."""

    Directory = tuple[bytes, bytes, bytes, bytes]
    """Its files; the names of the directories in it; what is compared of itself, empty unless it has been listed with all that is in it."""

_SECOND = 1_000_000_000
_RACY_NS = 20_000_000
"""Two ticks of the slowest clock (HZ=100)."""
_DEPTH = 128
_MOST = 400_000
"""Entries of all directories; what is beyond is read."""
_STATUS = struct.Struct("=QQIqq")
_FRAME = struct.Struct("=IIIII")
_MAGIC = b"LISTING2"
"""A server and a worker may be of two versions: what the other one cannot read says nothing."""
_TELLING = frozenset({b"ext4", b"btrfs"})
"""Their page_mkwrite calls file_update_time(), and so does all else that a worker can call to change what is in a file."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def beside(workspace: Path) -> Path:
    """Where the list of a workspace is kept."""
    return workspace.with_name(f"{workspace.name}.listing")


def take(tree: str) -> bytes:
    """The list of a tree to which nobody writes, as it is now; without its `.git`. Empty where no list says anything. Blocks. Errors:
    OSError."""
    top = os.open(tree, _DIRECTORY)
    try:
        return b"".join([_MAGIC, *_take(top, b"", 0, [_MOST])]) if _file_system(top) in _TELLING else b""
    finally:
        os.close(top)


def carried(listing: bytes, tree: str, change: Callable[[], None]) -> bytes:
    """A list over a change of owners, to which each file's time of change bears witness: of those that looked as listed until then, how
    they look from then on. Nobody else writes there. Blocks. Errors: OSError."""
    listed, before = read(listing), read(take(tree)) if listing else {}
    change()
    if not listing:
        return b""
    nothing = (b"", b"", b"", b"")
    return _MAGIC + b"".join(
        _frame(path, _untouched(listed.get(path, nothing), before.get(path, nothing), after)) for path, after in read(take(tree)).items()
    )


def _untouched(listed: Directory, before: Directory, after: Directory) -> Directory:
    """Of `after` what looked as listed before."""
    was, then = each(listed[:2]), each(before[:2])
    files = {name: status for name, status in each(after[:2]).items() if name in was and was[name] == then.get(name)}
    whole = listed[3] == before[3] != b"" and listed[:2] == before[:2] and len(files) == len(was)
    return b"".join(name + b"\0" for name in files), b"".join(files.values()), after[2], after[3] if whole else b""


def read(listing: bytes) -> dict[bytes, Directory]:
    """Each directory by its path, with a slash behind it; the root's is empty. What a power cut has torn says nothing of any file."""
    told = frames(listing, len(_MAGIC), _FRAME) if listing.startswith(_MAGIC) else ()
    return {path: (files, statuses, below, own) for path, files, statuses, below, own in told}


def frames(content: bytes, position: int, lengths: struct.Struct) -> Iterator[list[bytes]]:
    """From there on: so many fields at a time, which their lengths precede."""
    while position + lengths.size <= len(content):
        fields = []
        sizes = lengths.unpack_from(content, position)
        position += lengths.size
        for size in sizes:
            fields.append(content[position : position + size])
            position += size
        yield fields


def look(files: Sequence[os.DirEntry[str]]) -> Files:
    """At these files of one directory, as they are now, in the order of their names. Errors: OSError."""
    found = sorted([(os.fsencode(file.name), _status(file.stat(follow_symlinks=False))) for file in files])
    return b"\0".join([*(name for name, _ in found), b""]), b"".join([status for _, status in found])


def is_as_listed(here: int, directory: Directory) -> bool:
    """Whether the directory that is open as `here`, and every file in it, looks as listed: nothing else is in it but the directories that
    were. Errors: OSError."""
    names, statuses, _, own = directory
    if not own or own != _status(os.fstat(here)):
        return False
    stat = os.stat  # of names as bytes, which are not decoded
    return statuses == b"".join([_status(stat(name, dir_fd=here, follow_symlinks=False)) for name in parts(names)])


def parts(names: bytes) -> list[bytes]:
    """Names that each have a NUL behind them."""
    return names.split(b"\0")[:-1]


def each(files: Files) -> dict[bytes, bytes]:
    """What is compared of a file, by its name."""
    names, statuses = files
    size = _STATUS.size
    return {name: statuses[number * size : (number + 1) * size] for number, name in enumerate(parts(names))}


def _file_system(opened: int) -> bytes:
    """Of proc_pid_fdinfo(5) and proc_pid_mountinfo(5): the number of a device does not tell, on btrfs it is none of any mount's."""
    with open(f"/proc/self/fdinfo/{opened}", "rb") as facts:  # noqa: PTH123 - pathlib is much to load
        mount = next((line.split()[1] for line in facts if line.startswith(b"mnt_id:")), b"")
    with open("/proc/self/mountinfo", "rb") as mounts:  # noqa: PTH123
        kinds = (line.partition(b" - ")[2].split()[0] for line in mounts if line.split()[0] == mount)
        return next(kinds, b"")


def _take(here: int, path: bytes, depth: int, room: list[int]) -> Iterator[bytes]:
    files, below, whole = [], [], True
    now = time.time_ns()
    own = os.fstat(here)
    with os.scandir(here) as entries:
        for entry in entries:
            room[0] -= 1
            if room[0] < 0:
                return
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            elif _is_telling(entry.stat(follow_symlinks=False).st_ctime_ns, now):
                files.append(entry)
            else:
                whole = False
        whole = whole and _is_telling(own.st_ctime_ns, now)
        yield _frame(path, (*look(files), _names(below), _status(own) if whole else b""))
    for name in below if depth < _DEPTH else ():
        if path or name != ".git":
            inner = os.open(name, _DIRECTORY, dir_fd=here)
            try:
                yield from _take(inner, path + os.fsencode(name) + b"/", depth + 1, room)
            finally:
                os.close(inner)


def _frame(path: bytes, directory: Directory) -> bytes:
    told = directory[0] or directory[3]
    return b"".join([_FRAME.pack(len(path), *map(len, directory)), path, *directory]) if told else b""


def _names(names: list[str]) -> bytes:
    return os.fsencode("\0".join([*names, ""]))


def _status(found: os.stat_result) -> bytes:
    return _STATUS.pack(found.st_ino, found.st_size, found.st_mode, found.st_mtime_ns, found.st_ctime_ns)


def _is_telling(changed: int, now: int) -> bool:
    return changed + _RACY_NS < now and changed % _SECOND != 0
