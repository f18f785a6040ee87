"""Diffs, subjects and bundles."""

from __future__ import annotations

import pytest
from support.git_server import git
from support.git_world import World, started_by

from server.git import diff
from server.kernel.errors import WorkspaceFailed

ALL = {"max_patch_bytes": 1_000_000, "max_files": 100}


async def test_a_diff_tells_every_operation(world: World) -> None:
    base, head = await _changed(world)
    found = await world.git.diff(world.repository, base=base, head=head, **ALL)
    files = {file.path: file for file in found.files}
    assert {path: file.operation for path, file in files.items()} == {
        "README.md": "MODIFIED", "blob.bin": "ADDED", "docs/guide.md": "DELETED", "src/main.py": "RENAMED", "src/deep/er.py": "MODIFIED",
    }  # fmt: skip
    assert files["src/main.py"].old_path == "src/app.py"
    assert (files["README.md"].additions, files["README.md"].deletions) == (2, 1)
    assert "+two\n" in files["README.md"].patch
    assert files["blob.bin"].binary
    assert (found.files_changed, found.truncated) == (5, False)
    assert files["src/deep/er.py"].patch.count("diff --git") == 2  # from a file to a link
    assert not any(file.patch_truncated for file in found.files)
    patch = "".join(file.patch for file in found.files)
    git(
        world.tmp / "workspace-0",
        "-c",
        "core.bare=false",
        "apply",
        "--cached",
        "--check",
        stdin=patch.replace("Binary", "#").encode(),
        check=False,
    )


async def test_a_diff_is_cut_but_its_sums_are_not(world: World) -> None:
    base, head = await _changed(world)
    found = await world.git.diff(world.repository, base=base, head=head, max_patch_bytes=100, max_files=2)
    assert (len(found.files), found.files_changed, found.truncated) == (2, 5, True)
    assert sum(len(file.patch) for file in found.files) <= 100
    assert found.files[0].patch_truncated
    whole = await world.git.diff(world.repository, base=base, head=head, **ALL)
    assert (found.additions, found.deletions) == (whole.additions, whole.deletions)


async def test_a_diff_of_a_directory_is_limited_by_what_it_holds(world: World) -> None:
    base, head = await _changed(world)
    limits = {"max_patch_bytes": 10_000, "max_files": 2}
    found = await world.git.diff(world.repository, base=base, head=head, path="src", **limits)
    assert [(file.path, file.operation) for file in found.files] == [("src/deep/er.py", "MODIFIED"), ("src/main.py", "RENAMED")]
    assert (found.files_changed, found.truncated) == (2, False)
    assert not any(file.patch_truncated for file in found.files)
    whole = await world.git.diff(world.repository, base=base, head=head, **ALL)
    assert found.files == tuple(file for file in whole.files if file.path.startswith("src/"))
    moved_in = await world.git.diff(world.repository, base=base, head=head, path="src/main.py", **ALL)
    assert [(file.path, file.operation, file.old_path) for file in moved_in.files] == [("src/main.py", "ADDED", "")]
    for no_glob in ("*", "s?c", ":(glob)**"):
        assert not (await world.git.diff(world.repository, base=base, head=head, path=no_glob, **ALL)).files


async def test_a_diff_of_a_commit_with_itself_is_empty(world: World) -> None:
    base = await world.fetch()
    found = await world.git.diff(world.repository, base=base, head=base, **ALL)
    assert (found.files, found.files_changed) == ((), 0)


HOSTILE = (
    "ends with a tab\t", "a\tb\tc", ":100644 100644 0 0 M", "diff --git a", "line\ndiff --git a/b b/b\nnew", "1\t1\t", "0" * 40, "-\t-\tx",
    "quo\"te", "back\\slash", "ü", " ",
)  # fmt: skip


async def test_no_name_and_no_content_is_taken_for_something_else(world: World) -> None:
    base = await world.fetch()
    moved = world.server.root / "demo-seed/src/app.py"
    moved.rename(moved.with_name("moved\t"))
    content = "diff --git a/x b/x\n:1\n" + "\n" * 9000 + "\0\0\ndiff --git a/y b/y\n"
    world.server.commit("demo", dict.fromkeys(HOSTILE, content))
    head = await world.fetch()
    found = await world.git.diff(world.repository, base=base, head=head, **ALL)
    assert {file.path: file.operation for file in found.files} == {**dict.fromkeys(HOSTILE, "ADDED"), "src/moved\t": "RENAMED"}
    assert {file.additions for file in found.files if file.operation == "ADDED"} == {content.count("\n")}
    for file in found.files:
        assert file.patch.startswith("diff --git ")
        assert not file.patch_truncated
        assert file.operation == "RENAMED" or file.patch.endswith("\n" + "".join(f"+{line}\n" for line in content.split("\n")[:-1]))
    (each,) = await world.git.diff_each(world.repository, base=base, commits=[head], max_files=100)
    assert [(file.path, file.operation, file.old_path) for file in each.files] == [
        (file.path, file.operation, file.old_path) for file in found.files
    ]


