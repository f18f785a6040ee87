"""Every attack, over two turns: nothing runs, nothing leaks, and the honest work of the turn is still pushed."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from support.git_server import GitServer, git, git_server
from support.git_world import BASE, BRANCH, World, list_workspace, open_world
from support.hostile_histories import PAYLOAD
from support.hostile_trees import ATTACKS, SECRET, Trap

from server.git import isolation
from server.git.importing import Importer
from server.git.walker.protocol import Limits
from server.kernel.credential import Token
from server.kernel.errors import WorkspaceFailed
from server.kernel.ports.repositories import Repository

LIMITS = Limits(entries=500, file_bytes=1024 * 1024)
TOKEN = "canary-77aa-token"


@dataclass
class Range:
    """One server, one repository and one mirror for all attacks, each on a branch of its own; what must not get out lies beside them."""

    world: World
    base: str
    trap: Trap
    thief: GitServer
    _template: Path

    def workspace(self) -> Path:
        """As it was built for the base."""
        into = self.world.tmp / f"copy-{next(_numbers)}"
        shutil.copytree(self._template, into, symlinks=True)
        return into


_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module")
async def range_(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Range]:
    """Afterwards: both repositories are sound, no object of theirs holds the secret, and the token is nowhere on the disk."""
    tmp = tmp_path_factory.mktemp("range")

    async def token(_: Repository) -> Token:
        return Token("x-access-token", TOKEN)

    with git_server(tmp / "served", token=TOKEN) as server, git_server(tmp / "thief") as thief:
        server.create("demo", {**BASE, "docs/example.txt": PAYLOAD})
        async with open_world(server, tmp, limits=LIMITS, token=token) as world:
            base = await world.fetch()
            theirs = await world.workspace(base)
            (theirs / "secret").write_text("another session's")
            other = str((await world.import_(theirs, base, session_id="other")).commit)
            foreign = git(world.mirror, "rev-parse", f"{other}:secret", f"{other}^{{tree}}").split()
            trap = Trap(tmp / "trap", thief.url, *foreign).set()
            yield Range(world, base, trap, thief, await world.workspace(base))
            for repository in (world.remote, world.mirror):
                git(repository, "fsck", "--strict")
                assert SECRET.decode() not in git(repository, "cat-file", "--batch-all-objects", "--batch")
            assert not _holding(tmp, TOKEN.encode())
            held = git(world.remote, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split()
            assert not {other, *foreign} & set(held)


@pytest.mark.parametrize("name", ATTACKS)
async def test_nothing_runs_nothing_leaks_and_honest_work_is_pushed(range_: Range, name: str) -> None:
    world, trap, branch = range_.world, range_.trap, f"treadle/{name}"
    head = range_.base
    for turn in (1, 2):
        workspace = range_.workspace() if turn == 1 else await world.workspace(head)
        if turn == 2:
            list_workspace(workspace)
        try:
            ATTACKS[name].plant(workspace, trap)
            (workspace / f"honest-{turn}.txt").write_text(f"honest work of turn {turn}\n")
            found = await world.import_(workspace, head, session_id=name)
        finally:
            _unlock(workspace)
        assert found.commit is not None
        # As the owner, one reads what root's worker closed.
        assert turn == 2 or {skip.reason for skip in found.skipped} == ATTACKS[name].told or (name == "closed_doors" and os.geteuid() != 0)
        head = found.commit
    await world.git.push(world.repository, branch=branch, commit=head, create=True)
    assert not trap.mark.exists()
    assert range_.thief.asked == []
    pushed = world.pushed("ls-tree", "-r", "--name-only", "-z", branch).split("\0")
    assert {"honest-1.txt", "honest-2.txt"} <= set(pushed)
    assert ".git" not in {part.lower() for path in pushed for part in path.split("/")}
    assert world.pushed("show", f"{branch}:honest-2.txt") == "honest work of turn 2"
    assert set(world.pushed("log", "--format=%an <%ae> %cn <%ce>", f"{range_.base}..{branch}").splitlines()) == {
        "Treadle <treadle@example.org> Treadle <treadle@example.org>"
    }


def _holding(folder: Path, secret: bytes) -> list[Path]:
    """Files below it that hold these bytes; sparse ones of the attacks are left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if path.stat().st_size < 100_000_000 and secret in path.read_bytes()]


def _unlock(workspace: Path) -> None:
    for path in (workspace, *workspace.iterdir()):
        if not path.is_symlink() and stat.S_ISDIR(path.stat().st_mode):
            path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="as the owner, one reads what root's worker closed")
