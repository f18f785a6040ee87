"""Use cases: what users have to get into code hosts, and what of it one operation gets."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from server.kernel.credential import Credential, CredentialKind, Material, Token
from server.kernel.errors import CredentialNotFound, CredentialUnreadable, InvalidField, RequestTooLarge, SecretUnreadable, VersionConflict
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.ports.credential_store import CredentialStore, Sealed
from server.kernel.ports.hosts import Hosts
from server.kernel.ports.repositories import Repository
from server.kernel.ports.vault import Place, Vault

MAX_SECRET = 4096
MAX_USERNAME = 100
USED_SECONDS = 60.0
DEFAULT_USERNAME = "x-access-token"
"""What GitHub wants beside a token; most hosts take any name."""

_TOKEN = re.compile(r"[\x21-\x7e]{8,}")
_USERNAME = re.compile(r"[A-Za-z0-9._@+-]+")
_TRIES = 3

log = structlog.get_logger()


@dataclass(frozen=True)
class PutCredential:
    """Fields as in treadle.account.v1.PutCredentialRequest."""

    host: str
    username: str
    token: str = field(repr=False)
    version: int = 0


class Credentials:
    """Keeps and lends them. What it lends is told to `lent`, so that it never gets into a log or an event."""

    def __init__(self, store: CredentialStore, vault: Vault, hosts: Hosts, *, lent: Callable[[str], None]) -> None:
        self._store = store
        self._vault = vault
        self._hosts = hosts
        self._lent = lent

    async def put(self, principal: Principal, request: PutCredential) -> Credential:
        """Errors: as listed at CredentialService.PutCredential."""
        host = self._hosts.check_host(request.host)
        username = request.username or DEFAULT_USERNAME
        _check(username, request.token)
        self._lent(request.token)
        for _ in range(_TRIES):
            known = await self._store.find(principal.tenant_id, principal.user_id, host)
            now = known.credential if known else None
            if request.version and request.version != (now.version if now else 0):
                break
            wanted = Credential(
                id=now.id if now else new_id(),
                tenant_id=principal.tenant_id,
                owner_id=principal.user_id,
                host=host,
                kind=CredentialKind.TOKEN,
                username=username,
                version=now.version if now else 0,
            )
            stored = await self._store.put(self._sealed(wanted, Material(request.token)))
            if stored is not None:
                return stored
        raise VersionConflict(request.version, now.version if now else 0)

    async def list(self, principal: Principal) -> list[Credential]:
        """All of the caller's, by host, without their secrets."""
        return await self._store.of_user(principal.tenant_id, principal.user_id)

    async def delete(self, principal: Principal, id_: str) -> None:
        """Errors: CredentialNotFound."""
        if not await self._store.delete(principal.tenant_id, principal.user_id, id_):
            raise CredentialNotFound(id_)

    async def token_for(self, repository: Repository) -> Token | None:
        """What the repository's owner has for its host, as it is now; None for nothing. Errors: CredentialUnreadable."""
        found = await self._store.find(repository.tenant_id, repository.owner_id, self._hosts.host_of(repository.url))
        if found is None:
            return None
        token = Token(found.credential.username, self._opened(found).token)
        self._lent(token.secret)
        await self._store.used(found.credential, seconds=USED_SECONDS)
        return token

    async def renew_seals(self) -> None:
        """Seal anew what is sealed under an older key, so that it can be taken away."""
        renewed = unreadable = 0
        for sealed in await self._store.all_sealed():
            if self._vault.current(sealed.secret):
                continue
            try:
                material = self._opened(sealed)
            except CredentialUnreadable:
                unreadable += 1
                continue
            await self._store.reseal(sealed, self._sealed(sealed.credential, material).secret)
            renewed += 1
        if renewed:
            log.info("vault.sealed_anew", credentials=renewed)
        if unreadable:
            log.error("vault.key_missing", credentials=unreadable, help="their key is not in TREADLE_VAULT_KEY, or <data_dir>/vault-key")

    def _sealed(self, credential: Credential, material: Material) -> Sealed:
        return Sealed(credential, self._vault.seal(material.encode(), _place(credential)))

    def _opened(self, sealed: Sealed) -> Material:
        try:
            return Material.decode(self._vault.open(sealed.secret, _place(sealed.credential)))
        except SecretUnreadable as error:
            raise CredentialUnreadable(sealed.credential.host) from error


def _place(credential: Credential) -> Place:
    return Place(credential.tenant_id, "credential", credential.id)


def _check(username: str, token: str) -> None:
    for name, text, limit in (("username", username, MAX_USERNAME), ("token", token, MAX_SECRET)):
        if len(text) > limit:
            raise RequestTooLarge(name, size=len(text), limit=limit)
    if not _USERNAME.fullmatch(username):
        raise InvalidField("username", "only letters, digits and ._@+- are allowed")
    if not _TOKEN.fullmatch(token):
        raise InvalidField("token", "8 printable ASCII characters or more, without blanks")
