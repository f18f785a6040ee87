"""The Git adapter: the port `Repositories` over mirrors, remotes and the sandboxed walker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import structlog

from server.config import Settings
from server.git import diff, merging, prepared, workspace
from server.git.bundle import take_bundle, write_bundle
from server.git.command import Git, GitFailed, lacking
from server.git.comparing import Comparers
from server.git.fetches import Fetches
from server.git.importing import Given, Importer, Parentage, commit_tree
from server.git.isolation import compile_walker
from server.git.keeping import keep
from server.git.mirror import Mirrors, to_its_end
from server.git.objects import ObjectMissing, Objects
from server.git.refs import branch_ref, commit_id, is_branch
from server.git.refusal import unreachable
from server.git.remote import Remote, TokenSupplier, no_token
from server.git.remote_url import RemoteUrls
from server.git.trees import GitTrees
from server.git.upkeep import Upkeep
from server.git.walker.protocol import Limits
from server.git.workspace import base_commit
from server.kernel.errors import BranchUnknown, PushRefused, RepositoryUnreachable, WorkspaceFailed
from server.kernel.ports.repositories import Author, Diff, Imported, RemoteBranch, Repository
from server.kernel.push_refusal import PushRefusal
from server.sandbox.probe import Unavailable, probe

PUSH_AGAIN_SECONDS = 30.0
"""A push that the network ended is tried again until so long after its begin. One that hangs is given up in less, so that all of it ends
within a minute."""
PUSH_PAUSE_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(frozen=True)
class GitRepositories:
    """See server/kernel/ports/repositories.py."""

    git: Git
    urls: RemoteUrls
    remote: Remote
    mirrors: Mirrors
    objects: Objects
    fetches: Fetches
    importer: Importer
    lock_seconds: float
    trees: GitTrees
    """The port `Trees`, over the same mirrors."""
    history: int
    """How many commits of a large repository a workspace gets."""
    compared: diff.Compared = field(default_factory=diff.Compared)

    def check_url(self, url: str) -> str:
        """The canonical form of an allowed URL."""
        return self.urls.check(url)

    async def inspect(self, repository: Repository, *, branch: str) -> RemoteBranch:
        """Ask the remote for a branch, or for its default branch."""
        if branch and not is_branch(branch):
            raise BranchUnknown(branch)
        self.check_url(repository.url)
        told = await self.remote.advertised(repository, *filter(None, [branch]))
        name = branch or told.default_branch
        commit = told.refs.get(branch_ref(branch) if branch else "HEAD")
        if not name or commit is None:
            raise BranchUnknown(name)
        return RemoteBranch(name, commit)

    async def branches(self, repository: Repository) -> tuple[str, list[RemoteBranch]]:
        """The default branch's name, and all branches."""
        self.check_url(repository.url)
        told = await self.remote.heads(repository)
        names = sorted(ref.removeprefix("refs/heads/") for ref in told.refs if ref.startswith("refs/heads/"))
        return told.default_branch, [RemoteBranch(name, told.refs[branch_ref(name)]) for name in names if is_branch(name)]

    async def delete_branch(self, repository: Repository, branch: str) -> bool:
        """Delete a branch of the remote."""
        self.check_url(repository.url)
        told = await self.remote.advertised(repository, branch)
        if told.is_default(branch):
            raise PushRefused(f"{branch!r} is the repository's default branch", PushRefusal.DEFAULT_BRANCH)
        if (now := told.refs.get(branch_ref(branch), "")) == "":
            return False
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                await self.remote.delete(repository, mirror, branch=branch, expected=now)
        except (TimeoutError, GitFailed, OSError) as error:
            raise RepositoryUnreachable(_trouble(error)) from error
        return True

    async def fetch(self, repository: Repository, *, branch: str, session_branch: str, head_commit: str) -> str:
        """Bring the branches into the mirror."""
        self.check_url(repository.url)
        try:
            tips = await self.fetches.join(repository, [name for name in (session_branch, branch) if is_branch(name)])
            if not tips:
                raise BranchUnknown(branch)
            published = tips.get(session_branch, "")
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                return head_commit if await self._is_ahead(mirror, head_commit, of=published) else published or tips[branch]
        except (TimeoutError, GitFailed, OSError) as error:
            raise RepositoryUnreachable(_trouble(error)) from error

    async def refresh(self, repository: Repository, *, branch: str) -> None:
        """Fetch ahead."""
        self.check_url(repository.url)
        if not is_branch(branch) or not await asyncio.to_thread(self.mirrors.path(repository).exists):
            return
        try:
            await self.fetches.join(repository, [branch])
        except (TimeoutError, GitFailed, OSError) as error:
            raise RepositoryUnreachable(_trouble(error)) from error

    async def holds(self, repository: Repository, commit: str) -> bool:
        """Whether the mirror has it."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                return await self._is_ahead(mirror, commit, of="")
        except (TimeoutError, GitFailed, OSError):
            return False

    async def lacks(self, repository: Repository, commit: str) -> bool:
        """Whether the mirror was asked, and does not have it."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror, self.objects.reader(mirror) as reader:
                (found,) = await reader.infos([commit_id(commit)])
        except (TimeoutError, GitFailed, OSError) as error:
            raise RepositoryUnreachable(_trouble(error)) from error
        return found is None

    async def held(self, repository: Repository, commits: Sequence[str]) -> frozenset[str]:
        """Which of them the mirror has."""
        try:
            asked = "".join(f"{commit_id(commit)}\n" for commit in commits)
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                told = await self.git.run("cat-file", "--batch-check", git_dir=mirror, stdin=asked.encode())
        except (TimeoutError, GitFailed, OSError, ValueError):
            return frozenset()
        return frozenset(line.split()[0] for line in told.text.splitlines() if line.split()[1] == "commit")

    async def complete(self, repository: Repository, commit: str, *, over: str) -> bool:
        """Whether the mirror has all of it."""
        try:
            asked = commit_id(commit) + (f"\n^{commit_id(over)}" if over else "")
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                await self.git.run("rev-list", "--objects", "--quiet", "--stdin", git_dir=mirror, stdin=asked.encode())
        except (TimeoutError, GitFailed, OSError, ValueError):
            return False
        return True

    async def follows(self, repository: Repository, commit: str, *, of: str) -> bool:
        """Whether the mirror has both, and one stands on the other."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                return await self._is_ahead(mirror, commit, of=of)
        except (TimeoutError, GitFailed, OSError) as error:
            raise RepositoryUnreachable(_trouble(error)) from error

    async def merge(
        self, repository: Repository, *, ours: str, theirs: str, branch: str, message: str, author: Author, at: datetime
    ) -> str:
        """Both sides' changes as one commit."""
        over = Parentage(ours, message, author, at)
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                return await merging.merge(self.git, mirror, theirs=theirs, branch=branch, over=over)
        except (TimeoutError, GitFailed, OSError) as error:
            raise RepositoryUnreachable(_trouble(error)) from error

    async def push(self, repository: Repository, *, branch: str, commit: str, create: bool) -> None:
        """Fast-forward the remote's branch."""
        if not is_branch(branch):
            raise PushRefused(f"{branch!r} is no branch name", PushRefusal.OTHER)
        deadline, pause = time.monotonic() + PUSH_AGAIN_SECONDS, PUSH_PAUSE_SECONDS
        while True:
            try:
                await self._push_once(repository, branch=branch, commit=commit, create=create)
            except RepositoryUnreachable as error:
                raised = PushRefused(error.reason, unreachable(error.reason))
            except PushRefused as error:
                raised = error
            else:
                return
            if raised.kind is not PushRefusal.NETWORK or time.monotonic() + pause > deadline:
                raise raised
            log.warning("push.again", branch=branch, reason=raised.reason, pause_s=pause)
            await asyncio.sleep(pause)
            pause *= 2

    async def _push_once(self, repository: Repository, *, branch: str, commit: str, create: bool) -> None:
        self.check_url(repository.url)
        told = await self.remote.advertised(repository, branch)
        now = told.refs.get(branch_ref(branch), "")
        if told.is_default(branch):
            raise PushRefused(f"{branch!r} is the repository's default branch", PushRefusal.DEFAULT_BRANCH)
        if now == commit:
            return
        if now and create:
            raise PushRefused(f"the repository has a branch {branch!r} already, at {now[:12]}", PushRefusal.BRANCH_EXISTS)
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                if not await self._is_ahead(mirror, commit, of=""):
                    raise PushRefused(f"this server does not hold the commit {commit[:12]}", PushRefusal.OTHER)
                if await self._is_ahead(mirror, commit, of=now):
                    await self.remote.push(repository, mirror, branch=branch, commit=commit, expected=now)
                    return
            if not await self._went_on(repository, branch, commit):
                moved = f"non-fast-forward: {branch!r} is at {now[:12]}, which {commit[:12]} does not follow"
                raise PushRefused(moved, PushRefusal.NON_FAST_FORWARD)
        except (TimeoutError, GitFailed, OSError) as error:
            raise PushRefused(_trouble(error), PushRefusal.OTHER) from error

    async def _went_on(self, repository: Repository, branch: str, commit: str) -> bool:
        """Whether the remote's branch holds the commit, below those of somebody who has gone on from it."""
        tips = await self.fetches.join(repository, [branch])
        async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
            return await self._is_ahead(mirror, tips.get(branch, ""), of=commit)

    async def _is_ahead(self, mirror: Path, commit: str, *, of: str) -> bool:
        """Whether the mirror holds `commit`, and it follows `of` ("" is followed by every commit)."""
        if not commit:
            return False
        try:
            await self.git.run("cat-file", "-e", f"{commit_id(commit)}^{{commit}}", git_dir=mirror)
            if of:
                await self.git.run("merge-base", "--is-ancestor", commit_id(of), commit, git_dir=mirror)
        except (GitFailed, ValueError):
            return False
        return True

    async def build_workspace(self, repository: Repository, *, commit: str, branch: str, base_branch: str, into: Path) -> None:
        """Check a commit out into an empty directory."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                await workspace.build(
                    self.git, mirror, commit=commit, branch=branch, base_branch=base_branch, into=into, history=self.history
                )
                if wanted := await prepared.prepared_for(self.git, mirror, commit, base_branch):
                    await to_its_end(lambda: prepared.place(wanted, into))
        except (TimeoutError, GitFailed, OSError) as error:
            raise WorkspaceFailed(_trouble(error)) from error

    async def keep_prepared(self, repository: Repository, *, commit: str, base_branch: str, workspace: Path, digest: str) -> None:
        """Keep what `.treadle/setup` made, if no agent can have."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                wanted = await prepared.prepared_for(self.git, mirror, commit_id(commit), base_branch)
                if wanted is None or wanted.file.exists():
                    return
                if await self._is_ahead(mirror, await base_commit(self.git, mirror, base_branch), of=commit):
                    await to_its_end(lambda: prepared.take(wanted, workspace, digest))
        except (TimeoutError, GitFailed, OSError, ValueError) as error:
            raise WorkspaceFailed(f"what was prepared cannot be kept: {error}") from error

    async def import_workspace(
        self,
        repository: Repository,
        *,
        session_id: str,
        workspace: Path,
        parent: str,
        message: str,
        author: Author,
        at: datetime,
        until: datetime,
        listed: bool = False,
        trailers: str = "",
        keep_missing: bool = False,
    ) -> Imported:
        """Commit what the workspace holds."""
        over = Parentage(parent, message, author, at, until, trailers)
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                given = Given(workspace, listed=listed, keep_missing=keep_missing)
                return await self.importer.run(mirror, session_id=session_id, workspace=given, over=over)
        except (TimeoutError, GitFailed, OSError) as error:
            raise WorkspaceFailed(_trouble(error)) from error

    async def reword(self, repository: Repository, *, session_id: str, commit: str, message: str) -> str:
        """The same commit with another message."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                return await self.importer.reword(mirror, session_id=session_id, commit=commit_id(commit), message=message)
        except (TimeoutError, GitFailed, OSError) as error:
            raise WorkspaceFailed(_trouble(error)) from error

    async def diff(self, repository: Repository, *, base: str, head: str, path: str = "", max_patch_bytes: int, max_files: int) -> Diff:
        """The difference between two commits."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                return await self.compared.compare(
                    self.git, mirror, base=base, head=head, path=path, max_patch_bytes=max_patch_bytes, max_files=max_files
                )
        except TimeoutError as error:
            raise WorkspaceFailed(_trouble(error)) from error
        except (GitFailed, OSError, ValueError) as error:
            lost = ObjectMissing.told_in(error.reason) if isinstance(error, GitFailed) else None
            raise WorkspaceFailed(f"the commits cannot be compared: {error}", missing=lost.id if lost else "") from error

    async def diff_each(self, repository: Repository, *, base: str, commits: Sequence[str], max_files: int) -> list[Diff]:
        """What each of some commits changes."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                return await diff.compare_each(self.git, mirror, base=base, commits=commits, max_files=max_files)
        except TimeoutError as error:
            raise WorkspaceFailed(_trouble(error)) from error
        except (GitFailed, OSError, ValueError) as error:
            raise WorkspaceFailed(f"the commits cannot be compared: {error}") from error

    async def bundle(self, repository: Repository, *, session_id: str, base: str, head: str, into: Path) -> None:
        """Write a bundle of base..head."""
        del session_id  # the mirror and the two commits say it all
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                await write_bundle(self.git, self.objects, mirror, base=base, head=head, into=into)
        except TimeoutError as error:
            raise WorkspaceFailed(_trouble(error)) from error
        except (GitFailed, OSError, ValueError) as error:
            raise WorkspaceFailed(f"the snapshot cannot be written: {error}") from error

    async def recommit(self, repository: Repository, *, tree_of: str, parent: str, message: str, author: Author, at: datetime) -> str:
        """The tree of another commit on top of `parent`."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                return await commit_tree(
                    self.git, mirror, f"{commit_id(tree_of)}^{{tree}}", Parentage(commit_id(parent), message, author, at)
                )
        except (TimeoutError, GitFailed, OSError) as error:
            raise WorkspaceFailed(_trouble(error)) from error

    async def restore(self, repository: Repository, *, session_id: str, bundle: Path, base: str, head: str) -> None:
        """Bring a bundle back."""
        try:
            async with self.mirrors.used(repository, seconds=self.lock_seconds) as mirror:
                await take_bundle(self.git, mirror, bundle, base=base, head=head)
                await keep(self.git, self.objects, mirror, session_id, head, only_forward=True)
        except (TimeoutError, GitFailed, OSError) as error:
            raise WorkspaceFailed(_trouble(error)) from error

    async def forget(self, repository: Repository, *, session_id: str) -> None:
        """Let go of a deleted session's commits."""
        try:
            await asyncio.to_thread(self.mirrors.forget, repository, session_id)
        except (OSError, ValueError) as error:
            raise RepositoryUnreachable(_trouble(error)) from error


