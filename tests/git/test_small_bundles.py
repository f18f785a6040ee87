"""The bundle of a small change: written without starting a git, and all that git would put into it."""

from __future__ import annotations

import asyncio
import random
import shutil
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from support.git_server import git
from support.git_world import started_by

from server.git.bundle import take_bundle, write_bundle
from server.git.change import OBJECTS
from server.git.command import Git, GitFailed
from server.git.objects import Objects
from server.kernel.errors import SnapshotDamaged

FILES = {
    "README.md": "# demo\n",
    "run.sh": "echo run\n",
    "src/app.py": "print('hello')\n",
    "src/deep/er.py": "x = 1\n",
    "src/deep/est.py": "x = 2\n",
    "docs/guide.md": "guide\n",
    "docs/more.md": "more\n",
    "docs/of/src.md": "of src\n",
}
GITLINK = f"160000,{'5' * 40},module"


@dataclass
class Place:
    """A repository, its work tree, and one that has only the base."""

    work: Path
    mirror: Path
    other: Path
    into: Path
    base: str
    git: Git
    objects: Objects

    def commit(self) -> str:
        """What the work tree holds now."""
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--allow-empty", "-m", "edit")
        return git(self.work, "rev-parse", "HEAD")

    def made(self, tree: bytes, *, parent: str = "") -> str:
        """A commit of a tree that git does not write, on the base."""
        made = git(self.mirror, "hash-object", "-t", "tree", "--literally", "-w", "--stdin", stdin=tree)
        return git(self.mirror, "commit-tree", "-m", "odd", "-p", parent or self.base, made)

    def id(self, name: str) -> bytes:
        return bytes.fromhex(git(self.mirror, "rev-parse", name))

    async def bundle(self, base: str, head: str) -> None:
        await write_bundle(self.git, self.objects, self.mirror, base=base, head=head, into=self.into)

    async def take(self, head: str) -> None:
        await take_bundle(self.git, self.other, self.into, base=self.base, head=head)

    def bundled(self, into: Path) -> set[str]:
        """The objects in the bundle, which stand on no others."""
        git(into.parent, "init", "--quiet", "--bare", "--template=", str(into))
        git(into, "index-pack", "--stdin", stdin=self.into.read_bytes().partition(b"\n\n")[2])
        return set(git(into, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split())

    def between(self, base: str, head: str) -> set[str]:
        """What git says is new."""
        return set(git(self.mirror, "rev-list", "--objects", "--no-object-names", f"{base}..{head}").split())


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    work = tmp_path / "work"
    git(tmp_path, "init", "--quiet", "--template=", "--initial-branch=main", str(work))
    for path, content in FILES.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(content)
    (work / "module").mkdir()
    git(work, "update-index", "--add", "--cacheinfo", GITLINK)
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "-m", "base")
    git(tmp_path, "clone", "--quiet", "--bare", "--template=", str(work), "other.git")
    runner = Git(timeout_seconds=30)
    objects = Objects(runner)
    base = git(work, "rev-parse", "HEAD")
    running = asyncio.create_task(objects.run())
    yield Place(work, work / ".git", tmp_path / "other.git", tmp_path / "a.bundle", base, runner, objects)
    running.cancel()
    await asyncio.wait({running})


def moved(source: str, target: str) -> Callable[[Path], None]:
    def move(work: Path) -> None:
        (work / target).parent.mkdir(parents=True, exist_ok=True)
        (work / source).rename(work / target)

    return move


def written(path: str, content: str = "new\n") -> Callable[[Path], None]:
    def write(work: Path) -> None:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(content)

    return write


def file_becomes_directory(work: Path) -> None:
    (work / "run.sh").unlink()
    written("run.sh/now.sh")(work)


def directory_becomes_file(work: Path) -> None:
    shutil.rmtree(work / "src/deep")
    written("src/deep")(work)


def directories_swap(work: Path) -> None:
    moved("docs", "between")(work)
    moved("src", "docs")(work)
    moved("between", "src")(work)


def one_content_thrice(work: Path) -> None:
    for path in ("a.txt", "docs/b.txt", "new/c.txt"):
        written(path)(work)


def moved_and_changed(work: Path) -> None:
    moved("src/deep", "docs/deep")(work)
    written("docs/deep/er.py")(work)


