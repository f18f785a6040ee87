"""Files that look as they did when the workspace was given away are not read. Whatever an agent does to look as if it had done nothing,
what it did is found; and what is said to be untouched is never anything but what the base has there."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import struct
import tempfile
from pathlib import Path

import pytest
from support.git_server import GitServer, git
from support.git_world import BASE, World, give_to_agent, list_workspace

from server.git import isolation
from server.sandbox import listing
from server.sandbox.listing import beside, take

FILES = {
    **BASE,
    **{f"a/{name}": f"{name} of a, as long\n" for name in "xyz"},
    **{f"b/{name}": f"{name} of b, as long\n" for name in "xyz"},
    "a/deep/er/file": "in a\n",
    "b/deep/er/file": "in b\n",
    ".gitattributes": "*.png binary\n",
}


@pytest.fixture
def server(server: GitServer) -> GitServer:
    server.commit("demo", FILES)
    return server


async def handed_over(world: World, commit: str) -> Path:
    """As a launcher gives a workspace away: listed after the last change of owner."""
    workspace = await world.workspace(commit)
    list_workspace(workspace)
    return workspace


def _skip_without_list(workspace: Path) -> None:
    if not beside(workspace).read_bytes():
        pytest.skip("no list on this file system")


def _as_before(path: Path, was: os.stat_result) -> None:
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns), follow_symlinks=False)


def same_size(tree: Path) -> None:
    was = (tree / "a/x").stat()
    (tree / "a/x").write_text("X of a, as long\n")
    _as_before(tree / "a/x", was)


def same_size_beside_no_directory(tree: Path) -> None:
    was = (tree / "a/deep/er/file").stat()
    (tree / "a/deep/er/file").write_text("IN A\n")
    _as_before(tree / "a/deep/er/file", was)


def a_link_for_a_directory(tree: Path) -> None:
    shutil.rmtree(tree / "a/deep/er")
    (tree / "a/deep/er").symlink_to("../../b/deep/er")


def rename_over(tree: Path) -> None:
    was = (tree / "a/x").stat()
    (tree / "a/new").write_text("X of a, as long\n")
    _as_before(tree / "a/new", was)
    (tree / "a/new").rename(tree / "a/x")


def hard_link(tree: Path) -> None:
    (tree / "a/x").unlink()
    (tree / "a/x").hardlink_to(tree / "b/x")


def swapped_files(tree: Path) -> None:
    (tree / "a/x").rename(tree / "t")
    (tree / "b/x").rename(tree / "a/x")
    (tree / "t").rename(tree / "b/x")


def swapped_directories(tree: Path) -> None:
    """No file in them changes in any way."""
    was = tree.stat()
    (tree / "a").rename(tree / "t")
    (tree / "b").rename(tree / "a")
    (tree / "t").rename(tree / "b")
    _as_before(tree, was)


def swapped_far_above(tree: Path) -> None:
    (tree / "a/deep").rename(tree / "t")
    (tree / "b/deep").rename(tree / "a/deep")
    (tree / "t").rename(tree / "b/deep")


def through_a_mapping(tree: Path) -> None:
    was = (tree / "a/x").stat()
    with (tree / "a/x").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[0:1] == b"x"  # what was read before is written without a fault on tmpfs, which then keeps its times
        mapped[0:1] = b"X"
        mapped.flush()
    _as_before(tree / "a/x", was)


def only_the_mode(tree: Path) -> None:
    (tree / "a/x").chmod(0o755)


def a_link(tree: Path) -> None:
    was = (tree / "a/x").stat()
    (tree / "a/x").unlink()
    (tree / "a/x").symlink_to("0123456789abcde")
    _as_before(tree / "a/x", was)


def the_same_inode_again(tree: Path) -> None:
    """A file system gives a number to the next file that it makes."""
    was = (tree / "a/x").stat()
    (tree / "a/x").unlink()
    for number in range(50):
        (tree / f"b/{number}").write_text("X of a, as long\n")
        if (tree / f"b/{number}").stat().st_ino == was.st_ino:
            break
    (tree / f"b/{number}").rename(tree / "a/x")
    _as_before(tree / "a/x", was)


def one_is_gone(tree: Path) -> None:
    was = (tree / "a").stat()
    (tree / "a/x").unlink()
    _as_before(tree / "a", was)


def a_directory_is_gone(tree: Path) -> None:
    shutil.rmtree(tree / "a/deep")


def one_is_new(tree: Path) -> None:
    was = (tree / "a").stat()
    (tree / "a/new").write_text("new\n")
    _as_before(tree / "a", was)


def a_directory_is_new(tree: Path) -> None:
    (tree / "a/deep/er/new").mkdir()
    (tree / "a/deep/er/new/file").write_text("new\n")


def a_file_for_a_directory(tree: Path) -> None:
    shutil.rmtree(tree / "a/deep")
    (tree / "a/deep").write_text("a file\n")


def a_directory_for_a_file(tree: Path) -> None:
    (tree / "a/x").unlink()
    (tree / "a/x").mkdir()
    (tree / "a/x/y").write_text("below\n")


def ignored_from_now_on(tree: Path) -> None:
    (tree / ".gitignore").write_text("new\n")
    (tree / "a/new").write_text("new\n")
    (tree / "a/x").write_text("X of a, as long\n")


def committed_in_another_form(tree: Path) -> None:
    """The file is as it was, and the agent's last commit has another."""
    blob = git(tree, "hash-object", "-w", "--stdin", stdin=b"committed, and never in the tree\n")
    git(tree, "update-index", "--cacheinfo", f"100644,{blob},a/x")
    git(tree, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "in the index alone")


