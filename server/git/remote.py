"""Talking to remotes: what is there, fetch, push. Only ever to the exact URL that was checked."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from server.git.address import public_addresses
from server.git.command import PINNING_VERSION, Access, Git, GitFailed
from server.git.refs import branch_ref, fetched_ref
from server.git.refusal import refused, unreachable
from server.git.remote_url import RemoteUrls
from server.kernel.credential import Token
from server.kernel.errors import TOKEN_TROUBLE, CredentialRejected, CredentialUnreadable, RepositoryUnreachable
from server.kernel.ports.repositories import Repository
from server.kernel.push_refusal import PushRefusal

TokenSupplier = Callable[[Repository], Awaitable[Token | None]]
"""What the owner has for the repository's host, asked for anew for each operation; None for nothing."""

LS_REMOTE_SECONDS = 10.0
_LS_REMOTE_BYTES = 16 * 1024 * 1024
PUSH_SILENCE_SECONDS = 20
"""A push on which nothing moves for so long is given up. A host that unpacks or checks says every 5 s that it is alive."""

_NOT_LET_IN = (PushRefusal.AUTHENTICATION, PushRefusal.PERMISSION, PushRefusal.REPOSITORY_GONE)


async def no_token(repository: Repository) -> Token | None:
    """The supplier of a server that has no credentials."""
    del repository
    return None


@dataclass(frozen=True)
class Advertised:
    """What a remote told: its default branch ("" when it has none) and full ref -> commit."""

    default_branch: str
    refs: Mapping[str, str] = field(default_factory=dict)

    def is_default(self, branch: str) -> bool:
        """Whether this is the default branch, or looks like it when the remote does not tell."""
        return branch == self.default_branch if self.default_branch else branch in {"main", "master"}