def nothing_left(work: Path) -> None:
    git(work, "rm", "-r", "--quiet", "--cached", ".")
    for each in work.iterdir():
        if each.name != ".git":
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def submodule_moves(work: Path) -> None:
    git(work, "update-index", "--force-remove", "module")
    moved("module", "src/module")(work)
    git(work, "update-index", "--add", "--cacheinfo", GITLINK.replace("module", "src/module"))


EDITS: dict[str, Callable[[Path], object]] = {
    "new file": written("new.txt"),
    "changed file": written("src/deep/er.py"),
    "changed to what is there already": written("src/deep/er.py", "more\n"),
    "one content thrice": one_content_thrice,
    "deleted file": lambda work: (work / "docs/more.md").unlink(),
    "deleted directory": lambda work: shutil.rmtree(work / "src/deep"),
    "moved directory": moved("docs", "manual"),
    "moved between directories": moved("src/deep", "docs/deep"),
    "moved and changed": moved_and_changed,
    "directories that swap": directories_swap,
    "mode": lambda work: (work / "run.sh").chmod(0o755),
    "link": lambda work: (work / "docs/link").symlink_to("../src"),
    "new deep directory": written("one/two/three/four/five.txt"),
    "file that becomes a directory": file_becomes_directory,
    "directory that becomes a file": directory_becomes_file,
    "nothing": lambda work: None,
    "nothing left": nothing_left,
    "changed submodule": lambda work: git(work, "update-index", "--cacheinfo", GITLINK.replace("5", "6")),
    "submodule that moves": submodule_moves,
}
ELSEWHERE = {"changed to what is there already", "moved and changed"}
"""The base has the same file in a directory that nobody had to read."""


@pytest.mark.parametrize("edit", EDITS)
async def test_it_holds_what_git_would_put_into_it_and_starts_none(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: str
) -> None:
    EDITS[edit](place.work)
    head = place.commit()
    started = started_by(monkeypatch)
    await place.bundle(place.base, head)
    assert started == ["cat-file"]
    bundled, new = place.bundled(tmp_path / "bundled.git"), place.between(place.base, head)
    assert new <= bundled
    assert (bundled - new == set()) == (edit not in ELSEWHERE)
    assert bundled - new <= set(git(place.other, "rev-list", "--objects", "--no-object-names", place.base).split())
    git(place.other, "bundle", "verify", "--quiet", str(place.into))
    await place.take(head)
    assert git(place.other, "fsck", "--full", "--strict", head) == ""
    assert git(place.other, "ls-tree", "-r", "-t", head) == git(place.mirror, "ls-tree", "-r", "-t", head)
    assert git(place.other, "cat-file", "commit", head) == git(place.mirror, "cat-file", "commit", head)


async def test_what_was_there_before_the_base_is_in_it(place: Place, tmp_path: Path) -> None:
    """A base that came in one pack without its history does not have it."""
    written("src/app.py")(place.work)
    base = place.commit()
    written("src/app.py", FILES["src/app.py"])(place.work)
    head = place.commit()
    await place.bundle(base, head)
    assert git(place.mirror, "rev-parse", f"{head}:src/app.py") in place.bundled(tmp_path / "bundled.git")


def entry(mode: bytes, name: bytes, identity: bytes) -> bytes:
    return b"%b %b\0%b" % (mode, name, identity)


def merge(place: Place) -> str:
    git(place.work, "checkout", "--quiet", "-b", "beside")
    written("beside.txt")(place.work)
    place.commit()
    git(place.work, "checkout", "--quiet", "main")
    git(place.work, "merge", "--quiet", "--no-ff", "-m", "merge", "beside")
    return git(place.work, "rev-parse", "HEAD")


def two_commits(place: Place) -> str:
    for name in ("first.txt", "second.txt"):
        written(name)(place.work)
        place.commit()
    return git(place.work, "rev-parse", "HEAD")


def beside(place: Place) -> str:
    git(place.work, "checkout", "--quiet", "--orphan", "alone")
    written("new.txt")(place.work)
    return place.commit()


def large(place: Place) -> str:
    written("large.txt", "many words\n" * 10_000)(place.work)
    return place.commit()


def large_together(place: Place) -> str:
    for number in range(10):
        written(f"file{number}.txt", f"{number} words\n" * 1000)(place.work)
    return place.commit()


