"""Port: what a code host does besides Git."""

from __future__ import annotations

from typing import Protocol

from server.kernel.code_host import (
    Branch,
    Change,
    Changed,
    Comparison,
    Contents,
    HostRepository,
    MergeMethod,
    Page,
    PullRequest,
    PullRequestState,
    Tree,
)
from server.kernel.ports.repositories import Repository

MAX_FILE_BYTES = 1024 * 1024
"""GitHub's own limit for a file with its contents in the answer."""


class BranchHost(Protocol):
    """What every code host can do. Each call acts as the owner of its `Repository`, by the credential that this user has for exactly that
    host, asked for anew for each call and shown to that host alone.

    What a host answers is hostile: its size and time are bounded, no redirect leads anywhere else, and its words are cut and cleaned of the
    credential before they are told. Reads are tried again when the host is briefly away; writes are sent once.

    Errors of every call: CredentialMissing; CredentialUnreadable; CredentialRejected when the host does not take it (any more), also
    where a single sign-on is due; CodeHostForbidden when it may not do this; CodeHostLimited with the seconds to wait; CodeHostUnavailable
    when the host does not answer, or with an error of its own: of a write it is not known then whether it was carried out;
    CodeHostRefused with the host's words for all else; RepositoryUnreachable with Git's, of a host that is spoken to by Git. And those
    named at each method.
    """

    async def default_branch(self, at: Repository) -> str:
        """Errors: RemoteNotFound."""
        ...

    async def branches(self, at: Repository, *, page_size: int, page_token: str) -> Page[Branch]:
        """By name. Errors: RemoteNotFound."""
        ...

    async def create_branch(self, at: Repository, name: str, *, base: str) -> Branch:
        """From where the branch `base` is. Errors: RemoteNotFound, BranchExists."""
        ...

    async def delete_branch(self, at: Repository, name: str) -> bool:
        """False when there is none. The caller has seen to it that it is not the default branch."""
        ...


class CodeHost(BranchHost, Protocol):
    """What a code host with an API can do besides. All that BranchHost says holds here."""

    async def repositories(self, at: Repository, *, page_size: int, page_token: str) -> Page[HostRepository]:
        """What the user can see, most recently changed first; of `at` only the host is looked at. Errors: InvalidField for a foreign
        page_token, as in all lists."""
        ...

    async def contents(self, at: Repository, path: str, *, ref: str) -> Contents:
        """A file of at most `MAX_FILE_BYTES`, or a directory ("" for the root), on a branch, a tag or a commit ("" for the default branch).
        Errors: RemoteNotFound, ContentTooLarge."""
        ...

    async def tree(self, at: Repository, *, ref: str) -> Tree:
        """All of a tree. Errors: RemoteNotFound."""
        ...

    async def change(self, at: Repository, change: Change) -> Changed:
        """Write or remove one file, as a commit, if the branch still has what the caller has seen. Errors: RemoteNotFound,
        ContentChanged."""
        ...

    async def pull_requests(
        self, at: Repository, *, head: str, base: str, state: PullRequestState | None, page_size: int, page_token: str
    ) -> Page[PullRequest]:
        """Newest first; `head` and `base` only where given. `state` CLOSED holds merged ones too, None all. Errors: RemoteNotFound."""
        ...

    async def pull_request(self, at: Repository, number: int) -> PullRequest:
        """Errors: RemoteNotFound."""
        ...

    async def create_pull_request(self, at: Repository, *, title: str, body: str, head: str, base: str, draft: bool) -> PullRequest:
        """Errors: RemoteNotFound, PullRequestExists, NoCommits."""
        ...

    async def update_pull_request(
        self, at: Repository, number: int, *, title: str | None, body: str | None, base: str | None, open_: bool | None
    ) -> PullRequest:
        """Change what is not None. Errors: RemoteNotFound."""
        ...

    async def merge_pull_request(
        self, at: Repository, number: int, *, method: MergeMethod, title: str, message: str, head_commit: str
    ) -> str:
        """The merge's commit. With `head_commit` only if that is still what is merged. Errors: RemoteNotFound, MergeConflict (also when the
        head has moved), NotMergeable."""
        ...

    async def merge_branch(self, at: Repository, *, from_: str, into: str) -> str:
        """Merge one branch into another; the merge's commit, or "" when there was nothing to merge. Errors: RemoteNotFound,
        MergeConflict."""
        ...

    async def compare(self, at: Repository, *, base: str, head: str) -> Comparison:
        """Errors: RemoteNotFound."""
        ...


class CodeHosts(Protocol):
    """Who speaks to which host."""

    def branches(self, at: Repository) -> BranchHost:
        """Of any host."""
        ...

    def whole(self, at: Repository, what: str) -> CodeHost:
        """Of a host whose API this server knows. `what` is wanted. Errors: UnsupportedByHost."""
        ...
