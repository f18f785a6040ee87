"""Port: Git repositories. Zone R (trusted), W (the hostile workspace) and I (the import), DESIGN.md section 8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Repository:
    """A remote repository as one owner uses it; mirrors are never shared between owners."""

    tenant_id: str
    owner_id: str
    url: str
    """Rebuilt by `check_url`; never the caller's string."""


@dataclass(frozen=True)
class RemoteBranch:
    """A branch on the remote: its name without refs/heads/, and the commit that it points to."""

    name: str
    commit: str


@dataclass(frozen=True)
class Author:
    """Who a commit is by."""

    name: str
    email: str


@dataclass(frozen=True)
class Skipped:
    """A path that was left out of an import, and why: GIT_DIRECTORY, TOO_LARGE, TOO_DEEP, NOT_A_FILE, BAD_NAME, BAD_GITMODULES,
    BAD_GITATTRIBUTES, UNREADABLE, TOO_MANY. IGNORE_TOO_SLOW leaves nothing out, on the contrary: the rules of `.gitignore` took too long
    to evaluate, and were not applied. COMMITS_NOT_KEPT (of `.git`) leaves nothing out either: what the agent committed itself is there, as
    one commit."""

    path: str
    reason: str


@dataclass(frozen=True)
class FileDiff:
    """One file's change between two commits; `operation` is ADDED, MODIFIED, DELETED or RENAMED."""

    path: str
    operation: str
    old_path: str = ""
    binary: bool = False
    additions: int = 0
    deletions: int = 0
    patch: str = ""
    patch_truncated: bool = False


@dataclass(frozen=True)
class KeptCommit:
    """A commit that the agent made itself, made anew by Treadle: its tree and words, the turn's author."""

    sha: str
    message: str


@dataclass(frozen=True)
class Imported:
    """What a workspace held: `commit` is the last commit, None when there is nothing over the parent."""

    commit: str | None
    tree: str
    kept: tuple[KeptCommit, ...] = ()
    """The agent's own commits, oldest first. What it did not commit is one more commit on top of them, if there is such work."""
    skipped: tuple[Skipped, ...] = ()
    skipped_count: int = 0
    deleted_count: int = 0
    """Paths that were taken away, the old ones of what was renamed among them; of the agent's own commits not."""

    @property
    def agent_made_the_last(self) -> bool:
        """Whether `commit` is one of `kept`."""
        return bool(self.kept) and self.kept[-1].sha == self.commit


@dataclass(frozen=True)
class Diff:
    """The difference of two commits; `files` is cut at a limit, the sums are not (all zero when not even they could be made)."""

    files: tuple[FileDiff, ...] = field(default=())
    files_changed: int = 0
    additions: int = 0
    deletions: int = 0
    truncated: bool = False