async def test_doors_that_the_agent_closed_keep_the_base(world: World, tmp_path: Path) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    ATTACKS["closed_doors"].plant(workspace, Trap(tmp_path / "trap").set())
    found = await world.import_(workspace, base)
    _unlock(workspace)
    assert {skip.path: skip.reason for skip in found.skipped} == dict.fromkeys(("README.md", "docs", "locked"), "UNREADABLE")
    assert found.commit is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".gitattributes", "* filter=lfs diff=x text eol=crlf\n"),
        (".lfsconfig", "[lfs]\nurl=http://127.0.0.1:1\n"),
        (".gitattributes", "a " + "x" * 3000 + "\n"),
        ("docs/.gitattributes", "a " + "x" * 3000 + "\n"),
        (".gitmodules", '[submodule "x"]\n\tpath = x\n\turl = -u./payload\n'),
        (".gitmodules", '[submodule "x"]\n\tpath = -x\n\turl = https://a/b\n'),
        (".gitmodules", '[submodule "../x"]\n\tpath = x\n\turl = https://a/b\n'),
        (".gitmodules", "[broken\n"),
    ],
)
async def test_hostile_content_of_the_base_stays_and_spoils_nothing(world: World, name: str, content: str) -> None:
    """What the remote's author committed is checked out, kept as it is, and pushed with the work; git's fsck would refuse some of it."""
    world.server.commit("demo", {**BASE, name: content})
    base = await world.fetch()
    await world.push(base, create=True)
    workspace = await world.workspace(base)
    assert (await world.import_(workspace, base)).commit is None
    (workspace / "docs/honest.txt").write_text("honest")
    (workspace / name).chmod(0o755)
    found = await world.import_(workspace, base)
    assert found.commit is not None
    assert found.skipped == ()
    await world.push(found.commit)
    changed = set(world.pushed("diff", "--name-status", base, BRANCH).split("\n"))
    assert changed == {f"M\t{name}", "A\tdocs/honest.txt"}
    assert world.pushed("show", f"{BRANCH}:{name}") == content.rstrip("\n")


@pytest.mark.parametrize("where", [".gitattributes", "docs/.gitattributes"])
async def test_what_the_base_may_hold_is_still_refused_from_the_agent(world: World, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the walker, which looks first, was taken over: only the blob that stays where the base has it is let through."""
    bad = "a " + "x" * 3000 + "\n"
    world.server.commit("demo", {**BASE, "src/.gitattributes": bad})
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / where).write_text(bad)
    found = await world.import_(workspace, base)
    assert [(skip.path, skip.reason) for skip in found.skipped] == [(where, "BAD_GITATTRIBUTES")]
    monkeypatch.setattr(isolation, "_BOOT", _BLIND + isolation._BOOT)
    with pytest.raises(WorkspaceFailed, match="gitattributes"):
        await world.import_(workspace, base)


_BLIND = "import sys; sys.path += sys.argv[3:]; from server.git.walker import walk; walk.refused_content = lambda *_: ''; "


@pytest.mark.parametrize("sandboxed", [True, False])
async def test_rules_that_take_too_long_are_dropped_and_the_work_is_imported(
    server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandboxed: bool
) -> None:
    """Not the pattern is what is tested, any may be the next: the screen for patterns is switched off, and one match takes 10 s."""
    unscreened = "import sys; sys.path += sys.argv[3:]; from server.git.walker import ignore; "
    unscreened += "ignore._affordable = bytes; ignore._PATH_BYTES = 4096; "
    monkeypatch.setattr(isolation, "_BOOT", unscreened + isolation._BOOT)
    limits = Limits(ignore_seconds=0.5)
    async with open_world(server, tmp_path, limits=limits) as world:
        if not sandboxed:
            world.git = replace(world.git, importer=Importer(world.git.git, world.git.objects, None, limits, seconds=60))
        base = await world.fetch()
        workspace = await world.workspace(base)
        (workspace / ".gitignore").write_text("*.o\n**/*a*a*a*b\n")
        _deep(workspace, folders=13, files=40)
        (workspace / "honest.txt").write_text("honest")
        (workspace / "a.o").write_text("ignored by a rule that is quick, but rules were dropped")
        found = await world.import_(workspace, base)
        assert [(skip.path, skip.reason) for skip in found.skipped] == [(".gitignore", "IGNORE_TOO_SLOW")]
        names = git(world.mirror, "ls-tree", "-r", "--name-only", str(found.commit)).splitlines()
        assert {"honest.txt", "a.o", ".gitignore"} <= set(names)


async def test_many_quick_matches_use_the_budget_up_too(server: GitServer, tmp_path: Path) -> None:
    async with open_world(server, tmp_path, limits=Limits(ignore_seconds=0.05)) as world:
        base = await world.fetch()
        workspace = await world.workspace(base)
        (workspace / ".gitignore").write_text("\n".join(f"*a*a*a*a*a*b{number}" for number in range(2000)))
        for number in range(500):
            (workspace / ("a" * 240 + str(number))).touch()
        found = await world.import_(workspace, base)
        assert [skip.reason for skip in found.skipped] == ["IGNORE_TOO_SLOW"]


async def test_the_longest_paths_cost_no_time(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / ".gitignore").write_text("**/*a*a*a*b\n*.o\n")
    _deep(workspace, folders=13, files=60)
    (workspace / "x.o").touch()
    found = await world.import_(workspace, base)
    assert found.skipped == ()
    assert "x.o" not in git(world.mirror, "ls-tree", "-r", "--name-only", str(found.commit))


def _deep(workspace: Path, *, folders: int, files: int) -> None:
    """A path of some 200 bytes a folder, longer than what one call takes."""
    here = os.open(workspace, os.O_RDONLY)
    for _ in range(folders):
        os.mkdir("a" * 200, dir_fd=here)
        below = os.open("a" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    for number in range(files):
        os.close(os.open(f"{'a' * 190}{number}", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here))
    os.close(here)
