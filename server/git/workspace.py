"""Zone W: builds the working tree that an agent will own. After that no git of ours looks at it again."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from server.git.base_tree import keep_base
from server.git.command import Git, GitFailed
from server.git.refs import branch_ref, commit_id, fetched_ref
from server.kernel.errors import WorkspaceFailed

# The bytes of the tree are the bytes of the blobs, whatever the repository's .gitattributes ask for: the import compares them, and
# nothing converts on the way back.
_ATTRIBUTES = "* -text -crlf -eol -ident -filter -working-tree-encoding\n"
# The files change hands after the checkout: else the agent's first `git status` would read each of them again.
_CONFIGURATION = """[user]
	name = Treadle agent
	email = agent@treadle.invalid
[core]
	checkStat = minimal
	trustctime = false
"""
_SMALL_BYTES = 16 * 1024 * 1024
"""A mirror of this size is copied in less time than it takes to notice."""


@dataclass(frozen=True)
class _History:
    """What a workspace's repository holds: all that `tips` follow, but nothing that the commits of `roots` do."""

    tips: frozenset[str]
    roots: frozenset[str] = frozenset()


async def build(git: Git, mirror: Path, *, commit: str, branch: str, base_branch: str, into: Path, history: int) -> None:
    """Fill the directory `into`; what is there is removed first. Of a large repository it gets the last `history` commits, and those
    since the merge base with the base branch; 0 is all. Errors: WorkspaceFailed."""
    try:
        await asyncio.to_thread(_make_empty, into)
        refs = {branch_ref(branch): commit_id(commit)}
        base = await base_commit(git, mirror, base_branch)
        if base and base_branch != branch:
            refs[branch_ref(base_branch)] = base
        kept = _History(frozenset(refs.values()))
        if history and not await asyncio.to_thread(_is_small, mirror):
            kept = await _recent(git, mirror, kept.tips, history)
        await git.run("init", "--quiet", "--template=", f"--initial-branch={branch}", "--end-of-options", str(into))
        await asyncio.to_thread(_configure, into / ".git")
        async with asyncio.TaskGroup() as both:
            both.create_task(_check_out(git, mirror, into, commit))
            both.create_task(_copy_history(git, mirror, into / ".git", kept))
        created = "".join(f"create {ref} {value}\n" for ref, value in refs.items())
        await git.run("update-ref", "--stdin", git_dir=into / ".git", stdin=created.encode())
        await keep_base(git, mirror, commit, into / ".git" / "index")
    except ExceptionGroup as group:
        raise _failed(group.exceptions[0]) from group
    except (GitFailed, OSError, ValueError) as error:
        raise _failed(error) from error


def _failed(error: Exception) -> WorkspaceFailed:
    return WorkspaceFailed(f"the workspace could not be built: {error}")


def _make_empty(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


async def base_commit(git: Git, mirror: Path, base_branch: str) -> str:
    """Where the base branch was when it was fetched last; "" when it never was. Errors: GitFailed, ValueError."""
    if not base_branch:
        return ""
    ref = fetched_ref(base_branch)
    return (await git.run("rev-parse", "--verify", "--quiet", "--end-of-options", ref, git_dir=mirror, accept=(0, 1))).text


def _is_small(mirror: Path) -> bool:
    return sum(pack.stat().st_size for pack in mirror.glob("objects/pack/*.pack")) <= _SMALL_BYTES


async def _recent(git: Git, mirror: Path, tips: frozenset[str], count: int) -> _History:
    parents = await _parents(git, mirror, f"--max-count={count}", *sorted(tips))
    if len(tips) == 2:
        common = (await git.run("merge-base", *sorted(tips), git_dir=mirror, accept=(0, 1))).text
        if common and common not in parents:
            parents = await _parents(git, mirror, *sorted(tips), f"^{common}")
    named = tips.union(*parents.values())
    return _History(tips, frozenset(commit for commit in named if commit not in parents))


async def _parents(git: Git, mirror: Path, *which: str) -> dict[str, list[str]]:
    """Commit -> parents, newest first."""
    listed = await git.run("rev-list", "--parents", *which, git_dir=mirror)
    return {commit: parents for commit, *parents in map(str.split, listed.text.splitlines())}


def _configure(repository: Path) -> None:
    with (repository / "config").open("a") as configuration:
        configuration.write(_CONFIGURATION)
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info" / "attributes").write_text(_ATTRIBUTES)


async def _check_out(git: Git, mirror: Path, into: Path, commit: str) -> None:
    """From the mirror's objects: the history is copied meanwhile."""
    lent = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": str(mirror / "objects")}
    await git.run(
        f"--work-tree={into}", "read-tree", "--reset", "-u", "--no-recurse-submodules", commit, git_dir=into / ".git", environment=lent
    )  # fmt: skip


async def _copy_history(git: Git, mirror: Path, repository: Path, kept: _History) -> None:
    """As a pack of its own: nothing is shared with the mirror, and nothing of other sessions comes along."""
    objects = repository / "objects"
    places = {"GIT_OBJECT_DIRECTORY": str(objects), "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(mirror / "objects")}
    wanted = [f"--shallow {commit}" for commit in sorted(kept.roots)] + sorted(kept.tips)
    await git.run(
        # It lives as long as the workspace, which nobody needs after a power cut. No search for deltas: there are those of the mirror.
        "-c", "core.fsync=none", "pack-objects", "--revs", "--quiet", "--delta-base-offset", "--window=0", str(objects / "pack" / "pack"),
        git_dir=mirror, stdin="".join(f"{line}\n" for line in wanted).encode(), environment=places,
    )  # fmt: skip
    if kept.roots:
        await asyncio.to_thread((repository / "shallow").write_text, "".join(f"{commit}\n" for commit in sorted(kept.roots)))