def removed_in_a_commit_alone(tree: Path) -> None:
    git(tree, "rm", "-q", "--cached", "a/x")
    git(tree, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "from the index alone")


CHANGES = [
    same_size, same_size_beside_no_directory, a_link_for_a_directory,
    rename_over, hard_link, swapped_files, swapped_directories, swapped_far_above, through_a_mapping, only_the_mode, a_link,
    the_same_inode_again, one_is_gone, a_directory_is_gone, one_is_new, a_directory_is_new, a_file_for_a_directory, a_directory_for_a_file,
    ignored_from_now_on, committed_in_another_form, removed_in_a_commit_alone,
]  # fmt: skip


_TWO = "import sys; sys.path += sys.argv[3:]; from server.git.walker import ahead; ahead._WORTH_BYTES = 0; "
_ALL_TOLD = _TWO + "ahead.os.set_blocking = lambda *_: None; "
"""The second process looks at everything, and the walk waits for it."""


_DIED = _ALL_TOLD + "ahead.is_as_listed = lambda *_: 1 / 0; "


@pytest.mark.parametrize("boot", ["", _TWO, _ALL_TOLD, _DIED], ids=["one", "two", "told", "died"])
async def test_what_an_agent_did_is_found_whatever_it_looks_like(world: World, monkeypatch: pytest.MonkeyPatch, boot: str) -> None:
    """As git finds it, which has not seen the list."""
    monkeypatch.setattr(isolation, "_BOOT", boot + isolation._BOOT)
    base = await world.fetch()
    template = await world.workspace(base)
    for change in CHANGES:
        workspace = world.tmp / change.__name__
        shutil.copytree(template, workspace, symlinks=True)
        give_to_agent(workspace)
        list_workspace(workspace)
        change(workspace)
        found = await world.import_(workspace, base, session_id=change.__name__)
        assert found.commit is not None, change.__name__
        git(workspace, "add", "--all")
        assert found.tree == git(workspace, "write-tree"), change.__name__


