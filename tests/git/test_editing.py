"""Edits without a working tree: what git itself says of the commits that they make."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from support.git_server import git
from support.git_world import AT, AUTHOR, BASE, SESSION, World, started_by

from server.git import comparing
from server.git.comparing import Comparers
from server.git.refs import session_ref
from server.kernel.errors import (
    FileChanged,
    FileExists,
    FileTooLarge,
    InvalidField,
    KernelError,
    NotADirectory,
    NotAFile,
    PathInvalid,
    PathNotFound,
    StateGone,
)
from server.kernel.ports.repositories import Diff
from server.kernel.ports.trees import Change, Delete, Edit, Edited, Kind, MakeDirectory, Move, SetMode, Write


async def _edit(world: World, commit: str, *edits: Edit) -> Edited:
    return await world.git.trees.edit(world.repository, commit, edits, author=AUTHOR, at=AT, message=lambda _: "Edit")


def _files(world: World, commit: str) -> dict[str, str]:
    listed = git(world.mirror, "-c", "core.quotePath=false", "ls-tree", "-r", commit).splitlines()
    return {line.partition("\t")[2]: line.split()[2] for line in listed}


async def test_what_a_commit_changes_is_told_as_git_counts_it_and_starts_no_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    await _edit(world, base, Write("first", b""))
    started = started_by(monkeypatch)
    edits = [
        Write("src/app.py", b"changed\n"), Write("bin", b"\0"), Write("new\nend", b"1\n2\n"), Move("docs", "manual"),
        Delete("src/deep", recursive=True),
    ]  # fmt: skip
    edited = await _edit(world, base, *edits)
    assert started == []
    assert edited.diff == await world.git.diff(world.repository, base=base, head=edited.commit, max_patch_bytes=0, max_files=100)
    assert (await _edit(world, base, Write("README.md", b"# demo\n"))).diff is None, "nothing changed"


async def test_one_user_s_edits_leave_others_something_to_compare_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "COMPARE_SECONDS", 60.0)
    base = await world.fetch()
    edited = (await _edit(world, base, Write("a", b"a"))).commit
    comparers = Comparers(world.git.git, each=1)

    async def compare(owner: str) -> Diff | None:
        return await comparers.compare(world.mirror, base, edited, owner=owner, max_files=10)

    told = await compare("alice")
    ((_, comparer),) = comparers._idle
    os.kill(comparer._process.pid, signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(compare("alice"))
        await asyncio.sleep(0)
        assert comparers._idle == []
        assert await compare("alice") is None
        assert not slow.done()
        assert await compare("bob") == told
        os.kill(comparer._process.pid, signal.SIGCONT)
    assert slow.result() == told
    await comparers._end_idle(float("inf"))


async def test_a_commit_is_made_also_when_nobody_can_tell_what_it_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    with monkeypatch.context() as slow:
        slow.setattr(comparing, "COMPARE_SECONDS", 0.0)
        edited = await _edit(world, base, Write("a", b"a"))
    assert (edited.diff, list(_files(world, edited.commit))[1]) == (None, "README.md")
    assert (await _edit(world, base, Write("a", b"a"))).diff is not None
    assert (await _edit(world, base, Write("large", b"line\n" * 250_000))).diff is None, "it would take as long as a hundred others"
    ((_, comparer),) = world.git.trees.comparers._idle
    comparer._process.kill()
    await comparer._process.wait()
    edited = await _edit(world, base, Write("b", b"b\n"))
    assert edited.diff is not None
    assert (edited.diff.files_changed, edited.diff.additions) == (1, 1)


async def test_a_commit_as_git_would_have_made_it(world: World) -> None:
    base = await world.fetch()
    edits = [
        Write("src/app.py", b"changed\n"), Write("src-new/x", b"x"), Write("run.sh", b"#!/bin/sh\n", executable=True),
        Move("docs/guide.md", "manual/guide.md"), Move("src/deep", "deep"), Delete("README.md"), MakeDirectory("empty/dir"),
    ]  # fmt: skip
    edited = await _edit(world, base, *edits)
    assert [(change.operation, change.path, change.old_path) for change in edited.changes if change] == [
        ("MODIFIED", "src/app.py", ""), ("ADDED", "src-new/x", ""), ("ADDED", "run.sh", ""),
        ("RENAMED", "manual/guide.md", "docs/guide.md"),
        ("RENAMED", "deep", "src/deep"), ("DELETED", "README.md", ""), ("ADDED", "empty/dir/.gitkeep", ""),
    ]  # fmt: skip
    assert git(world.mirror, "fsck", "--strict", "--no-dangling") == ""
    assert list(_files(world, edited.commit)) == [
        ".gitignore", "deep/er.py", "empty/dir/.gitkeep", "manual/guide.md", "run.sh", "src-new/x", "src/app.py",
    ]  # fmt: skip
    assert git(world.mirror, "show", f"{edited.commit}:src/app.py") == "changed"
    assert git(world.mirror, "log", "-1", "--format=%P %an %ae %at %s", edited.commit) == (
        f"{base} {AUTHOR.name} {AUTHOR.email} {int(AT.timestamp())} Edit"
    )
    git(world.mirror, "read-tree", f"{edited.commit}")
    assert git(world.mirror, "write-tree") == git(world.mirror, "rev-parse", f"{edited.commit}^{{tree}}")
    entry = edited.changes[0].entry
    assert entry == await world.git.trees.entry(world.repository, edited.commit, "src/app.py")
    assert (await _edit(world, edited.commit, Write("run.sh", b"new"))).changes[0].entry.kind is Kind.EXECUTABLE


async def test_what_changes_nothing_makes_no_commit(world: World) -> None:
    base = await world.fetch()
    edited = await _edit(world, base, Write("README.md", BASE["README.md"].encode()), MakeDirectory("src/deep"))
    assert edited == Edited(base, (None, None))
    assert (await _edit(world, base, Write("new", b"x"), Delete("new"))).commit == base


async def test_a_mode_is_set_and_the_content_stays(world: World) -> None:
    base = await world.fetch()
    there = await world.git.trees.entry(world.repository, base, "README.md")
    edited = await _edit(world, base, SetMode("README.md", executable=True, expected_etag=there.etag))
    assert edited.changes == (Change("README.md", "MODIFIED", entry=replace(there, kind=Kind.EXECUTABLE)),)
    assert git(world.mirror, "diff", "--summary", base, edited.commit).strip() == "mode change 100644 => 100755 README.md"
    assert (await _edit(world, edited.commit, SetMode("README.md", executable=True))).commit == edited.commit
    for edit, error in (
        (SetMode("new", executable=True), InvalidField), (SetMode("new", executable=True, expected_etag=""), InvalidField),
        (SetMode("src", executable=True), NotAFile), (SetMode("README.md", executable=True, expected_etag=""), FileChanged),
    ):  # fmt: skip
        with pytest.raises(error):
            await _edit(world, base, edit)


async def test_an_etag_decides(world: World) -> None:
    base = await world.fetch()
    etag = (await world.git.trees.entry(world.repository, base, "README.md")).etag
    await _edit(world, base, Write("README.md", b"x", expected_etag=etag), Write("new", b"x", expected_etag=""))
    await _edit(world, base, Move("README.md", "to", expected_etag=etag))
    await _edit(world, base, Delete("README.md", expected_etag=etag))
    for edit in (
        Write("README.md", b"x", expected_etag=""), Write("README.md", b"x", expected_etag="1" * 40),
        Write("new", b"x", expected_etag=etag),
        Delete("README.md", expected_etag=""),
    ):  # fmt: skip
        with pytest.raises(FileChanged):
            await _edit(world, base, Write("other", b"x"), edit)
    with pytest.raises(FileChanged) as told:
        await _edit(world, base, Write("README.md", b"x", expected_etag="1" * 40))
    assert told.value.metadata["etag"] == etag


REFUSED: list[tuple[Edit, type[KernelError]]] = [
    (Write(".git/config", b""), PathInvalid),
    (Write("a/.GIT", b""), PathInvalid),
    (Write("git~1/x", b""), PathInvalid),
    (Write(".g\u200cit/x", b""), PathInvalid),
    (Write("../x", b""), PathInvalid),
    (Write("/x", b""), PathInvalid),
    (Write("", b""), PathInvalid),
    (Write("GITMOD~1", b""), PathInvalid),
    (Write(".gitmodules", b'[submodule "x"]\n\turl = --upload-pack=evil\n'), PathInvalid),
    (Write(".gitattributes", b"x" * 3000), PathInvalid),
    (Move("README.md", ".gitmodules"), PathInvalid),
    (Move("src", "src/deep/src"), PathInvalid),
    (Move("README.md", ".git/hooks/x"), PathInvalid),
    (Move("README.md", "README.md"), PathInvalid),
    (MakeDirectory(".git"), PathInvalid),
    (Write("README.md/x", b""), NotADirectory),
    (Write("src", b""), NotAFile),
    (Write("src", b"", expected_etag=""), NotAFile),
    (Move("README.md", "docs/guide.md"), FileExists),
    (Move("README.md", "docs"), FileExists),
    (Move("src", "d/" * 126 + "src"), PathInvalid),
    (Write("out", b""), NotAFile),
    (Write("out/x", b""), NotADirectory),
    (MakeDirectory("README.md"), NotADirectory),
    (Delete("src"), NotAFile),
    (Delete("nothing"), PathNotFound),
    (Move("nothing", "x"), PathNotFound),
    (Write("large", bytes(16 * 1024 * 1024 + 1)), FileTooLarge),
]


async def test_what_is_refused_leaves_nothing(world: World) -> None:
    (world.server.root / "demo-seed" / "out").symlink_to("/etc")
    world.server.commit("demo", {})
    base = await world.fetch()
    before = sorted(world.mirror.glob("objects/??/*"))
    for edit, error in REFUSED:
        with pytest.raises(error):
            await _edit(world, base, Write("fine", b"x"), edit)
    assert sorted(world.mirror.glob("objects/??/*")) == before
    await _edit(world, base, Delete("out"), Write("out", b"x"))
    with pytest.raises(StateGone):
        await _edit(world, "1" * 40, Write("x", b""))


async def test_one_call_makes_so_many_directories_and_no_more(world: World) -> None:
    base = await world.fetch()
    deep = "x/" * 120
    with pytest.raises(InvalidField):
        await _edit(world, base, *(Write(f"{n}/{deep}f", b"") for n in range(40)))
    edited = await _edit(world, base, *(Write(f"{n}/{deep}f", b"") for n in range(4)))
    assert len(_files(world, edited.commit)) == len(BASE) + 4


async def test_a_ref_is_only_moved_forward(world: World) -> None:
    base = await world.fetch()
    first = (await _edit(world, base, Write("x", b"1"))).commit
    second = (await _edit(world, first, Write("x", b"2"))).commit
    keep = world.git.trees.keep
    await keep(world.repository, SESSION, second)
    await keep(world.repository, SESSION, first)
    assert git(world.mirror, "rev-parse", session_ref(SESSION)) == second


async def test_a_ref_takes_one_git_process_to_move(world: World, tmp_path: Path) -> None:
    """More would take the processors from the edit that follows."""
    base = await world.fetch()

    async def edited(on: str, count: int = 1) -> str:
        for n in range(count):
            on = (await _edit(world, on, Write("x", f"{on}{n}".encode()))).commit
        return on

    async def kept(commit: str) -> list[str]:
        started.write_text("")
        await world.git.trees.keep(world.repository, SESSION, commit)
        assert git(world.mirror, "rev-parse", session_ref(SESSION)) == commit
        return started.read_text().split()

    await world.git.trees.keep(world.repository, SESSION, newest := await edited(base))
    started, program = tmp_path / "started", tmp_path / "git"
    program.write_text(
        f'#!/bin/sh\nfor word; do case $word in update-ref|rev-parse|merge-base) echo $word >> {started};; esac; done\nexec git "$@"\n'
    )
    program.chmod(0o755)
    world.git.git._program = str(program)
    assert await kept(newest := await edited(newest)) == ["update-ref"]
    assert await kept(newest) == []
    git(world.mirror, "pack-refs", "--all", "--prune")
    assert await kept(newest := await edited(newest)) == ["update-ref"]
    assert await kept(await edited(newest, 60)) == ["merge-base", "update-ref"]


async def test_a_ref_whose_commit_is_lost_is_replaced(world: World) -> None:
    base = await world.fetch()
    (world.mirror / session_ref(SESSION)).parent.mkdir(parents=True)
    (world.mirror / session_ref(SESSION)).write_text("1" * 40 + "\n")
    await world.git.trees.keep(world.repository, SESSION, base)
    assert git(world.mirror, "rev-parse", session_ref(SESSION)) == base


async def test_what_is_not_here_is_not_kept(world: World) -> None:
    base = await world.fetch()
    await world.git.trees.keep(world.repository, SESSION, base)
    with pytest.raises(StateGone):
        await world.git.trees.keep(world.repository, SESSION, "1" * 40)
    assert git(world.mirror, "rev-parse", session_ref(SESSION)) == base


async def test_trees_of_old_gits_are_read_and_written_as_todays(world: World) -> None:
    """Modes with a zero in front, as some once wrote them."""
    blob = git(world.remote, "hash-object", "-w", "--stdin", stdin=b"old\n")

    def tree(mode: bytes, name: bytes, identity: str) -> str:
        raw = b"%b %b\0%b" % (mode, name, bytes.fromhex(identity))
        return git(world.remote, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)

    commit = git(world.remote, "commit-tree", tree(b"040000", b"d", tree(b"100644", b"f", blob)), "-m", "x")
    git(world.remote, "update-ref", "refs/heads/main", commit)
    await world.fetch()
    assert (await world.git.trees.entry(world.repository, commit, "d")).kind is Kind.DIRECTORY
    edited = await _edit(world, commit, Write("d/g", b"new\n"))
    assert list(_files(world, edited.commit)) == ["d/f", "d/g"]
    assert git(world.mirror, "cat-file", "tree", f"{edited.commit}^{{tree}}").startswith("40000 d")


async def test_edits_survive_the_upkeep_and_are_kept(world: World) -> None:
    base = await world.fetch()
    edited = await _edit(world, base, Write("x", b"1"))
    await world.git.trees.keep(world.repository, SESSION, edited.commit)
    assert git(world.mirror, "rev-parse", session_ref(SESSION)) == edited.commit
    again = await _edit(world, edited.commit, Write("x", b"2"))
    git(world.mirror, "repack", "-A", "-d", "-q", "--unpack-unreachable=2.weeks.ago")
    git(world.mirror, "prune", "--expire=2.weeks.ago")
    assert _files(world, again.commit).keys() == _files(world, edited.commit).keys()
    third = await _edit(world, again.commit, Write("x", b"3"))
    assert git(world.mirror, "show", f"{third.commit}:x") == "3"


async def test_a_workspace_takes_up_where_an_edit_left_off(world: World) -> None:
    base = await world.fetch()
    edited = await _edit(world, base, Write("src/new.py", b"new\n"), MakeDirectory("empty"))
    await world.git.trees.keep(world.repository, SESSION, edited.commit)
    start = await world.fetch(head_commit=edited.commit)
    assert start == edited.commit
    workspace = await world.workspace(start)
    (workspace / "src/new.py").write_text("newer\n")
    imported = await world.import_(workspace, start)
    assert imported.commit
    assert git(world.mirror, "diff", "--name-only", start, imported.commit) == "src/new.py"


async def test_a_git_that_has_read_a_mirror_says_nothing_of_the_one_made_in_its_place(world: World) -> None:
    base = await world.fetch()
    git(world.mirror, "gc", "--quiet")  # a pack stays mapped
    await _edit(world, base, Write("x", b"1"))
    shutil.rmtree(world.mirror)
    with pytest.raises(StateGone):
        await _edit(world, base, Write("x", b"2"))
    assert await world.fetch() == base
    edited = await _edit(world, base, Write("x", b"2"))
    assert git(world.mirror, "show", f"{edited.commit}:x") == "2"
