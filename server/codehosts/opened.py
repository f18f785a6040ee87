"""The code hosts of this server, from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from server.codehosts.api import Api, http_session
from server.codehosts.github import GitHub
from server.codehosts.github_tokens import GitHubTokens
from server.codehosts.plain import PlainGit
from server.config import Settings
from server.kernel.credential import Token
from server.kernel.errors import UnsupportedByHost
from server.kernel.ports.code_host import BranchHost, CodeHost
from server.kernel.ports.hosts import Hosts
from server.kernel.ports.repositories import Repositories, Repository


@dataclass(frozen=True)
class GitHubs:
    """Their APIs by host, and who gets tokens from them."""

    apis: Mapping[str, Api]
    tokens: GitHubTokens


@dataclass(frozen=True)
class KnownHosts:
    """Implements the port `CodeHosts`."""

    apis: Mapping[str, Api]
    hosts: Hosts
    repositories: Repositories
    token: Callable[[Repository], Awaitable[Token | None]]

    def branches(self, at: Repository) -> BranchHost:
        """See CodeHosts."""
        host = self.hosts.host_of(at.url)
        return GitHub(self.apis[host], self.token) if host in self.apis else PlainGit(self.repositories, host)

    def whole(self, at: Repository, what: str) -> CodeHost:
        """See CodeHosts."""
        host = self.hosts.host_of(at.url)
        if host not in self.apis:
            raise UnsupportedByHost(host, what)
        return GitHub(self.apis[host], self.token)


@asynccontextmanager
async def open_githubs(settings: Settings) -> AsyncIterator[GitHubs]:
    """A host that is a name has to be at public addresses, as for Git; one that the operator named by a prefix may be anywhere."""
    async with AsyncExitStack() as stack:
        apis, logins = {}, {}
        for host, url in settings.github_api_urls.items():
            http = await stack.enter_async_context(http_session(public_only="://" not in host))
            apis[host] = Api(http, url, host=host)
            logins[host] = Api(http, _login_url(host, url), host=host, accept="application/json")
        tokens = GitHubTokens(apis, logins, client_ids=settings.github_client_ids, client_secrets=settings.github_client_secrets)
        yield GitHubs(apis, tokens)


def _login_url(host: str, api_url: str) -> str:
    """Users log in where the pages are: of github.com that is another host than the API's, of an Enterprise Server the same."""
    if "://" not in host:
        return f"https://{host}"
    parts = urlsplit(api_url)
    return f"{parts.scheme}://{parts.netloc}"
