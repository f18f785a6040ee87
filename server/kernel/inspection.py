"""Looking at a repository before a session is made for it."""

from __future__ import annotations

import time

from server.kernel.errors import BranchExists, BranchUnknown, InvalidField
from server.kernel.identity import Principal
from server.kernel.ports.repositories import Repositories, Repository

FRESH_SECONDS = 30.0
"""How long an answer of the remote is good for the same user: a program that makes many sessions asks once."""

MAX_REMEMBERED = 1024


class Inspections:
    """Answers whether a repository can be worked on, by asking the remote."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories
        self._seen: dict[tuple[str, str, str, str], tuple[float, str]] = {}

    async def repository(self, principal: Principal, url: str, base_branch: str, branch: str) -> tuple[str, str]:
        """The canonical URL and the base branch's name. `branch` is the name asked for the session's own branch, which must not be
        there yet. Errors: InvalidField, RepositoryNotAllowed, RepositoryUnreachable, BranchUnknown, BranchExists."""
        if not url:
            raise InvalidField("repository_url", "name a repository, or a session to go on with")
        canonical = self._repositories.check_url(url)
        base = await self._base(principal, canonical, base_branch)
        if branch and branch == base:
            raise InvalidField("branch", f"{branch!r} is the base branch; Treadle never works on it directly")
        if branch:
            await self.check_free(principal, canonical, branch)
        return canonical, base

    async def check_free(self, principal: Principal, url: str, branch: str) -> None:
        """A session whose branch cannot be made could do nothing. Errors: BranchExists, RepositoryNotAllowed, RepositoryUnreachable."""
        try:
            await self._repositories.inspect(Repository(principal.tenant_id, principal.user_id, url), branch=branch)
        except BranchUnknown:
            return
        raise BranchExists(branch)

    async def _base(self, principal: Principal, url: str, base_branch: str) -> str:
        key = (principal.tenant_id, principal.user_id, url, base_branch)
        at, base = self._seen.get(key, (0.0, ""))
        if base and time.monotonic() - at < FRESH_SECONDS:
            return base
        repository = Repository(principal.tenant_id, principal.user_id, url)
        found = await self._repositories.inspect(repository, branch=base_branch)
        if not found.commit:
            raise BranchUnknown(base_branch or found.name)
        while len(self._seen) >= MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (time.monotonic(), found.name)
        return found.name
