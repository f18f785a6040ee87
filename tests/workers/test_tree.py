"""The stream by which a workspace travels: what is written is read again, and what nobody honest writes makes nothing anywhere."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import pytest

from carrier.tree import BadTree, Limits, pack, unpack

PLENTY = Limits(1 << 30, 10_000)


def name(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def file(text: bytes, data: bytes, *, size: int | None = None, at: int = 0) -> bytes:
    head = b"F" + name(text) + struct.pack(">HqQ", 0o644, 0, len(data) if size is None else size)
    return head + struct.pack(">IQ", len(data), at) + data + struct.pack(">IQ", 0, 0)


def directory(text: bytes) -> bytes:
    return b"D" + name(text) + struct.pack(">H", 0o755)


def link(text: bytes, target: bytes) -> bytes:
    return b"L" + name(text) + name(target)


BAD = {
    "nothing": b"",
    "no end": file(b"a", b"x"),
    "a file that breaks off": file(b"a", b"xyz")[:-20],
    "an end within a directory": directory(b"d") + b"E",
    "out of the root": b"UE",
    "out of the root, later": directory(b"d") + b"UUE",
    "a name with a slash": file(b"../a", b"x") + b"E",
    "the parent": directory(b"..") + b"UE",
    "itself": directory(b".") + b"UE",
    "no name": file(b"", b"x") + b"E",
    "a name with a zero": file(b"a\0b", b"x") + b"E",
    "a long name": file(b"a" * 256, b"x") + b"E",
    "a file twice": file(b"a", b"x") + file(b"a", b"y") + b"E",
    "a directory that is a link": link(b"d", b"/tmp") + directory(b"d") + b"UE",
    "a file that is a link": link(b"a", b"/tmp/stolen") + file(b"a", b"x") + b"E",
    "a link that leads nowhere": link(b"a", b"") + b"E",
    "a link with a zero": link(b"a", b"x\0y") + b"E",
    "an unknown kind": b"X" + name(b"a") + b"E",
    "more than it says": file(b"a", b"xyz", size=2) + b"E",
    "beyond its end": file(b"a", b"x", size=1, at=2**63) + b"E",
    "a size that there is not": file(b"a", b"x", size=2**63) + b"E",
    "pieces that go back": b"F" + name(b"a") + struct.pack(">HqQIQ", 0o644, 0, 9, 1, 4) + b"x" + struct.pack(">IQ", 1, 4) + b"yE",
    "a piece that is too large": b"F" + name(b"a") + struct.pack(">HqQ", 0o644, 0, 2**40) + struct.pack(">IQ", 2**31, 0) + b"E",
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_tree_is_refused(bad: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(BadTree):
        unpack(io.BytesIO(BAD[bad]), root, PLENTY)
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize("limits", [Limits(4 * 4096 - 1, 10), Limits(1 << 20, 1)])
def test_a_tree_that_is_too_large_is_refused(limits: Limits, tmp_path: Path) -> None:
    with pytest.raises(BadTree):
        unpack(io.BytesIO(file(b"a", b"xy") + file(b"b", b"z") + b"E"), tmp_path, limits)


def test_a_byte_takes_a_block(tmp_path: Path) -> None:
    """So that few bytes on the way are not many on the disk."""
    pieces = b"".join(struct.pack(">IQ", 1, at << 12) + b"x" for at in range(100))
    stream = b"F" + name(b"a") + struct.pack(">HqQ", 0o644, 0, 100 << 12) + pieces + struct.pack(">IQ", 0, 0) + b"E"
    with pytest.raises(BadTree):
        unpack(io.BytesIO(stream), tmp_path, Limits(100 * 4096, 10))
    (tmp_path / "a").unlink()
    unpack(io.BytesIO(stream), tmp_path, Limits(101 * 4096, 10))
    assert (tmp_path / "a").stat().st_blocks * 512 == 100 * 4096


def test_a_deep_tree_takes_no_descriptor_per_level(tmp_path: Path) -> None:
    stream = directory(b"d") * 3000 + b"U" * 3000 + b"E"
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    unpack(io.BytesIO(stream), one, PLENTY)
    again = io.BytesIO()
    pack(one, again)
    again.seek(0)
    unpack(again, other, PLENTY)
    assert again.getvalue() == stream
    for root in (one, other):
        os.system(f"rm -rf {root}")  # pytest's own way of deleting is recursive


def test_everything_that_travels_arrives(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "a" / "b").mkdir(parents=True)
    other.mkdir()
    (one / "a" / "run").write_bytes(b"x" * 600_000)
    (one / "a" / "run").chmod(0o751)
    os.utime(one / "a" / "run", ns=(5, 5))
    (one / "empty").touch()
    (one / "out").symlink_to("/nowhere")
    (one / os.fsdecode(b"\xff\n")).write_text("odd")
    (one / ".git").mkdir()
    os.mkfifo(one / "pipe")
    with (one / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
        sparse.seek(1 << 39)
        sparse.write(b"middle")
    (one / "set").touch()
    (one / "set").chmod(0o4755)
    stream = io.BytesIO()
    pack(one, stream, without=frozenset({b".git"}))
    assert len(stream.getvalue()) < 1_000_000
    stream.seek(0)
    unpack(stream, other, PLENTY)
    assert sorted(path.name for path in other.iterdir()) == sorted(["a", "empty", "out", "\udcff\n", "sparse", "set"])
    assert (other / "a" / "run").read_bytes() == (one / "a" / "run").read_bytes()
    status = (other / "a" / "run").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o751, 5)
    assert (other / "out").readlink() == Path("/nowhere")
    assert (other / "sparse").stat().st_size == 1 << 40
    with (other / "sparse").open("rb") as sparse:
        sparse.seek(1 << 39)
        assert sparse.read(6) == b"middle"
    assert (other / "set").stat().st_mode & 0o7777 == 0o755
