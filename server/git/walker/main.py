"""The walker's process: request on stdin, answer into the regular file that is stdout. See protocol.py."""

from __future__ import annotations

import gc
import os
import resource
import struct
import sys
from collections.abc import Mapping

from server.git.walker.ahead import look_ahead
from server.git.walker.history import History, read_history
from server.git.walker.ignore import Ignored
from server.git.walker.known import Known
from server.git.walker.packfile import Pack
from server.git.walker.protocol import LIMITS_BYTES, MAGIC, Base, BaseTree, Limits, Start
from server.git.walker.records import Records
from server.git.walker.walk import Walk

_MEMORY_BYTES = 4 * 1024 * 1024 * 1024
_SLACK_BYTES = 256 * 1024 * 1024
_DESCRIPTORS = 64


def main(workspace: str, whole: int) -> None:
    """Walk `workspace` and answer; the request is whole when the pipe `whole` ends."""
    gc.disable()  # one pass, with a limit to its memory; looking for garbage was a tenth of the time
    with open(0, "rb") as request:
        limits = Limits.load(request.read(LIMITS_BYTES))
        start = Start.load(request.readline())
        listing = request.read(int(request.readline()))
        ahead = look_ahead(workspace, listing, limits, lambda: _restrain(limits))
        _restrain(limits)
        os.read(whole, 1)  # nothing is ever written to it
        base = BaseTree(request.read())
    ignored = Ignored(cpu_seconds=limits.ignore_seconds)
    with open(1, "r+b") as answer:
        pack = Pack(answer)
        root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            commits, changes, kept = _committed(root, base, start, limits, pack)
            # Where nothing was committed, the base itself is asked sooner.
            tree = base.changed(changes) if changes else base
            records = Records(tree, longest=limits.skipped)
            if not limits.ignore_seconds:
                records.note(b".gitignore", "IGNORE_TOO_SLOW")
            if not kept:
                records.note(b".git", "COMMITS_NOT_KEPT")
            known = Known(listing, base, without=changes)
            Walk(base=tree, known=known, ahead=ahead, limits=limits, pack=pack, records=records, ignored=ignored).tree(root)
        finally:
            ahead.close()
            os.close(root)
            ignored.close()
        length = pack.finish()
        answer.write(commits + records.dump() + struct.pack(">Q", length) + MAGIC)


def _committed(root: int, base: BaseTree, start: Start, limits: Limits, pack: Pack) -> tuple[bytes, Mapping[bytes, Base | None], bool]:
    """Records of the agent's own commits, what they change, and whether they could be kept."""
    history = History(base=base, start=start, limits=limits, pack=pack)
    if limits.commits and read_history(history, root):
        return b"".join(history.records), history.tree.changes, True
    return b"", {}, False


def _restrain(limits: Limits) -> None:
    """Before the first hostile byte: what a mistake in this process can cost."""
    for what, most in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, limits.total_bytes + limits.history_bytes + _SLACK_BYTES),
        (resource.RLIMIT_NOFILE, limits.depth + _DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