class Remote:
    """Commands that use the network, each with its own credentials and its own proof that the address is a public one."""

    def __init__(self, git: Git, urls: RemoteUrls, *, token: TokenSupplier = no_token) -> None:
        self._git = git
        self._urls = urls
        self._token = token

    async def advertised(self, repository: Repository, *branches: str) -> Advertised:
        """Ask for the default branch and `branches`; 10 s at most. Errors: RepositoryUnreachable."""
        return await self._listed(repository, {branch_ref(branch) for branch in branches})

    async def heads(self, repository: Repository) -> Advertised:
        """The same with all branches."""
        return await self._listed(repository, {"refs/heads/*"})

    async def _listed(self, repository: Repository, wanted: set[str], *, once_more: bool = True) -> Advertised:
        token = await self._token_of(repository)  # none of the remote's time: the database and the code host have their own limits
        try:
            async with asyncio.timeout(LS_REMOTE_SECONDS):
                access = await self._access(repository, token)
                listing = await self._git.run(
                    "ls-remote", "--symref", "--end-of-options", repository.url, "HEAD", *sorted(wanted),
                    access=access, seconds=LS_REMOTE_SECONDS, max_output=_LS_REMOTE_BYTES,
                )  # fmt: skip
        except TimeoutError:
            raise RepositoryUnreachable(f"no answer within {LS_REMOTE_SECONDS:g} s") from None
        except GitFailed as error:
            # Every fetch and every push comes after such a question, so they get the new one.
            if once_more and token is not None and unreachable(error.reason) in _NOT_LET_IN and token.refused():
                return await self._listed(repository, wanted, once_more=False)
            raise self._unreachable(error, repository, token) from error
        return _parse(listing.stdout.decode("utf-8", "replace"), wanted | {"HEAD"})

    async def fetch(self, repository: Repository, mirror: Path, branches: list[str]) -> None:
        """Bring branches into the mirror, each as its `fetched_ref`. Errors: RepositoryUnreachable."""
        token = await self._token_of(repository)
        access = await self._access(repository, token)
        try:
            await self._git.run(
                "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules",
                "--end-of-options", repository.url, *(f"+{branch_ref(branch)}:{fetched_ref(branch)}" for branch in branches),
                git_dir=mirror, access=access,
            )  # fmt: skip
        except GitFailed as error:
            raise self._unreachable(error, repository, token) from error

    async def push(self, repository: Repository, mirror: Path, *, branch: str, commit: str, expected: str) -> None:
        """Move the branch from `expected` to `commit`. The caller has made sure that this is a fast-forward.

        Errors: PushRefused.
        """
        ref = branch_ref(branch)
        access = await self._access(repository, await self._token_of(repository))
        impatient = {**access.configuration, "http.lowSpeedTime": str(PUSH_SILENCE_SECONDS)}
        try:
            await self._git.run(
                # The lease only adds a comparison here: it refuses when the branch is not where we last saw it.
                "push", "--porcelain", "--no-verify", "--no-recurse-submodules", f"--force-with-lease={ref}:{expected}",
                "--end-of-options", repository.url, f"{commit}:{ref}",
                git_dir=mirror, access=replace(access, configuration=impatient),
            )  # fmt: skip
        except GitFailed as error:
            raise refused(error, secrets=access.secrets) from error

    async def delete(self, repository: Repository, mirror: Path, *, branch: str, expected: str) -> None:
        """Delete the branch, if it is still at `expected`. Errors: PushRefused."""
        ref = branch_ref(branch)
        access = await self._access(repository, await self._token_of(repository))
        try:
            await self._git.run(
                "push", "--porcelain", "--no-verify", f"--force-with-lease={ref}:{expected}", "--end-of-options", repository.url, f":{ref}",
                git_dir=mirror, access=access,
            )  # fmt: skip
        except GitFailed as error:
            raise refused(error, secrets=access.secrets) from error

    async def _token_of(self, repository: Repository) -> Token | None:
        """Errors: RepositoryUnreachable; StoreUnavailable, when the operation can be repeated as it is."""
        try:
            return await self._token(repository)
        except (CredentialRejected, CredentialUnreadable) as error:
            raise RepositoryUnreachable(error.message, host=error.metadata["host"], credential="REFUSED") from error
        except TOKEN_TROUBLE as error:
            raise RepositoryUnreachable(error.message) from error

    def _unreachable(self, error: GitFailed, repository: Repository, token: Token | None) -> RepositoryUnreachable:
        """Hosts tell who shows no credential, or another one, that there is no such repository, or that it should show one."""
        kind, host = unreachable(error.reason), self._urls.host_of(repository.url)
        if kind not in _NOT_LET_IN:
            return RepositoryUnreachable(error.reason)
        gone = "it is not there, or " if kind is PushRefusal.REPOSITORY_GONE else ""
        if token is None:
            return RepositoryUnreachable(
                f"{gone}it is private, and you have stored no credential for {host} ({error.reason})", host=host, credential="MISSING"
            )
        told = f"{gone}{host} does not let the credential in that you have stored for it ({error.reason})"
        return RepositoryUnreachable(told, host=host, credential="REFUSED")

    async def _access(self, repository: Repository, token: Token | None) -> Access:
        url = repository.url
        protocol = url.partition("://")[0]
        configuration: dict[str, str] = {}
        if not self._urls.is_operators(url):
            configuration["http.curloptResolve"] = await self._pinned(url)
        if token is None:
            return Access(protocol, configuration=configuration)
        encoded = base64.b64encode(f"{token.username}:{token.secret}".encode()).decode()
        environment = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{url}.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {encoded}",
        }
        return Access(protocol, environment, configuration, secrets=(token.secret, encoded))

    async def _pinned(self, url: str) -> str:
        """What was checked is what git connects to, whatever the name says a moment later. Errors: RepositoryUnreachable."""
        version = await self._git.version()
        if version < PINNING_VERSION:
            needed = ".".join(map(str, PINNING_VERSION))
            raise RepositoryUnreachable(f"public hosts need Git {needed} or later; this server has {'.'.join(map(str, version))}")
        addresses = await public_addresses(url, seconds=LS_REMOTE_SECONDS)
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"{parts.hostname}:{port}:{','.join(_bracketed(address) for address in addresses)}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _parse(listing: str, wanted: set[str]) -> Advertised:
    default, refs = "", {}
    for line in listing.splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: ") and name == "HEAD":
            default = value.removeprefix("ref: ").removeprefix("refs/heads/")
        elif name in wanted or ("refs/heads/*" in wanted and name.startswith("refs/heads/")):
            # Patterns of ls-remote also match the ends of longer names.
            refs[name] = value
    return Advertised(default, refs)
