"""Sessions' private refs: what they reach is never collected."""

from __future__ import annotations

from pathlib import Path

from server.git.command import Git
from server.git.objects import ObjectMissing, Objects, Reader
from server.git.refs import commit_id, session_ref

_NEAR = 50
"""So many commits back a git that runs already is asked; farther, another is started, which takes milliseconds."""


async def keep(git: Git, objects: Objects, mirror: Path, session_id: str, commit: str, *, only_forward: bool) -> None:
    """Move the session's ref to `commit` from where it is now; `only_forward` if it follows that. Errors: ObjectMissing; GitFailed, also
    when somebody else moves it at this moment."""
    ref = session_ref(session_id)
    async with objects.reader(mirror) as reader:
        (found,) = await reader.infos([ref])
        if found and (found.id == commit or (only_forward and not await _follows(git, reader, mirror, commit, of=found.id))):
            return
    # A reader says the same of no ref as of one whose commit is lost, and that one is replaced.
    now = found.id if found else await _named(git, mirror, ref)
    await git.run("update-ref", "--no-deref", ref, commit_id(commit), now or "0" * 40, git_dir=mirror)


async def _follows(git: Git, reader: Reader, mirror: Path, commit: str, *, of: str) -> bool:
    """Whether `commit` is, or stands on, the commit `of`. Errors: ObjectMissing, GitFailed."""
    before = await reader.infos([f"{commit_id(commit)}~{back}" for back in range(_NEAR)])
    if before[0] is None:
        raise ObjectMissing(commit)
    if any(each is not None and each.id == of for each in before):
        return True
    told = await git.run("merge-base", "--is-ancestor", commit_id(of), commit, git_dir=mirror, accept=(0, 1))
    return told.code == 0


async def _named(git: Git, mirror: Path, ref: str) -> str:
    return (await git.run("rev-parse", "--verify", "--quiet", "--end-of-options", ref, git_dir=mirror, accept=(0, 1))).text