def many(place: Place) -> str:
    for number in range(OBJECTS):
        written(f"new/{number}.txt", f"{number}\n")(place.work)
    return place.commit()


FOR_GIT: dict[str, Callable[[Place], str]] = {
    "merge": merge,
    "two commits": two_commits,
    "commit beside the base": beside,
    "large file": large,
    "files that are large together": large_together,
    "many objects": many,
    "two entries of one name": lambda place: place.made(
        entry(b"100644", b"a", place.id("main:README.md")) + entry(b"100644", b"a", place.id("main:run.sh"))
    ),
    "entries out of order": lambda place: place.made(
        entry(b"100644", b"b", place.id("main:README.md")) + entry(b"100644", b"a", place.id("main:run.sh"))
    ),
    "name that is none": lambda place: place.made(entry(b"100644", b"a/b", place.id("main:README.md"))),
    "mode of another git": lambda place: place.made(entry(b"100664", b"a", place.id("main:README.md"))),
    "mode with a zero": lambda place: place.made(entry(b"040000", b"a", place.id("main:docs"))),
}


@pytest.mark.parametrize("what", FOR_GIT)
async def test_what_is_large_or_odd_is_left_to_git(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    head = FOR_GIT[what](place)
    started = started_by(monkeypatch)
    for _ in range(2):
        await place.bundle(place.base, head)
    assert started == ["cat-file", "pack-objects", "pack-objects"], "what answers goes on to answer"
    git(place.other, "index-pack", "--stdin", "--fix-thin", stdin=place.into.read_bytes().partition(b"\n\n")[2])
    for identity in place.between(place.base, head):
        git(place.other, "cat-file", "-e", identity)


async def test_an_odd_base_is_left_to_git(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    base = place.made(entry(b"100644", b"a", place.id("main:README.md")) * 2)
    head = git(place.mirror, "commit-tree", "-m", "usual", "-p", base, "main^{tree}")
    started = started_by(monkeypatch)
    await place.bundle(base, head)
    assert started == ["cat-file", "pack-objects"]


async def test_a_submodules_commit_is_no_file_that_the_base_has(place: Place, tmp_path: Path) -> None:
    """An owner may call a submodule's commit what a file will be called."""
    written("new.txt", "as the submodule\n")(place.work)
    blob = git(place.work, "hash-object", "new.txt")
    (place.work / "new.txt").unlink()
    git(place.work, "update-index", "--cacheinfo", f"160000,{blob},module")
    base = place.commit()
    written("new.txt", "as the submodule\n")(place.work)
    head = place.commit()
    await place.bundle(base, head)
    assert blob in place.bundled(tmp_path / "bundled.git")


async def test_without_an_object_there_is_no_bundle(place: Place) -> None:
    written("new.txt")(place.work)
    head = place.commit()
    loose_path(place, f"{head}:new.txt").unlink()
    with pytest.raises(GitFailed, match=r"unable to read|missing"):
        await place.bundle(place.base, head)
    assert not place.into.exists()


async def test_an_object_that_is_not_what_it_is_called_is_left_to_git(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    written("new.txt")(place.work)
    head = place.commit()
    damaged = loose_path(place, f"{head}:new.txt")
    damaged.chmod(0o644)
    damaged.write_bytes(zlib.compress(b"blob 4\0old\n"))
    started = started_by(monkeypatch)
    await place.bundle(place.base, head)
    assert started == ["cat-file", "pack-objects"]
    with pytest.raises(SnapshotDamaged):
        await place.take(head)


def loose_path(place: Place, name: str) -> Path:
    identity = git(place.mirror, "rev-parse", name)
    return place.mirror / "objects" / identity[:2] / identity[2:]


async def test_what_git_stores_as_a_delta_is_left_to_git(place: Place) -> None:
    """One word of a source file of 50 KB: git's bundle has some 500 bytes, and one without deltas 17,000."""
    source = Path(__file__).read_text()[:8000] + random.Random(1).randbytes(20_000).hex()
    written("source.py", source)(place.work)
    base = place.commit()
    written("source.py", source.replace("async", "asinc", 1))(place.work)
    await place.bundle(base, place.commit())
    assert place.into.stat().st_size < 1500
