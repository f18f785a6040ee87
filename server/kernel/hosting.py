"""Use cases: what a code host does besides Git, for a repository or for the one of a session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, replace

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
from server.kernel.errors import (
    InvalidField,
    KernelError,
    MergeabilityUnknown,
    MergeConflict,
    NotMergeable,
    PullRequestExists,
    RequestTooLarge,
    TurnActive,
)
from server.kernel.identity import Principal
from server.kernel.ports.code_host import MAX_FILE_BYTES, CodeHosts
from server.kernel.ports.hosts import Hosts
from server.kernel.ports.repositories import Repositories, Repository
from server.kernel.ports.session_store import SessionStore
from server.kernel.pull_request_text import body_of, title_of
from server.kernel.pull_requests import PullRequests
from server.kernel.session import Session
from server.kernel.validation import MAX_PROMPT, check_page_size

DEFAULT_PAGE = 30
MAX_PAGE = 100
MAX_REF = 250
MAX_PATH = 1024
MAX_PULL_REQUEST_TITLE = 256
MAX_BODY = 60_000
MAX_MESSAGE = 10_000
MERGEABLE_SECONDS = 30
"""How long a host may take to find out whether a pull request can be merged."""
POLL_SECONDS = 1.0

_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\A[-/.]|[/.]\Z")


@dataclass(frozen=True)
class At:
    """The repository of a call, named by one of the two."""

    repository_url: str
    session_id: str


@dataclass(frozen=True)
class Generated:
    """A pull request's words, and of what they were made."""

    title: str
    body: str
    compared: Comparison


@dataclass(frozen=True)
class Ready:
    """There is a pull request."""

    pull_request: PullRequest
    created: bool


@dataclass(frozen=True)
class BaseMerged:
    """The branch has all of the base; `commit` is empty when it had it before."""

    commit: str


@dataclass(frozen=True)
class Checking:
    """The host is finding out whether the pull request can be merged, for so long now."""

    seconds: int


@dataclass(frozen=True)
class Merged:
    """By this commit; empty when somebody else was first."""

    commit: str


@dataclass(frozen=True)
class BranchRemoved:
    """Whether the branch is gone, or why not."""

    deleted: bool
    reason: str = ""


Step = Ready | BaseMerged | Checking | Merged | BranchRemoved


@dataclass(frozen=True)
class _Target:
    repository: Repository
    session: Session | None

    def head(self, given: str) -> str:
        """Errors: InvalidField."""
        head = given or (self.session.branch if self.session else "")
        if not head:
            raise InvalidField("head", "which branch? name one, or a session that has one: its first turn makes it")
        return _ref("head", head)

    def idle(self) -> None:
        """A turn that runs would not get its work onto a branch that others move. Errors: TurnActive."""
        if self.session is not None and self.session.active_turn_id:
            raise TurnActive(self.session.id, self.session.active_turn_id)