def _trouble(error: Exception) -> str:
    """What is wrong with a mirror; a lock that does not come says nothing itself. (TimeoutError is an OSError: it is asked first.)"""
    return "the mirror was in use for too long" if isinstance(error, TimeoutError) else f"the mirror cannot be used: {error}"


@asynccontextmanager
async def open_git(settings: Settings, *, limits: Limits | None = None, token: TokenSupplier = no_token) -> AsyncIterator[GitRepositories]:
    """The adapter, from settings. Errors: ValueError for an allow-list that cannot be right."""
    git = Git(timeout_seconds=settings.git_timeout_seconds)
    await _warn_of_an_old_git(git)
    urls = RemoteUrls(hosts=settings.git_allowed_hosts, prefixes=settings.git_allowed_prefixes)
    found = await asyncio.to_thread(probe)
    await asyncio.to_thread(compile_walker)
    sandbox = None if isinstance(found, Unavailable) else found
    mirrors = Mirrors(settings.data_dir / "mirrors", git)
    remote = Remote(git, urls, token=token)
    lock_seconds = 2 * settings.git_timeout_seconds
    fetches = Fetches(git, remote, mirrors, lock_seconds=lock_seconds)
    objects, comparers = Objects(git), Comparers(git)
    tasks = [
        asyncio.create_task(Upkeep(git, mirrors).run(), name="mirrors' upkeep"),
        asyncio.create_task(objects.run(), name="mirrors' readers"),
        asyncio.create_task(comparers.run(), name="mirrors' comparers"),
    ]
    try:
        yield GitRepositories(
            git=git,
            urls=urls,
            remote=remote,
            mirrors=mirrors,
            objects=objects,
            fetches=fetches,
            importer=Importer(git, objects, sandbox, limits or Limits(), seconds=settings.git_timeout_seconds),
            lock_seconds=lock_seconds,
            trees=GitTrees(git, mirrors, objects, comparers, lock_seconds),
            history=settings.workspace_history,
        )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, fetches.aclose(), return_exceptions=True)


async def _warn_of_an_old_git(git: Git) -> None:
    try:
        if lacks := lacking(version := await git.version()):
            log.warning("git.too_old", version=version, lacks=lacks)
    except (GitFailed, OSError) as error:
        log.warning("git.unusable", error=str(error))
