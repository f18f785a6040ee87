"""A code host of which nothing is known but that it speaks Git."""

from __future__ import annotations

from server.kernel.code_host import Branch, Page
from server.kernel.errors import BranchExists, BranchUnknown, CodeHostRefused, PushRefused, RemoteNotFound
from server.kernel.ports.repositories import Repositories, Repository
from server.kernel.push_refusal import PushRefusal


class PlainGit:
    """Implements the port `BranchHost`, by pushes and ls-remote."""

    def __init__(self, repositories: Repositories, host: str) -> None:
        self._repositories = repositories
        self._host = host

    async def default_branch(self, at: Repository) -> str:
        """See BranchHost."""
        default, _ = await self._repositories.branches(at)
        return default

    async def branches(self, at: Repository, *, page_size: int, page_token: str) -> Page[Branch]:
        """See BranchHost. A page begins behind the name that its token is."""
        _, found = await self._repositories.branches(at)
        behind = [Branch(each.name, each.commit) for each in found if each.name > page_token]
        return Page(tuple(behind[:page_size]), behind[page_size - 1].name if len(behind) > page_size else "")

    async def create_branch(self, at: Repository, name: str, *, base: str) -> Branch:
        """See BranchHost."""
        try:
            commit = await self._repositories.fetch(at, branch=base, session_branch="", head_commit="")
            await self._repositories.push(at, branch=name, commit=commit, create=True)
        except BranchUnknown:
            raise RemoteNotFound(f"branch {base!r}") from None
        except PushRefused as error:
            raise BranchExists(name) if error.kind is PushRefusal.BRANCH_EXISTS else CodeHostRefused(self._host, error.reason) from error
        return Branch(name, commit)

    async def delete_branch(self, at: Repository, name: str) -> bool:
        """See BranchHost."""
        try:
            return await self._repositories.delete_branch(at, name)
        except PushRefused as error:
            raise CodeHostRefused(self._host, error.reason) from error