class Repositories(Protocol):
    """Git, safely. The server never runs Git on a workspace, and no hostile byte chooses a program, a path, a URL or a ref.

    Every method may be repeated after a crash at any point and then has the same result. Waits are bounded. What a repository's owner
    has for its host is asked for anew for each operation, and shown to that host only: while the database does not tell it, methods
    that talk to a remote raise StoreUnavailable. Credentials are never in an argv, a file, an error or a log.
    """

    def check_url(self, url: str) -> str:
        """The canonical form of an allowed URL. No I/O. Errors: RepositoryNotAllowed."""
        ...

    async def inspect(self, repository: Repository, *, branch: str) -> RemoteBranch:
        """Ask the remote (ls-remote, at most 10 s), as its owner, for `branch`, or for its default branch when empty.
        Errors: RepositoryUnreachable (Git's reason), BranchUnknown."""
        ...

    async def branches(self, repository: Repository) -> tuple[str, list[RemoteBranch]]:
        """The name of the remote's default branch ("" when it does not tell), and all its branches by name.
        Errors: RepositoryUnreachable."""
        ...

    async def delete_branch(self, repository: Repository, branch: str) -> bool:
        """Delete the remote's `branch`, as it was a moment before; False when there is none. Never the default branch.
        Errors: PushRefused with the remote's reason; RepositoryUnreachable."""
        ...

    async def fetch(self, repository: Repository, *, branch: str, session_branch: str, head_commit: str) -> str:
        """Bring `branch` (and `session_branch`, when not empty and it exists) into the owner's trusted mirror. Returns the commit to
        start from. That is the session branch's on the remote, or `head_commit` (the newest that Treadle made, "" for none) when
        that one holds it and was not pushed; without either it is the tip of `branch`.
        Errors: RepositoryUnreachable, BranchUnknown."""
        ...

    async def refresh(self, repository: Repository, *, branch: str) -> None:
        """Fetch `branch` ahead into the owner's mirror; nothing where this server has no mirror of it, or the remote no such branch.
        Errors: RepositoryUnreachable."""
        ...

    async def holds(self, repository: Repository, commit: str) -> bool:
        """Whether the mirror has this commit, so that it can be pushed from here. A mirror that cannot be used has none."""
        ...

    async def lacks(self, repository: Repository, commit: str) -> bool:
        """Whether the mirror says that it does not have this commit, or other object of this id. Errors: RepositoryUnreachable when it
        says nothing."""
        ...

    async def held(self, repository: Repository, commits: Sequence[str]) -> frozenset[str]:
        """As `holds`, of many at once: those that the mirror has."""
        ...

    async def complete(self, repository: Repository, commit: str, *, over: str) -> bool:
        """Whether the mirror has all that this commit has over another ("" for nothing), contents of files as well. A mirror that cannot
        be used has nothing."""
        ...

    async def follows(self, repository: Repository, commit: str, *, of: str) -> bool:
        """Whether `commit` is `of`, or stands on it. A commit that the mirror does not have follows none, and none follows it.
        Errors: RepositoryUnreachable."""
        ...

    async def merge(
        self, repository: Repository, *, ours: str, theirs: str, branch: str, message: str, author: Author, at: datetime
    ) -> str:
        """A commit on top of `ours` and `theirs`, both in the mirror, with the changes of both. Nothing keeps it yet (Trees.keep). The
        same input gives the same commit id. Errors: BranchDiverged (of `branch`) when they conflict; RepositoryUnreachable."""
        ...

    async def push(self, repository: Repository, *, branch: str, commit: str, create: bool) -> None:
        """Make the remote's `branch` point to `commit`: with `create` the branch must not exist yet, otherwise what is there must be
        an ancestor of `commit`. A branch that already holds `commit` is success. Never forced; never the default branch. What the
        network ended is tried again; all of it takes a minute, or as long as something moves.
        Errors: PushRefused with its kind and the remote's reason; RepositoryNotAllowed."""
        ...

    async def build_workspace(self, repository: Repository, *, commit: str, branch: str, base_branch: str, into: Path) -> None:
        """Zone W: check `commit` out into the empty directory `into`, with a disposable .git of its own (branch checked out, no remote,
        no alternates, no hard links, no credentials). Its history may end some commits ago, never above the merge base with `base_branch`,
        which is there too when the mirror has it. A half-built one is removed and built again.
        Errors: WorkspaceFailed."""
        ...

    async def keep_prepared(self, repository: Repository, *, commit: str, base_branch: str, workspace: Path, digest: str) -> None:
        """Keep what `.treadle/setup` made in a workspace of `commit`, if the script names directories to keep: `build_workspace` puts it
        into later ones with the same script and the same files that it depends on. Only if nothing of it can be an agent's: the worker's
        archive has this SHA-256, told before the agent began, and the commit is part of the remote's `base_branch`.
        Errors: WorkspaceFailed."""
        ...

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
        """Zone I: read the tree of a workspace whose writers are all dead, and commit it on top of `parent` if it differs. What the
        agent committed itself on top of `parent` comes as commits, where that can be read safely, with times from `at` to `until`, and
        the rest as one on top; author is always `author`. One that a launcher gave to a worker is `listed`: where the launcher's list
        lies beside it, files that look as they did then, when they were those of `parent`, are not read. The agent's words stay, but for
        lines that sign in somebody's name; below them stand `trailers`. The same input gives the same commit id. The last commit is kept
        under a private ref of the session in the mirror, moved by compare-and-set. Errors: WorkspaceFailed."""
        ...

    async def reword(self, repository: Repository, *, session_id: str, commit: str, message: str) -> str:
        """The same commit with another message, kept under the session's private ref in its place; returns its id. Only for a commit
        that was just imported, that the agent did not make, and that nobody has seen. The same input gives the same commit id.
        Errors: WorkspaceFailed."""
        ...

    async def diff(self, repository: Repository, *, base: str, head: str, path: str = "", max_patch_bytes: int, max_files: int) -> Diff:
        """The difference between two commits of the mirror, of `path` alone if there is one, renames detected, patches cut at
        `max_patch_bytes` in all. What moved across the edge of `path` is added, or deleted."""
        ...

    async def diff_each(self, repository: Repository, *, base: str, commits: Sequence[str], max_files: int) -> list[Diff]:
        """What each of these commits of the mirror changes, the first over `base` and each other one over that before it; renames
        detected, no patches. Errors: WorkspaceFailed."""
        ...

    async def bundle(self, repository: Repository, *, session_id: str, base: str, head: str, into: Path) -> None:
        """Write a Git bundle of base..head (its ref: refs/heads/snapshot) to the file `into`; readable where `base` is present."""
        ...

    async def recommit(self, repository: Repository, *, tree_of: str, parent: str, message: str, author: Author, at: datetime) -> str:
        """A commit with the tree of another one on top of `parent`, both in the mirror. Nothing keeps it yet (Trees.keep). The same input
        gives the same commit id. Errors: WorkspaceFailed."""
        ...

    async def restore(self, repository: Repository, *, session_id: str, bundle: Path, base: str, head: str) -> None:
        """Bring a bundle of base..head (as `bundle` writes it) back into the mirror, which has `base`; `head` is kept under the session's
        private ref, unless that is at a commit that `head` does not follow. Errors: SnapshotDamaged, and nothing has changed;
        WorkspaceFailed."""
        ...

    async def forget(self, repository: Repository, *, session_id: str) -> None:
        """The session was deleted: nothing keeps its commits any more, and some time later they are gone from this server. Returns
        without waiting for that. Errors: RepositoryUnreachable."""
        ...
