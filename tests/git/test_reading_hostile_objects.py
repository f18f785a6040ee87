"""The reader of a workspace's own `.git`, one oddity at a time: each ends the reading, by itself, in little time."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import time
import zlib
from pathlib import Path

import pytest
from support.hostile_histories import a_blob, a_pack, entry, plant, point

from server.git.walker.history import History, read_history
from server.git.walker.packfile import Pack
from server.git.walker.protocol import Base, Limits, Start

WHO = "M <m@x> 1767323046 +0000"
HEADER = f"author {WHO}\ncommitter {WHO}\n"
FAR = "9" * 40


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / ".git/objects/pack").mkdir(parents=True)
    return tmp_path


def read(
    workspace: Path, tree: str, *, header: str = f"author {WHO}\ncommitter {WHO}\n", parent: bool = True, **limits: int
) -> History | None:
    """What is read of one commit with this tree, over one file; None when its commits cannot be kept."""
    first = a_blob(workspace, b"first")
    before = plant(workspace, "tree", entry("100644", b"first", first))
    start = plant(workspace, "commit", f"tree {before}\nauthor {WHO}\ncommitter {WHO}\n\nstart\n".encode())
    over = f"parent {start}\n" if parent else ""
    point(workspace, plant(workspace, "commit", f"tree {tree}\n{over}{header}\nwords\n".encode()))
    base = {b"first": Base(b"100644", first.encode(), 5)}
    pack = Pack(io.BytesIO())
    history = History(base=base, start=Start(start.encode(), before.encode()), limits=Limits(**limits), pack=pack)
    root = os.open(workspace, os.O_RDONLY)
    begun = time.process_time()
    try:
        return history if read_history(history, root) else None
    finally:
        os.close(root)
        assert time.process_time() - begun < 5


def tree_with(workspace: Path, mode: str, name: bytes, identity: str) -> str:
    return plant(workspace, "tree", entry(mode, name, identity))


def test_what_is_not_odd_is_read(workspace: Path) -> None:
    """The control of all that follows: by the same means, a history comes through."""
    found = read(workspace, tree_with(workspace, "100644", b"new", a_blob(workspace, b"new")))
    assert found is not None
    assert set(found.tree) == {b"new"}
    assert [record.split(b" ")[0] for record in found.records] == [b"commit", b"delete", b"100644", b"tree"]


@pytest.mark.parametrize(
    "name", [b"", b".", b"..", b"../x", b"a/b", b"/x", b".git", b".GIT", b"git~1", b".g\xe2\x80\x8cit", b".git ", b"GITMOD~1", b"x" * 3001]
)
def test_names(workspace: Path, name: bytes) -> None:
    blob = a_blob(workspace)
    assert read(workspace, tree_with(workspace, "100644", name, blob)) is None
    assert read(workspace, tree_with(workspace, "40000", name, tree_with(workspace, "100644", b"x", blob))) is None


@pytest.mark.parametrize("mode", ["160000", "100664", "100600", "104755", "777", "0", "-1", "140000", "040000"])
def test_modes(workspace: Path, mode: str) -> None:
    assert read(workspace, tree_with(workspace, mode, b"x", a_blob(workspace))) is None


@pytest.mark.parametrize(
    "tree",
    [
        b"100644 cut",
        b"100644 x\0" + b"1" * 19,
        b"100644x\0" + b"1" * 20,
        b"\0" * 40,
        entry("100644", b"x", FAR) * 2,
        entry("100644", b"x", FAR),
    ],
)
def test_trees(workspace: Path, tree: bytes) -> None:
    assert read(workspace, plant(workspace, "tree", tree)) is None


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"committer {WHO}\n",
        "author x\n",
        "author M <m@x> 99999999999999 +0000\n",
        "author M <m@x> -1 +0000\n",
        "author M <m@x> 1 UTC\n",
    ],
)
def test_headers_of_a_commit(workspace: Path, header: str) -> None:
    tree = tree_with(workspace, "100644", b"x", a_blob(workspace))
    assert read(workspace, tree, header=header) is None
    assert read(workspace, tree, parent=False) is None


@pytest.mark.parametrize("size", [b"0", b"9", b"11", b"-1", b"1e1", b"", b" 10", b"9" * 30])
def test_sizes_of_an_object(workspace: Path, size: bytes) -> None:
    name = plant(workspace, "blob", b"", name=FAR, compressed=zlib.compress(b"blob " + size + b"\0" + b"x" * 10))
    assert read(workspace, tree_with(workspace, "100644", b"x", name)) is None


def test_a_file_that_is_too_large_is_not_inflated(workspace: Path) -> None:
    blob = a_blob(workspace, bytes(2000))
    assert read(workspace, tree_with(workspace, "100644", b"x", blob), file_bytes=2000) is not None
    assert read(workspace, tree_with(workspace, "100644", b"x", blob), file_bytes=1999) is None
    assert read(workspace, tree_with(workspace, "100644", b"x", blob), history_bytes=1999) is None
    assert read(workspace, tree_with(workspace, "100644", b"x", blob), history_seconds=0) is None


def packed(kind: int, content: bytes, *, before: bytes = b"", size: int | None = None) -> bytes:
    """An entry of a pack; `before` is what a delta says of its base."""
    size = len(content) if size is None else size
    byte, size = (kind << 4) | (size & 15), size >> 4
    header = bytearray()
    while size:
        header.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    header.append(byte)
    return bytes(header) + before + zlib.compress(content)


BASE_NAME = "4" * 40
OVER_BASE = bytes.fromhex(BASE_NAME)


@pytest.mark.parametrize(
    "entries",
    [
        {FAR: packed(7, b"\x0a\x0a\x90\x0a", before=bytes.fromhex(FAR))},  # of itself
        {FAR: packed(7, b"\x0a\x0a\x90\x0a", before=OVER_BASE), BASE_NAME: packed(7, b"\x0a\x0a\x90\x0a", before=bytes.fromhex(FAR))},
        {FAR: packed(6, b"\x0a\x0a\x90\x0a", before=b"\0")},
        {FAR: packed(6, b"\x0a\x0a\x90\x0a", before=b"\xff" * 9 + b"\x01")},  # from before the beginning
        {FAR: packed(5, b"x")},
        {FAR: packed(0, b"x")},
        {FAR: packed(3, b"x", size=2**62)},
        {FAR: b"\xff" * 12},
        {FAR: packed(7, b"", before=OVER_BASE)},
        *(
            {FAR: packed(7, delta, before=OVER_BASE), BASE_NAME: packed(3, b"0123456789")}
            for delta in (
                b"\x0a\x0a",  # less than it says
                b"\x0a\x05\x90\x0a",  # more than it says
                b"\x0b\x0a\x90\x0a",  # over another base
                b"\x0a\x0a\x91\x05\x0a",  # from behind the end
                b"\x0a\x0a\x0a123",  # cut off
                b"\x0a\x0a\x9f",
                b"\x0a\x0a\x00",  # a command that is none
                b"\x0a\xff\xff\xff\xff\x0f" + b"\x90\x0a" * 1000,  # four gibibytes
                b"\x0a" + b"\xff" * 20,
            )
        ),
    ],
)
def test_packs(workspace: Path, entries: dict[str, bytes]) -> None:
    a_pack(workspace, entries)
    assert read(workspace, tree_with(workspace, "100644", b"x", FAR)) is None


def test_a_delta_that_is_right_is_applied(workspace: Path) -> None:
    made = b"0123401234!"
    name = hashlib.sha1(b"blob 11\0" + made, usedforsecurity=False).hexdigest()
    delta = b"\x0a\x0b\x90\x05\x90\x05\x01!"
    a_pack(workspace, {name: packed(7, delta, before=OVER_BASE), BASE_NAME: packed(3, b"0123456789")})
    found = read(workspace, tree_with(workspace, "100644", b"x", name))
    assert found is not None
    assert found.tree[b"x"] == Base(b"100644", name.encode(), 11)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"\xfftOc\0\0\0\x03" + bytes(1024),
        b"\xfftOc\0\0\0\x02" + b"\xff" * 1024 + b"\x99" * 4096,
        b"\xfftOc\0\0\0\x02" + bytes(4 * 0x99) + struct.pack(">I", 1) * (256 - 0x99) + b"\x99" * 20 + bytes(4) + b"\xff" * 4 + b"\xff" * 8,
    ],
)
def test_indexes(workspace: Path, index: bytes) -> None:
    folder = workspace / ".git/objects/pack"
    (folder / "pack-a.idx").write_bytes(index)
    (folder / "pack-a.pack").write_bytes(b"PACK\0\0\0\x02\0\0\0\x01" + bytes(64))
    assert read(workspace, tree_with(workspace, "100644", b"x", FAR)) is None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"ref: refs/heads/none\n",
        b"ref: ../../x\n",
        b"ref: refs/../../x\n",
        b"ref: refs//x\n",
        b"ref: refs/\0\n",
        b"x" * 5000,
        b"1" * 39,
    ],
)
def test_heads(workspace: Path, head: bytes) -> None:
    history = read(workspace, tree_with(workspace, "100644", b"x", a_blob(workspace)))
    assert history is not None
    (workspace / ".git/HEAD").write_bytes(head)
    root = os.open(workspace, os.O_RDONLY)
    try:
        assert not read_history(history, root)
    finally:
        os.close(root)