def test_a_file_system_that_keeps_its_times_when_a_mapped_page_is_written_has_no_list() -> None:
    """Control: there the bytes do change, and nothing else of the file does."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        tree = Path(folder)
        (tree / "a").mkdir()
        (tree / "a/x").write_text("x of a, as long\n")
        list_workspace(tree / "a")
        was = listing.look([*os.scandir(tree / "a")])
        with (tree / "a/x").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            assert mapped[0:1] == b"x"
            mapped[0:1] = b"X"
        assert (tree / "a/x").read_text() == "X of a, as long\n"
        assert listing.look([*os.scandir(tree / "a")]) == was
        assert beside(tree / "a").read_bytes() == b""


def test_what_ext4_moves_from_file_to_file_changes_no_time(tmp_path: Path) -> None:
    """Control: so a worker must not have that ioctl (server/sandbox/calls.py)."""
    size, (mine, other) = 65536, (tmp_path / "mine", tmp_path / "other")
    with mine.open("w+b") as listed, other.open("w+b") as donor:
        for file, content in ((listed, b"1"), (donor, b"2")):
            file.write(content * size)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if listing._file_system(listed.fileno()) != b"ext4":
            pytest.skip("not on ext4")
        was = listing.look([*os.scandir(tmp_path)])
        fcntl.ioctl(donor, 0xC028660F, struct.pack("=IIQQQQ", 0, listed.fileno(), 0, 0, size // 4096, 0))
    assert mine.read_bytes() != b"1" * size
    assert listing.look([*os.scandir(tmp_path)]) == was


async def test_what_looks_untouched_is_not_read(world: World) -> None:
    """A control: where the list was made of another content, by whom we trust, that content is taken for the base's."""
    base = await world.fetch()
    workspace = await handed_over(world, base)
    _skip_without_list(workspace)
    (workspace / "a/x").write_text("not as in the base\n")
    list_workspace(workspace)
    assert (await world.import_(workspace, base, session_id="control")).commit is None
    (workspace / "b/x").write_text("told\n")
    found = await world.import_(workspace, base, session_id="control")
    assert git(world.mirror, "diff", "--name-only", base, str(found.commit)) == "b/x"