class Hosting:
    """Finds the repository, checks what is asked for, and lets its code host do it as the caller. Errors of every method: as listed at
    GitService."""

    def __init__(
        self, sessions: SessionStore, repositories: Repositories, hosts: Hosts, code_hosts: CodeHosts, pull_requests: PullRequests
    ) -> None:
        self._sessions = sessions
        self._repositories = repositories
        self._hosts = hosts
        self._code_hosts = code_hosts
        self._pull_requests = pull_requests

    async def repositories(self, principal: Principal, host: str, *, page_size: int, page_token: str) -> Page[HostRepository]:
        """What the caller can see on a host."""
        size, canonical = _page(page_size), self._hosts.check_host(host or "github.com")
        at = Repository(principal.tenant_id, principal.user_id, canonical if "://" in canonical else f"https://{canonical}/")
        return await self._code_hosts.whole(at, "a list of repositories").repositories(at, page_size=size, page_token=page_token)

    async def branches(self, principal: Principal, at: At, *, page_size: int, page_token: str) -> Page[Branch]:
        """By name."""
        size, target = _page(page_size), await self._target(principal, at)
        host = self._code_hosts.branches(target.repository)
        return await host.branches(target.repository, page_size=size, page_token=page_token)

    async def create_branch(self, principal: Principal, at: At, name: str, *, base: str) -> Branch:
        """From another branch, or the default one."""
        target = await self._target(principal, at)
        host = self._code_hosts.branches(target.repository)
        begin = _ref("base", base) if base else await host.default_branch(target.repository)
        return await host.create_branch(target.repository, _ref("branch", name), base=begin)

    async def delete_branch(self, principal: Principal, at: At, name: str) -> bool:
        """False when there was none."""
        target = await self._target(principal, at)
        host = self._code_hosts.branches(target.repository)
        if _ref("branch", name) == await host.default_branch(target.repository):
            raise InvalidField("branch", f"{name!r} is the repository's default branch")
        return await host.delete_branch(target.repository, name)

    async def contents(self, principal: Principal, at: At, path: str, *, ref: str) -> Contents:
        """A file or a directory."""
        target = await self._target(principal, at)
        host, wanted = self._code_hosts.whole(target.repository, "contents"), _where(target, ref)
        return await host.contents(target.repository, _path(path), ref=wanted)

    async def tree(self, principal: Principal, at: At, *, ref: str) -> Tree:
        """All paths."""
        target = await self._target(principal, at)
        return await self._code_hosts.whole(target.repository, "a tree").tree(target.repository, ref=_where(target, ref))

    async def change(self, principal: Principal, at: At, change: Change) -> Changed:
        """Write or remove a file."""
        target = await self._target(principal, at)
        if not change.path:
            raise InvalidField("path", "which file?")
        if change.data is not None and len(change.data) > MAX_FILE_BYTES:
            raise RequestTooLarge("data", size=len(change.data), limit=MAX_FILE_BYTES)
        branch = change.branch or (target.session.branch if target.session else "")
        if not branch:
            raise InvalidField("branch", "which branch? name one, or a session that has one: its first turn makes it")
        message = _text("message", change.message, MAX_MESSAGE) or f"{'Delete' if change.data is None else 'Update'} {change.path}"
        wanted = replace(change, path=_path(change.path), branch=_ref("branch", branch), message=message)
        if wanted.sha or change.data is None:
            _ref("sha", wanted.sha)
        return await self._code_hosts.whole(target.repository, "a changed file").change(target.repository, wanted)

    async def pull_requests(
        self, principal: Principal, at: At, *, head: str, base: str, state: PullRequestState | None, page_size: int, page_token: str
    ) -> Page[PullRequest]:
        """Newest first."""
        size, target = _page(page_size), await self._target(principal, at)
        wanted = head or (target.session.branch if target.session else "")
        for name, text in (("head", wanted), ("base", base)):
            if text:
                _ref(name, text)
        host = self._code_hosts.whole(target.repository, "pull requests")
        return await host.pull_requests(target.repository, head=wanted, base=base, state=state, page_size=size, page_token=page_token)

    async def pull_request(self, principal: Principal, at: At, number: int) -> PullRequest:
        """One."""
        target = await self._target(principal, at)
        found = await self._code_hosts.whole(target.repository, "pull requests").pull_request(target.repository, _number(number))
        await self._pull_requests.saw(target.repository, found)
        return found

    async def create_pull_request(
        self, principal: Principal, at: At, *, title: str, body: str, head: str, base: str, draft: bool
    ) -> PullRequest:
        """Open one."""
        _words(title, body)
        target = await self._target(principal, at)
        from_, into = target.head(head), await self._base(target, base)
        opened = await self._opened(target, title=title, body=body, head=from_, base=into, draft=draft)
        await self._pull_requests.saw(target.repository, opened)
        return opened

    async def update_pull_request(
        self, principal: Principal, at: At, number: int, *, title: str | None, body: str | None, base: str | None, open_: bool | None
    ) -> PullRequest:
        """Change what is not None."""
        _words(title or "", body or "")
        if title is not None and not title.strip():
            raise InvalidField("title", "must not be empty")
        if base is not None:
            _ref("base", base)
        target = await self._target(principal, at)
        host = self._code_hosts.whole(target.repository, "pull requests")
        changed = await host.update_pull_request(target.repository, _number(number), title=title, body=body, base=base, open_=open_)
        await self._pull_requests.saw(target.repository, changed)
        return changed

    async def merge_pull_request(
        self, principal: Principal, at: At, number: int, *, method: MergeMethod, title: str, message: str, head_commit: str
    ) -> str:
        """The merge's commit."""
        _words(title, message)
        if head_commit:
            _ref("head_commit", head_commit)
        target = await self._target(principal, at)
        host = self._code_hosts.whole(target.repository, "pull requests")
        commit = await host.merge_pull_request(
            target.repository, _number(number), method=method, title=title, message=message, head_commit=head_commit
        )
        await self._see(target.repository, number)
        return commit

    async def merge_base(self, principal: Principal, at: At, *, head: str, base: str) -> str:
        """Merge the base into a branch; the commit, or "" when there was nothing to merge."""
        target = await self._target(principal, at)
        target.idle()
        from_, into = await self._base(target, base), target.head(head)
        return await self._code_hosts.whole(target.repository, "merges").merge_branch(target.repository, from_=from_, into=into)

    async def generate(self, principal: Principal, at: At, *, head: str, base: str, request: str) -> Generated:
        """A title and a body."""
        _text("request", request, MAX_PROMPT)
        target = await self._target(principal, at)
        return await self._generated(target, head=target.head(head), base=await self._base(target, base), request=request)

    async def auto(
        self, principal: Principal, at: At, *, head: str, base: str, title: str, body: str, keep_branch: bool
    ) -> AsyncGenerator[Step, None]:
        """Bring a branch into its base, step by step. A caller who leaves stops it after the step that is under way."""
        _words(title, body)
        target = await self._target(principal, at)
        target.idle()
        from_, into, repository = target.head(head), await self._base(target, base), target.repository
        host = self._code_hosts.whole(repository, "pull requests")
        ready = await self._found_or_opened(target, title=title, body=body, head=from_, base=into)
        await self._pull_requests.saw(repository, ready.pull_request)
        yield ready
        yield BaseMerged(await host.merge_branch(repository, from_=into, into=from_))
        pull_request = ready.pull_request
        async for step in self._until_known(target, pull_request.number):
            if isinstance(step, Checking):
                yield step
            else:
                pull_request = step
        merged = "" if pull_request.state is PullRequestState.MERGED else await self._merged(target, pull_request)
        await self._see(repository, pull_request.number)
        yield Merged(merged)
        if keep_branch:
            return
        try:
            yield BranchRemoved(await host.delete_branch(repository, from_))
        except KernelError as error:  # it is merged; a branch that stays is worth a word, and no failure
            yield BranchRemoved(deleted=False, reason=error.message)

    async def _see(self, repository: Repository, number: int) -> None:
        """What the host says of one that was just changed, for those who follow the session. It is changed, whatever fails here."""
        with suppress(KernelError):
            host = self._code_hosts.whole(repository, "pull requests")
            await self._pull_requests.saw(repository, await host.pull_request(repository, number))

    async def _found_or_opened(self, target: _Target, *, title: str, body: str, head: str, base: str) -> Ready:
        host = self._code_hosts.whole(target.repository, "pull requests")

        async def found() -> PullRequest | None:
            page = await host.pull_requests(
                target.repository, head=head, base=base, state=PullRequestState.OPEN, page_size=1, page_token=""
            )
            return page.items[0] if page.items else None

        if there := await found():
            return Ready(there, created=False)
        try:
            opened = await self._opened(target, title=title, body=body, head=head, base=base, draft=False)
        except PullRequestExists:
            # Somebody else has opened it meanwhile.
            if there := await found():
                return Ready(there, created=False)
            raise
        return Ready(opened, created=True)

    async def _until_known(self, target: _Target, number: int) -> AsyncGenerator[Checking | PullRequest, None]:
        """At last the pull request of which it is known. Errors: MergeabilityUnknown."""
        host = self._code_hosts.whole(target.repository, "pull requests")
        for waited in range(MERGEABLE_SECONDS + 1):
            pull_request = await host.pull_request(target.repository, number)
            if pull_request.mergeable is not None or pull_request.state is not PullRequestState.OPEN:
                yield pull_request
                return
            if waited < MERGEABLE_SECONDS:
                yield Checking(waited + 1)
                await asyncio.sleep(POLL_SECONDS)
        raise MergeabilityUnknown(number, seconds=MERGEABLE_SECONDS * POLL_SECONDS)

    async def _merged(self, target: _Target, pull_request: PullRequest) -> str:
        if pull_request.state is PullRequestState.CLOSED:
            raise NotMergeable(pull_request.number, "it was closed meanwhile")
        if not pull_request.mergeable:
            raise MergeConflict(pull_request.base, pull_request.head)
        return await self._code_hosts.whole(target.repository, "pull requests").merge_pull_request(
            target.repository,
            pull_request.number,
            method=MergeMethod.MERGE,
            title="",
            message="",
            # What is merged is what was found to be mergeable.
            head_commit=pull_request.head_commit,
        )

    async def _opened(self, target: _Target, *, title: str, body: str, head: str, base: str, draft: bool) -> PullRequest:
        host = self._code_hosts.whole(target.repository, "pull requests")
        if not title or not body:
            made = await self._generated(target, head=head, base=base, request="")
            title, body = title or made.title, body or made.body
        return await host.create_pull_request(target.repository, title=title, body=body, head=head, base=base, draft=draft)

    async def _generated(self, target: _Target, *, head: str, base: str, request: str) -> Generated:
        compared = await self._code_hosts.whole(target.repository, "a comparison").compare(target.repository, base=base, head=head)
        asked = request or (target.session.title if target.session else "")
        body = body_of(asked, compared, head=head, base=base)
        return Generated(title_of(asked, head=head, base=base), body[:MAX_BODY], compared)

    async def _base(self, target: _Target, given: str) -> str:
        if given or target.session:
            return _ref("base", given or (target.session.base_branch if target.session else ""))
        return await self._code_hosts.branches(target.repository).default_branch(target.repository)

    async def _target(self, principal: Principal, at: At) -> _Target:
        if bool(at.repository_url) == bool(at.session_id):
            raise InvalidField("repository_url", "name either a repository or a session")
        session = await self._sessions.get(principal, at.session_id) if at.session_id else None
        # Also that of a session: what is allowed may have changed since.
        url = self._repositories.check_url(session.repository_url if session else at.repository_url)
        return _Target(Repository(principal.tenant_id, principal.user_id, url), session)


