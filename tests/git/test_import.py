"""Zone I on friendly trees: the commit is the one that git itself would have made."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from support.git_server import GitServer, git
from support.git_world import World, open_world

from server.git import base_tree, diff, growth, importing, quarantine
from server.git.importing import Importer
from server.git.walker.protocol import Limits
from server.kernel.errors import WorkspaceFailed
from server.kernel.ports.repositories import Diff, Skipped


async def test_an_unchanged_tree_makes_no_commit(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    found = await world.import_(workspace, base)
    assert (found.commit, found.tree, found.skipped) == (None, world.pushed("rev-parse", "main^{tree}"), ())


async def test_every_kind_of_change_gives_git_s_own_tree(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "README.md").write_text("# changed\n")
    (workspace / "docs/guide.md").unlink()
    (workspace / "src/app.py").rename(workspace / "src/main.py")
    (workspace / "src/deep/er.py").chmod(0o755)
    (workspace / "link").symlink_to("../nowhere")
    (workspace / "empty").write_text("")
    (workspace / "new/folder").mkdir(parents=True)
    (workspace / "new/folder/big.bin").write_bytes(os.urandom(5 * 1024 * 1024))
    (workspace / "new/copy").write_text("# changed\n")
    (workspace / "x.o").write_text("ignored")
    (workspace / "build").mkdir()
    (workspace / "build/out").write_text("ignored")
    (workspace / "private").write_text("0600")
    (workspace / "private").chmod(0o600)
    found = await world.import_(workspace, base)
    assert found.tree == _git_s_own_tree(workspace)
    assert found.skipped == ()
    assert git(world.mirror, "rev-parse", f"{found.commit}^", f"{found.commit}^{{tree}}").split() == [base, found.tree]
    assert git(world.mirror, "log", "-1", "--format=%an <%ae> %at %B", str(found.commit)) == "Treadle <treadle@example.org> 1767323045 work"


async def test_some_files_alone_are_laid_over_the_others(world: World, tmp_path: Path) -> None:
    hostile = '[submodule "x"]\n\turl = --upload-pack=evil\n'
    git(world.remote, "config", "receive.fsckObjects", "false")
    world.server.commit("demo", {".gitmodules": hostile})
    base = await world.fetch()
    for name, content in {"new/x": "x", "src/app.py": "changed\n", "docs": "no directory", "README.md/below": "no file"}.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_text(content)
    found = await world.import_(tmp_path / "files", base, keep_missing=True)
    assert git(world.mirror, "diff", "--name-status", "--no-renames", base, str(found.commit)).splitlines() == [
        "D\tREADME.md", "A\tREADME.md/below", "A\tdocs", "D\tdocs/guide.md", "A\tnew/x", "M\tsrc/app.py",
    ]  # fmt: skip
    assert found.deleted_count == 2
    shutil.rmtree(tmp_path / "files")
    (tmp_path / "files").mkdir()
    assert (await world.import_(tmp_path / "files", base, keep_missing=True)).commit is None


async def test_a_tree_that_somebody_writes_to_is_read_all_the_same(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    done, places = threading.Event(), [workspace / "log", workspace / "here", workspace / "there"]
    places[0].write_bytes(bytes(6 * 1024 * 1024))
    (workspace / "quiet").write_text("q")

    def write() -> None:
        number = 0
        with places[0].open("r+b") as large:
            while not done.is_set():
                number += 1
                os.pwrite(large.fileno(), number.to_bytes(8), number * 4096 % (6 * 1024 * 1024))
                places[1].mkdir(exist_ok=True)
                (places[1] / f"{number}").write_text("x")
                places[1].rename(places[2])
                shutil.rmtree(places[2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            found = await world.import_(workspace, base)
            names = git(world.mirror, "ls-tree", "-r", "--name-only", str(found.commit)).split()
            assert {"log", "quiet", "README.md"} <= set(names)
            git(world.mirror, "fsck", "--connectivity-only", str(found.commit))
    finally:
        done.set()
        writer.join()


async def test_files_and_directories_may_take_each_other_s_place(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    shutil.rmtree(workspace / "src")
    (workspace / "src").write_text("now a file")
    (workspace / "README.md").unlink()
    (workspace / "README.md").mkdir()
    (workspace / "README.md/inside").write_text("now a directory")
    (workspace / "docs/guide.md").unlink()
    (workspace / "docs/guide.md").symlink_to("x")
    assert (await world.import_(workspace, base)).tree == _git_s_own_tree(workspace)


async def test_an_emptied_tree_is_a_change_too(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    for name in ("README.md", ".gitignore"):
        (workspace / name).unlink()
    for name in ("src", "docs"):
        shutil.rmtree(workspace / name)
    assert (await world.import_(workspace, base)).tree == _git_s_own_tree(workspace)


@pytest.mark.parametrize(
    ("folder", "rules"),
    [
        ("", "*.log\n!keep.log\n/top\nsub/\n"), ("sub", "*\n!keep.log\n"), ("", "[[:digit:]]*\n"), ("", "/sub/**\n!/sub/keep.log\n"),
        ("", "b\\\n"), ("", "sub/*\n!sub/deep\n"), ("", "**/deep\n"), ("", "\ufeff*.log\n"), ("sub/deep", "!*.log\n"), ("", "*.LOG\n"),
    ],
)  # fmt: skip
async def test_ignored_files_are_those_that_git_ignores(world: World, folder: str, rules: str) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "sub/deep").mkdir(parents=True)
    for name in ("a.log", "keep.log", "top", "1st", "b\\", "sub/a.log", "sub/keep.log", "sub/deep/a.log", "sub/deep/top"):
        (workspace / name).write_text(name)
    (workspace / folder / ".gitignore").write_text(rules)
    (workspace / "src/app.py").write_text("known files are never ignored\n")
    assert (await world.import_(workspace, base)).tree == _git_s_own_tree(workspace)


async def test_the_same_input_gives_the_same_commit_also_after_a_crash(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    first = await world.import_(workspace, base)
    (world.mirror / "import-left-by-a-crash").mkdir()
    assert await world.import_(workspace, base) == first
    git(world.mirror, "update-ref", "-d", "refs/treadle/sessions/7a1c2f7e-0000-4000-8000-000012345678")
    assert await world.import_(workspace, base) == first


async def test_odd_names_are_imported(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    names = [
        b"-rf",
        b"--help",
        b"new\nline",
        b"\xff\xfe",
        b'"quoted"',
        b"tab\t",
        b" lead",
        b"trail ",
        b"\\back",
        b"..git",
        b".gitx",
        "ü".encode(),
    ]
    for name in names:
        (workspace / os.fsdecode(name)).write_text("x")
    found = await world.import_(workspace, base)
    assert found.skipped == ()
    assert found.tree == _git_s_own_tree(workspace)


async def test_submodules_and_lfs_pointers_of_the_base_are_kept(world: World) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 99999999999\n"
    world.server.commit("demo", {"large.bin": pointer, ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    seed = world.server.root / "demo-seed"
    sub = git(seed, "rev-parse", "HEAD")
    git(seed, "update-index", "--add", "--cacheinfo", f"160000,{sub},vendor/sub")
    git(seed, "commit", "-qm", "a submodule")
    git(seed, "push", "-q", str(world.remote), "HEAD:main")
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    (workspace / "vendor/sub/inside").write_text("not ours to commit")
    assert (workspace / "large.bin").read_text() == pointer
    found = await world.import_(workspace, base)
    assert f"160000 commit {sub}\tvendor/sub" in git(world.mirror, "ls-tree", "-r", str(found.commit))
    assert git(world.mirror, "diff", "--name-only", base, str(found.commit)) == "a"
    shutil.rmtree(workspace / "vendor")
    found = await world.import_(workspace, base)
    assert "vendor" not in git(world.mirror, "ls-tree", "-r", str(found.commit))


async def test_what_cannot_be_taken_keeps_its_base(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "README.md").unlink()
    os.mkfifo(workspace / "README.md")
    shutil.rmtree(workspace / "src")
    os.mkfifo(workspace / "src")
    (workspace / "a").write_text("a")
    found = await world.import_(workspace, base)
    assert set(found.skipped) == {Skipped("README.md", "NOT_A_FILE"), Skipped("src", "NOT_A_FILE")}
    assert git(world.mirror, "diff", "--name-status", base, str(found.commit)) == "A\ta"


async def test_limits_are_kept_and_reported(server: GitServer, tmp_path: Path) -> None:
    limits = Limits(entries=50, file_bytes=1000, total_bytes=2500, depth=4, path_bytes=100, skipped=20)
    async with open_world(server, tmp_path, limits=limits) as world:
        base = await world.fetch()
        workspace = await world.workspace(base)
        (workspace / "honest").write_text("honest")
        (workspace / "large").write_bytes(b"x" * 1001)
        (workspace / "d/e/f/g/h").mkdir(parents=True)
        (workspace / "d/e/f/g/h/deep").write_text("x")
        (workspace / "long").mkdir()
        (workspace / "long" / ("n" * 120)).write_text("x")
        for number in range(3):
            (workspace / f"sum{number}").write_bytes(bytes([number]) * 999)
        (workspace / "many").mkdir()
        for number in range(45):
            (workspace / f"many/{number:02}").write_text("x")
        found = await world.import_(workspace, base)
        reasons = {skip.path: skip.reason for skip in found.skipped}
        assert reasons["large"] == reasons["sum2"] == "TOO_LARGE"
        assert reasons["d/e/f/g/h"] == "TOO_DEEP"
        assert reasons[f"long/{'n' * 95}"] == "BAD_NAME"
        assert "TOO_MANY" in reasons.values()
        assert len(found.skipped) <= 20 <= found.skipped_count + 20
        assert "honest" in git(world.mirror, "ls-tree", "-r", "--name-only", str(found.commit))


async def test_long_names_are_limited_in_all_and_honest_work_comes_through(server: GitServer, tmp_path: Path) -> None:
    async with open_world(server, tmp_path, limits=Limits(names_bytes=10_000)) as world:
        base = await world.fetch()
        workspace = await world.workspace(base)
        (workspace / "honest").write_text("honest")
        flood = workspace / ("d" * 200) / ("e" * 200)
        flood.mkdir(parents=True)
        for number in range(60):
            (flood / f"{'f' * 200}{number}").touch()
        found = await world.import_(workspace, base)
        assert {skip.reason for skip in found.skipped} == {"TOO_MANY"}
        names = git(world.mirror, "ls-tree", "-r", "--name-only", str(found.commit)).splitlines()
        assert "honest" in names
        assert 10 < len(names) < 25


async def test_a_base_whose_names_are_too_many_is_refused_before_the_agent_works(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    monkeypatch.setattr(base_tree, "LISTING_BYTES", 200)
    with pytest.raises(WorkspaceFailed, match="too many files"):
        await world.workspace(base)


async def test_a_base_whose_names_are_too_many_is_a_typed_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    monkeypatch.setattr(base_tree, "LISTING_BYTES", 200)
    with pytest.raises(WorkspaceFailed, match="too many files"):
        await world.import_(workspace, base)


async def test_a_parent_that_the_mirror_lacks_is_a_typed_error(world: World) -> None:
    workspace = await world.workspace(await world.fetch())
    with pytest.raises(WorkspaceFailed, match="is not here"):
        await world.import_(workspace, "1" * 40)


async def test_what_grows_with_the_change_is_done_off_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, int] = {}

    def watch(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def seen(*arguments: object, **options: object) -> object:
            threads[name] = threading.get_ident()
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, seen)

    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    watched = {"_understand": importing, "_grow": importing, "parse": growth, "_questions": quarantine, "_sum_up": diff}
    for name, module in watched.items():
        watch(module, name)
    found = await world.import_(workspace, base)
    await world.git.diff(world.repository, base=base, head=str(found.commit), max_patch_bytes=1000, max_files=10)
    assert set(threads) == set(watched)
    assert threading.get_ident() not in threads.values()


async def test_a_diff_that_is_too_long_is_an_empty_one_that_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    for number in range(10):
        (workspace / f"file-{number}").write_text("x")
    found = await world.import_(workspace, base)
    monkeypatch.setattr(diff, "LISTING_BYTES", 300)
    told = await world.git.diff(world.repository, base=base, head=str(found.commit), max_patch_bytes=1000, max_files=10)
    assert told == Diff(truncated=True)


async def test_a_workspace_that_is_gone_or_a_link_is_a_typed_error(world: World) -> None:
    base = await world.fetch()
    with pytest.raises(WorkspaceFailed):
        await world.import_(world.tmp / "gone", base)


async def test_without_a_sandbox_it_is_still_another_process(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    with_sandbox = await world.import_(workspace, base)
    world.git = replace(world.git, importer=Importer(world.git.git, world.git.objects, None, Limits(), seconds=60))
    assert await world.import_(workspace, base) == with_sandbox


async def test_a_mirror_that_another_process_holds_is_waited_for_and_not_for_ever(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    world.git = replace(world.git, lock_seconds=0.2)
    with world.mirror.with_suffix(".lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(WorkspaceFailed, match="in use"):
            await world.import_(workspace, base)
    assert (await world.import_(workspace, base)).commit is None


async def test_an_import_leaves_only_its_pack_behind(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a").write_text("a")
    before = set(world.mirror.rglob("*"))
    await world.import_(workspace, base)
    left = {path.name.split("-")[0] for path in set(world.mirror.rglob("*")) - before if path.is_file()}
    assert left == {"pack", "7a1c2f7e"}
    git(world.mirror, "fsck", "--strict")


def _git_s_own_tree(workspace: Path) -> str:
    """What `git add --all` makes of a friendly tree."""
    git(workspace, "add", "--all")
    return git(workspace, "write-tree")
