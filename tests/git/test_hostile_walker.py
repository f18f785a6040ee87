"""The trusted half against a walker that was taken over: what it says is bytes, and most of it is refused."""

from __future__ import annotations

import hashlib
import io
import struct
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.git_server import git
from support.git_world import World

from server.git import importing, isolation
from server.git.manifest import Manifest, measure, parse, read_records
from server.git.walker.packfile import Pack
from server.git.walker.protocol import MAGIC, Base, BaseTree, Limits
from server.kernel.errors import WorkspaceFailed

HELD = b"1" * 40
NEW = b"3" * 40
JUDGED = b"4" * 40
BASE = BaseTree().changed(
    {b"a": Base(b"100644", HELD, 1), b"sub": Base(b"160000", b"2" * 40, -1), b".gitattributes": Base(b"100644", JUDGED, 1)}
)


@pytest.mark.parametrize(
    "records",
    [
        b"garbage\0",
        b"100644\ta\0",
        b"100644 =\tnew\0",
        b"100644 xyz\ta\0",
        b"160000 =\ta\0",
        b"100644 =\tsub\0",
        b"40000 " + HELD + b"\ta\0",
        b"160000 " + HELD + b"\tx\0",
        b"100755 =\t../x\0",
        b"100644 " + HELD + b"\t/x\0",
        b"100644 " + HELD + b"\ta/../x\0",
        b"100644 " + HELD + b"\t.git/hooks/x\0",
        b"100644 " + HELD + b"\tx/.GIT\0",
        b"100644 " + HELD + b"\t\0",
        b"100644 " + HELD + b"\tx//y\0",
        b"100644 =\ta\x00100644 =\ta\0",
        b"delete -\tnew\0",
        b"delete -\ta\0delete -\ta\0",
        b"tree -\t\0",
        b"! NOPE\tx\0",
        b"! COUNT\tx\0",
        b"".join(b"100644 %s\tp%d\0" % (HELD, number) for number in range(20)),
        b"".join(b"! TOO_DEEP\tp%d\0" % number for number in range(20)),
        b"100644 " + HELD + b"\t" + b"d/" * 129 + b"x\0",
        # Commits of the agent's.
        b"commit 1\tx\0",
        b"commit x\tx\0tree -\t\0",
        b"commit -1\tx\0tree -\t\0",
        b"commit 1234567890123\tx\0tree -\t\0",
        b"commit 1\t" + b"x" * 101 + b"\0tree -\t\0",
        b"commit 1\tx\0" * 4 + b"tree -\t\0",
        b"100755 =\ta\0commit 1\tx\0tree -\t\0",
        b"commit 1\tx\0tree -\t\0commit 1\tx\0tree -\t\0",
        b"commit 1\tx\0tree -\t\0tree -\t\0",
        b"commit 1\tx\x00100644 " + NEW + b"\t.git/config\0tree -\t\0",
        b"commit 1\tx\x00100644 " + NEW + b"\t../x\0tree -\t\0",
        b"commit 1\tx\x00160000 " + HELD + b"\tx\0tree -\t\0",
        b"commit 1\tx\x00040000 " + HELD + b"\tx\0tree -\t\0",
        b"commit 1\tx\0delete -\tnew\0tree -\t\0",
        b"commit 1\tx\0delete -\ta\0tree -\t\x00100755 =\ta\0",
        b"commit 1\tx\0" + b"".join(b"100644 %s\tp%d\0" % (NEW, number) for number in range(6)) + b"tree -\t\0",
    ],
)
def test_records_that_no_walker_writes_are_refused(records: bytes) -> None:
    with pytest.raises(WorkspaceFailed):
        _parse(records, Limits(entries=5, skipped=5, commits=3, message_bytes=100))


def test_a_plain_answer_is_read() -> None:
    manifest = _parse(b"100755 =\ta\0delete -\tsub\0! TOO_DEEP\t\xff\0! COUNT\t7\0", Limits())
    assert manifest.changed == {b"a": (b"100755", HELD)}
    assert manifest.deleted == [b"sub"]
    assert (manifest.skipped[0].path, manifest.skipped_count) == ("\\xff", 7)


def test_what_a_commit_names_is_the_base_s_or_has_to_come_along() -> None:
    """What git's fsck reads may stay where the base has it, and is otherwise judged wherever it comes to lie."""
    names = [(HELD, b"moved"), (NEW, b"new"), (JUDGED, b".gitattributes"), (JUDGED, b"docs/.gitattributes"), (HELD, b".gitmodules")]
    claimed = []
    for identity, path in names:
        records = b"commit 5\tx\x00100644 %s\t%s\0tree -\t\0! COUNT\t0\0" % (identity, path)
        manifest = _parse(records, Limits())
        assert [(commit.changed, commit.seconds) for commit in manifest.commits] == [({path: (b"100644", identity)}, 5)]
        claimed.append(manifest.claimed)
        assert not manifest.judged_before & manifest.claimed
    assert claimed == [set(), {NEW}, set(), {JUDGED}, {HELD}]


@pytest.mark.parametrize(
    "answer",
    [b"", b"short", struct.pack(">Q", 0) + b"WRONG!!!", struct.pack(">Q", 99) + MAGIC, struct.pack(">Q", 2**63) + MAGIC],
)
def test_an_answer_without_a_true_footer_is_refused(answer: bytes) -> None:
    with pytest.raises(WorkspaceFailed):
        measure(io.BytesIO(answer), base_bytes=0, limits=Limits())