def _where(target: _Target, ref: str) -> str:
    wanted = ref or (target.session.branch if target.session else "")
    return _ref("ref", wanted) if wanted else ""


def _page(size: int) -> int:
    return check_page_size(size, default=DEFAULT_PAGE, limit=MAX_PAGE)


def _number(number: int) -> int:
    if number < 1:
        raise InvalidField("number", "is a pull request's, from 1")
    return number


def _ref(field: str, name: str) -> str:
    """A branch, a tag or a commit, as git-check-ref-format(1) has them: no part of it can be a way to anything else."""
    if not name or len(name) > MAX_REF or _NO_REF.search(name):
        raise InvalidField(field, f"{name[:MAX_REF]!r} is no branch, tag or commit")
    return name


def _path(path: str) -> str:
    segments = path.split("/") if path else []
    if len(path) > MAX_PATH or not path.isprintable() or any(segment in ("", ".", "..") for segment in segments):
        raise InvalidField("path", "is no path of a repository: it begins at the root, without `/`, and has no `..`")
    return path


def _words(title: str, body: str) -> None:
    _text("title", title, MAX_PULL_REQUEST_TITLE)
    _text("body", body, MAX_BODY)
    if any(ord(letter) < 32 for letter in title):
        raise InvalidField("title", "only one line, without control characters")


def _text(field: str, text: str, limit: int) -> str:
    if len(text) > limit:
        raise RequestTooLarge(field, size=len(text), limit=limit)
    return text
