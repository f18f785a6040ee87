"""The walker's process: request on stdin, answer into the regular file that is stdout. See protocol.py."""

from __future__ import annotations

import os
import resource
import struct
import sys

from server.git.walker.ignore import Ignored
from server.git.walker.packfile import BlobPack
from server.git.walker.protocol import MAGIC, Limits, parse_base
from server.git.walker.records import Records
from server.git.walker.walk import Walk

_MEMORY_BYTES = 4 * 1024 * 1024 * 1024
_SLACK_BYTES = 256 * 1024 * 1024
_DESCRIPTORS = 64


def main(workspace: str) -> None:
    """Walk `workspace` and answer."""
    with open(0, "rb") as request:
        limits = Limits.load(request.readline())
        _restrain(limits)
        base = parse_base(request.read())
    records = Records(base, longest=limits.skipped)
    ignored = Ignored(cpu_seconds=limits.ignore_seconds)
    if not limits.ignore_seconds:
        records.note(b".gitignore", "IGNORE_TOO_SLOW")
    with open(1, "r+b") as answer:
        pack = BlobPack(answer)
        root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            Walk(base=base, limits=limits, pack=pack, records=records, ignored=ignored).tree(root)
        finally:
            os.close(root)
            ignored.close()
        length = pack.finish()
        answer.write(records.dump() + struct.pack(">Q", length) + MAGIC)


def _restrain(limits: Limits) -> None:
    """Before the first hostile byte: what a mistake in this process can cost."""
    for what, most in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, limits.total_bytes + _SLACK_BYTES),
        (resource.RLIMIT_NOFILE, limits.depth + _DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main(sys.argv[1])