async def test_a_diff_is_one_process_and_the_same_one_again_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base, head = await _changed(world)
    started = started_by(monkeypatch)
    found = await world.git.diff(world.repository, base=base, head=head, **ALL)
    assert await world.git.diff(world.repository, base=base, head=head, **ALL) == found
    assert started == ["diff-tree"]
    assert await world.git.diff(world.repository, base=base, head=head, max_patch_bytes=1, max_files=1) != found
    assert await world.git.diff(world.repository, base=head, head=base, **ALL) != found
    assert started == ["diff-tree"] * 3


async def test_no_more_diffs_are_kept_than_there_is_room_for(world: World) -> None:
    base, head = await _changed(world)
    big, small = {"max_patch_bytes": 1_000_000, "max_files": 100}, {"max_patch_bytes": 0, "max_files": 1}
    compared = diff.Compared(most_bytes=20_000)
    for options in (small, big, small):
        await compared.compare(world.git.git, world.mirror, base=base, head=head, **options)
    assert [key[3] for key in compared._found] == [1_000_000, 0]
    narrow = diff.Compared(most_bytes=2000)
    for options in (small, big, small):
        await narrow.compare(world.git.git, world.mirror, base=base, head=head, **options)
    assert [key[3] for key in narrow._found] == [0]
    assert 0 < narrow._bytes <= 2000


async def test_a_bundle_is_readable_where_its_base_is(world: World) -> None:
    base, head = await _changed(world)
    into = world.tmp / "snapshot.bundle"
    for _ in range(2):
        await world.git.bundle(world.repository, session_id="s", base=base, head=head, into=into)
    seed = world.server.root / "demo-seed"
    git(seed, "bundle", "verify", str(into))
    git(seed, "fetch", "-q", str(into), "refs/heads/snapshot:refs/heads/restored")
    assert git(seed, "rev-parse", "restored") == head
    git(seed, "fsck", "--strict")
    assert [path.name for path in world.tmp.iterdir() if "bundle" in path.name] == ["snapshot.bundle"]


async def test_a_bundle_without_a_base_holds_everything(world: World) -> None:
    _, head = await _changed(world)
    into = world.tmp / "whole.bundle"
    await world.git.bundle(world.repository, session_id="s", base="", head=head, into=into)
    git(world.tmp, "clone", "-q", "--branch=snapshot", str(into), "restored")
    assert git(world.tmp / "restored", "rev-parse", "HEAD") == head


async def test_unknown_commits_are_typed_errors(world: World) -> None:
    base = await world.fetch()
    with pytest.raises(WorkspaceFailed, match="bad object"):
        await world.git.diff(world.repository, base=base, head="1" * 40, **ALL)
    for bad in ("1" * 40, "--output=/tmp/x", "main"):
        with pytest.raises(WorkspaceFailed):
            await world.git.diff(world.repository, base=base, head=bad, **ALL)
        with pytest.raises(WorkspaceFailed):
            await world.git.bundle(world.repository, session_id="s", base=base, head=bad, into=world.tmp / "x")
    assert not (world.tmp / "x").exists()


async def _changed(world: World) -> tuple[str, str]:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "README.md").write_text("one\ntwo\n")
    (workspace / "docs/guide.md").unlink()
    (workspace / "src/app.py").rename(workspace / "src/main.py")
    (workspace / "src/deep/er.py").unlink()
    (workspace / "src/deep/er.py").symlink_to("../x")
    (workspace / "blob.bin").write_bytes(b"\0\1\2" * 100)
    made = await world.import_(workspace, base, message="the subject\n\nand a body\n")
    assert made.commit is not None
    return base, made.commit


async def test_many_commits_are_looked_for_by_one_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base, head = await _changed(world)
    tree = git(world.mirror, "rev-parse", f"{head}^{{tree}}")
    started = started_by(monkeypatch)
    assert await world.git.held(world.repository, ["1" * 40, base, tree, head]) == {base, head}
    assert started == ["cat-file"]
    assert await world.git.held(world.repository, []) == frozenset()
    assert await world.git.held(world.repository, [base, "--help"]) == frozenset()
