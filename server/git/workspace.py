"""Zone W: builds the working tree that an agent will own. After that no git of ours looks at it again."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from server.git.base_tree import check_index
from server.git.command import Git, GitFailed
from server.git.refs import branch_ref, commit_id, fetched_ref
from server.kernel.errors import WorkspaceFailed

# The bytes of the tree are the bytes of the blobs, whatever the repository's .gitattributes ask for: the import compares them, and
# nothing converts on the way back.
_ATTRIBUTES = "* -text -crlf -eol -ident -filter -working-tree-encoding\n"
_IDENTITY = {"user.name": "Treadle agent", "user.email": "agent@treadle.invalid"}


async def build(git: Git, mirror: Path, *, commit: str, branch: str, base_branch: str, into: Path) -> None:
    """Fill the directory `into`; what is there is removed first. Errors: WorkspaceFailed."""
    try:
        await asyncio.to_thread(_make_empty, into)
        repository = into / ".git"
        await git.run("init", "--quiet", "--template=", f"--initial-branch={branch}", "--end-of-options", str(into))
        refs = {branch_ref(branch): commit_id(commit)}
        base = await _base_commit(git, mirror, base_branch)
        if base and base_branch != branch:
            refs[branch_ref(base_branch)] = base
        await _copy_history(git, mirror, repository, sorted(set(refs.values())))
        for ref, value in refs.items():
            await git.run("update-ref", ref, value, git_dir=repository)
        for key, value in _IDENTITY.items():
            await git.run("config", "--local", key, value, git_dir=repository)
        (repository / "info").mkdir(exist_ok=True)
        (repository / "info" / "attributes").write_text(_ATTRIBUTES)
        await git.run(f"--work-tree={into}", "reset", "--quiet", "--hard", "--no-recurse-submodules", git_dir=repository)
        check_index(repository / "index")
    except (GitFailed, OSError, ValueError) as error:
        raise WorkspaceFailed(f"the workspace could not be built: {error}") from error


def _make_empty(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


async def _base_commit(git: Git, mirror: Path, base_branch: str) -> str:
    if not base_branch:
        return ""
    ref = fetched_ref(base_branch)
    return (await git.run("rev-parse", "--verify", "--quiet", "--end-of-options", ref, git_dir=mirror, accept=(0, 1))).text


async def _copy_history(git: Git, mirror: Path, repository: Path, commits: list[str]) -> None:
    """As a pack of its own: nothing is shared with the mirror, and nothing of other sessions comes along."""
    wanted = "".join(f"{commit}\n" for commit in commits).encode()
    with tempfile.TemporaryFile(dir=mirror) as pack:
        await git.run("pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset", git_dir=mirror, stdin=wanted, stdout=pack)
        pack.seek(0)
        await git.run("index-pack", "--stdin", git_dir=repository, stdin=pack)