def test_an_answer_longer_than_any_honest_one_is_refused_before_it_is_read() -> None:
    limits = Limits(entries=10, names_bytes=1000, skipped=0, path_bytes=100, commits=0)
    for records, refused in ((1500, False), (3000, True)):
        answer = io.BytesIO(bytes(records) + struct.pack(">Q", 0) + MAGIC)
        if refused:
            with pytest.raises(WorkspaceFailed, match="malformed"):
                measure(answer, base_bytes=200, limits=limits)
        else:
            assert measure(answer, base_bytes=200, limits=limits) == (0, records)


def test_names_that_are_too_long_together_are_refused() -> None:
    records = b"".join(b"100644 %s\t%s\0" % (NEW, name * 90) for name in (b"x", b"y", b"z"))
    assert len(_parse(records, Limits(names_bytes=270)).changed) == 3
    with pytest.raises(WorkspaceFailed, match="too many"):
        _parse(records, Limits(names_bytes=269))


def test_records_are_read_in_pieces() -> None:
    """Over every boundary of a chunk, and none may be longer than a path."""
    records = b"".join(b"100644 %s\t%06d\0" % (HELD, number) for number in range(50_000))
    assert b"".join(record + b"\0" for record in read_records(io.BytesIO(b"pack" + records), 4, len(records), limits=Limits())) == records
    with pytest.raises(WorkspaceFailed, match="malformed"):
        list(read_records(io.BytesIO(b"x" * 4_000_000), 0, 4_000_000, limits=Limits()))


async def test_a_flood_of_errors_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    flood = "import os\nfor _ in range(3000): os.write(2, b'x' * 65536)\nraise SystemExit(1)\n"
    monkeypatch.setattr(isolation, "_BOOT", flood)
    workspace = await world.workspace(base)
    tracemalloc.start()
    try:
        with pytest.raises(WorkspaceFailed):
            await world.import_(workspace, base)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


async def test_an_object_of_another_session_cannot_be_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    theirs = await world.workspace(base)
    (theirs / "secret").write_text("another session's")
    await world.import_(theirs, base, session_id="other")
    secret = hashlib.sha1(b"blob 17\0another session's").hexdigest().encode()
    assert git(world.mirror, "cat-file", "-t", secret.decode()) == "blob"
    _answer_with(monkeypatch, b"100644 " + secret + b"\tstolen\0")
    with pytest.raises(WorkspaceFailed, match="not in its pack"):
        await world.import_(await world.workspace(base), base)


async def test_an_object_of_another_session_cannot_be_named_by_a_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    theirs = await world.workspace(base)
    (theirs / "secret").write_text("another session's")
    await world.import_(theirs, base, session_id="other")
    secret = hashlib.sha1(b"blob 17\0another session's").hexdigest().encode()
    _answer_with(monkeypatch, b"commit 1\tmine\x00100644 " + secret + b"\tstolen\0tree -\t\0! COUNT\t0\0")
    with pytest.raises(WorkspaceFailed, match="commit that may not be"):  # told again where none was asked for
        await world.import_(await world.workspace(base), base)
    assert git(world.mirror, "log", "--all", "--format=%s", "--", "stolen") == ""


async def test_a_tree_cannot_be_passed_off_as_a_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    pack = git_pack_of(world.remote, base)
    tree = git(world.remote, "rev-parse", f"{base}^{{tree}}").encode()
    _answer_with(monkeypatch, b"100644 " + tree + b"\tx\0", pack=pack)
    with pytest.raises(WorkspaceFailed):
        await world.import_(await world.workspace(base), base)


async def test_garbage_for_a_pack_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    before = {path for path in world.mirror.rglob("*") if path.is_file()}
    _answer_with(monkeypatch, b"100644 " + HELD + b"\tx\0", pack=b"PACK" + b"\xff" * 50)
    with pytest.raises(WorkspaceFailed):
        await world.import_(await world.workspace(base), base)
    assert {path for path in world.mirror.rglob("*") if path.is_file()} == before


def _parse(records: bytes, limits: Limits) -> Manifest:
    return parse(read_records(io.BytesIO(records), 0, len(records), limits=limits), base=BASE, limits=limits)


def git_pack_of(repository: Path, commit: str) -> bytes:
    import subprocess

    done = subprocess.run(
        ["git", "-C", str(repository), "pack-objects", "--revs", "--stdout", "-q"],
        input=f"{commit}\n".encode(),
        capture_output=True,
        check=True,
    )
    return done.stdout


def _answer_with(monkeypatch: pytest.MonkeyPatch, records: bytes, pack: bytes | None = None) -> None:
    if pack is None:
        empty = io.BytesIO()
        blobs = Pack(empty)
        blobs.add(b"x", 1, [b"x"])
        blobs.finish()
        pack = empty.getvalue()

    async def taken_over(*_: object, complete: Callable[[], Awaitable[int]], answer: io.FileIO, **__: object) -> None:
        await complete()
        answer.write(pack + records + struct.pack(">Q", len(pack)) + MAGIC)

    monkeypatch.setattr(importing, "walk", taken_over)