async def test_what_the_second_process_says_is_not_looked_at_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: one that says of everything that it looks as listed is believed."""
    lie = "ahead.is_as_listed = lambda *_: True; "
    monkeypatch.setattr(isolation, "_BOOT", _ALL_TOLD + lie + isolation._BOOT)
    base = await world.fetch()
    workspace = await handed_over(world, base)
    (workspace / "a/deep/er/file").write_text("changed\n")
    (workspace / "a/x").write_text("changed, beside a directory\n")
    found = await world.import_(workspace, base, session_id="lie")
    assert git(world.mirror, "diff", "--name-only", base, str(found.commit)) == "a/x"


async def test_a_change_in_the_same_tick_of_the_clock_is_found(world: World) -> None:
    """What was changed a moment before it was listed is not on the list, as nothing later could be told from it."""
    base = await world.fetch()
    workspace = await handed_over(world, base)
    _skip_without_list(workspace)
    for number in range(20):
        (workspace / "a/x").write_text(f"{number:02} of a, as lon\n")
        listed = listing.read(take(str(workspace)))
        assert b"x" not in listing.each(listed[b"a/"][:2])
        assert b"y" in listing.each(listed[b"a/"][:2])


@pytest.mark.parametrize("rule", [True, False], ids=["rule", "control"])
async def test_what_changes_in_the_tick_in_which_the_list_is_made_is_imported(
    world: World, monkeypatch: pytest.MonkeyPatch, *, rule: bool
) -> None:
    """It looks as it was listed, and so does its directory: only the rule tells it from what nobody touched.

    A kernel since 6.13 gives a file that somebody looked at a finer time, so the clock that did not tick is played: list and disk agree.
    """
    base = await world.fetch()
    workspace = await handed_over(world, base)
    _skip_without_list(workspace)
    file, directory = workspace / "a/x", workspace / "a/deep/er"
    file.write_text("before, as long\n")
    (directory / "old").touch()
    (directory / "old").unlink()
    before = (_listed_as(file), _listed_as(directory))
    made = max(file.stat().st_ctime_ns, directory.stat().st_ctime_ns) + 1
    with monkeypatch.context() as patch:
        patch.setattr("time.time_ns", lambda: made)
        if not rule:
            patch.setattr(listing, "_RACY_NS", 0)
        listed = take(str(workspace))
    file.write_text("after,  as long\n")
    (directory / "new").touch()
    for was, path in zip(before, (file, directory), strict=True):
        assert (was in listed) is not rule
        listed = listed.replace(was, _listed_as(path))
    beside(workspace).write_bytes(listed)
    found = await world.import_(workspace, base, session_id="tick")
    told = git(world.mirror, "diff", "--name-status", base, str(found.commit)).splitlines() if found.commit else []
    assert told == (["A\ta/deep/er/new", "M\ta/x"] if rule else [])


def _listed_as(path: Path) -> bytes:
    return listing._status(path.stat())


async def test_a_directory_that_looks_as_listed_is_not_read(world: World) -> None:
    """A control: what is in it and is not on the list is not seen, where the list says that it looks as it does with that in it."""
    base = await world.fetch()
    workspace = await handed_over(world, base)
    _skip_without_list(workspace)
    files = listing.read(beside(workspace).read_bytes())[b"a/deep/er/"]
    (workspace / "a/deep/er/new").touch()
    list_workspace(workspace)
    listed = beside(workspace).read_bytes()
    now = listing.read(listed)[b"a/deep/er/"]
    beside(workspace).write_bytes(listed.replace(listing._frame(b"a/deep/er/", now), listing._frame(b"a/deep/er/", (*files[:3], now[3]))))
    assert (await world.import_(workspace, base, session_id="control")).commit is None
    beside(workspace).write_bytes(listed)
    found = await world.import_(workspace, base, session_id="control")
    assert git(world.mirror, "diff", "--name-only", base, str(found.commit)) == "a/deep/er/new"


async def test_a_list_of_another_version_says_nothing(world: World) -> None:
    base = await world.fetch()
    workspace = await handed_over(world, base)
    _skip_without_list(workspace)
    (workspace / "a/x").write_text("not as in the base\n")
    list_workspace(workspace)
    assert (await world.import_(workspace, base, session_id="old")).commit is None
    beside(workspace).write_bytes(beside(workspace).read_bytes().removeprefix(listing._MAGIC))
    assert (await world.import_(workspace, base, session_id="old")).commit is not None


def test_whole_seconds_say_nothing() -> None:
    assert not listing._is_telling(1_700_000_000_000_000_000, 1_800_000_000_000_000_000)
    assert listing._is_telling(1_700_000_000_000_000_001, 1_800_000_000_000_000_000)


async def test_what_setup_had_made_is_new_all_the_same(world: World) -> None:
    """It was there when the list was made, and is not in the base."""
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "a/made").write_text("by setup\n")
    (workspace / "made").mkdir()
    (workspace / "made/file").write_text("by setup\n")
    (workspace / "made/x.o").write_text("ignored\n")
    give_to_agent(workspace)
    list_workspace(workspace)
    found = await world.import_(workspace, base, session_id="setup")
    assert git(world.mirror, "diff", "--name-only", base, str(found.commit)).split() == ["a/made", "made/file"]


async def test_a_submodule_s_directory_that_is_gone_is_gone(world: World) -> None:
    _with_gitlink(world)
    base = await world.fetch()
    workspace = await handed_over(world, base)
    assert (await world.import_(workspace, base, session_id="sub")).commit is None
    (workspace / "a/sub").rmdir()
    found = await world.import_(workspace, base, session_id="sub")
    assert git(world.mirror, "diff", "--name-status", base, str(found.commit)) == "D\ta/sub"


def _with_gitlink(world: World) -> None:
    seed = world.server.root / "demo-seed"
    git(seed, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},a/sub")
    git(seed, "commit", "-q", "-m", "a submodule")
    git(seed, "push", "-q", str(world.remote), "HEAD:refs/heads/main")


async def test_a_list_that_a_power_cut_has_torn_hides_nothing(world: World) -> None:
    base = await world.fetch()
    workspace = await handed_over(world, base)
    whole = beside(workspace).read_bytes()
    (workspace / "a/x").write_text("changed\n")
    for torn in (b"", whole[:-9], whole[:40], bytes(len(whole)), bytes(500) + whole[500:], whole[:200] + bytes(len(whole) - 200)):
        beside(workspace).write_bytes(torn)
        found = await world.import_(workspace, base, session_id="torn")
        assert git(world.mirror, "diff", "--name-only", base, str(found.commit)) == "a/x"
