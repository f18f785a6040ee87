"""Use cases: what users have to get into code hosts, and what of it one operation gets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from weakref import WeakValueDictionary

import structlog

from server.kernel.credential import Credential, CredentialKind, Material, Token
from server.kernel.errors import (
    CredentialNotFound,
    CredentialRejected,
    CredentialUnreadable,
    InvalidField,
    KernelError,
    LoginDenied,
    LoginExpired,
    LoginTooSoon,
    RequestTooLarge,
    SecretUnreadable,
    StoreRejected,
    StoreUnavailable,
    TooManyLogins,
    VersionConflict,
)
from server.kernel.finish import Finishing
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.ports.credential_store import CredentialStore, Sealed
from server.kernel.ports.hosts import Hosts
from server.kernel.ports.login_store import LoginLimits, LoginStore
from server.kernel.ports.repositories import Repository
from server.kernel.ports.token_issuer import Issued, Pending, TokenIssuer
from server.kernel.ports.vault import Place, Vault

MAX_SECRET = 4096
MAX_PRIVATE_KEY = 16 * 1024
MAX_USERNAME = 100
USED_SECONDS = 60.0
EARLY = timedelta(minutes=5)
"""A token is renewed so long before it expires, so that no operation is under way with an expired one."""
DEFAULT_USERNAME = "x-access-token"
"""What GitHub wants beside a token; most hosts take any name."""
MAX_ISSUED = 1024
NEW_SECONDS = 30.0
"""An installation's token that is refused is replaced only when it is older: what is refused again and again costs no token each time."""
MAX_LOGIN_ID = 8192
LOGINS = LoginLimits(open=5, rate=20, seconds=3600)
"""Of one user. A host counts its own, of all who log in by the same app (GitHub: 50 codes that are entered in an hour)."""
BEGIN_SECONDS = 60.0
"""For so long a login counts as open whose host has not answered: a server may have died while it asked."""
SLOWER_SECONDS = 5
"""By so much the interval grows with each `slow_down` (RFC 8628, 3.5)."""

_TOKEN = re.compile(r"[\x21-\x7e]{8,}")
_USERNAME = re.compile(r"[A-Za-z0-9._@+-]+")
_NUMBER = re.compile(r"[0-9]{1,20}")
_CLIENT = re.compile(r"[A-Za-z0-9.]{1,64}")
_TRIES = 3
_IN_CLEAR = (
    "it is plain http, so anybody on the way would read the token; the server's operator allows it with TREADLE_GIT_PLAIN_CREDENTIALS"
)
_LOOK_PAUSES = (0.05, 0.2, 0.5, 1.0)
_KEEP_PAUSES = (0.5, 1.0, 2.0, 4.0)

log = structlog.get_logger()


@dataclass(frozen=True)
class PutCredential:
    """Fields as in treadle.account.v1.PutCredentialRequest."""

    host: str
    username: str
    material: Material = field(repr=False)
    kind: CredentialKind = CredentialKind.TOKEN
    expires_at: datetime | None = None
    version: int = 0
    scopes: tuple[str, ...] = ()
    """What the host says that it may do."""


@dataclass(frozen=True)
class BegunLogin:
    """A login that its user has to go on with. `interval`: seconds between two questions whether that was done."""

    id: str = field(repr=False)
    user_code: str
    url: str
    expires_at: datetime
    interval: int


@dataclass(frozen=True)
class _Begun:
    """A login whose host is asked. `digest`: of the host's code, as it is kept beside the token; `interval` as in BegunLogin."""

    id: str
    digest: str
    interval: int


@dataclass(frozen=True)
class _Kept:
    """A token of an installation, and since when (monotonic) it is here."""

    installation_id: str
    issued: Issued
    since: float = field(default_factory=time.monotonic)


class Credentials:
    """Keeps them, and lends each for one operation."""

    def __init__(self, store: CredentialStore, logins: LoginStore, vault: Vault, hosts: Hosts, issuer: TokenIssuer) -> None:
        self._store = store
        self._logins = logins
        self._vault = vault
        self._hosts = hosts
        self._issuer = issuer
        self._issued: dict[tuple[str, int], _Kept] = {}
        """By credential and its version."""
        self._renewing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._finishing = Finishing()

    async def put(self, principal: Principal, request: PutCredential) -> Credential:
        """Errors: as listed at CredentialService.PutCredential."""
        host = self._host(request.host)
        username = request.username or DEFAULT_USERNAME
        _check(username, request)
        if request.kind is not CredentialKind.TOKEN:
            self._issuer.check(host, refreshes=bool(request.material.refresh_token), private_key=request.material.private_key)
        if request.kind is CredentialKind.GITHUB_APP:
            # Whether it is one is known only by trying.
            await self._of_installation(host, request.material)
        return await self._stored(principal, host, username, request)

    async def begin_login(self, principal: Principal, host: str) -> BegunLogin:
        """Errors: as listed at CredentialService.StartLogin."""
        host = self._host(host)
        id_ = new_id()
        if wait := await self._logins.begin(principal, id_, LOGINS, seconds=BEGIN_SECONDS):
            raise TooManyLogins(seconds=math.ceil(wait))
        try:
            begun = await self._issuer.begin_login(host)
        except KernelError:
            await self._logins.end(principal, id_)
            raise
        await self._logins.begun(principal, id_, seconds=begun.seconds, interval=begun.interval)
        expires_at = datetime.now(UTC) + timedelta(seconds=begun.seconds)
        # The host's code is kept by the caller alone: any server can go on with it, and for nobody else can it be opened.
        told = json.dumps([id_, host, begun.device_code, expires_at.timestamp()]).encode()
        sealed = base64.urlsafe_b64encode(self._vault.seal(told, _login_place(principal))).decode()
        return BegunLogin(sealed, begun.user_code, begun.url, expires_at, begun.interval)

    async def finish_login(self, principal: Principal, login_id: str) -> Credential | Pending:
        """Errors: as listed at CredentialService.FinishLogin."""
        try:
            sealed = base64.b64decode(login_id, altchars=b"-_", validate=True) if len(login_id) <= MAX_LOGIN_ID else b""
            id_, host, device_code, ends = json.loads(self._vault.open(sealed, _login_place(principal)))
        except (SecretUnreadable, ValueError):
            raise InvalidField("login_id", "is none that StartLogin gave to you") from None
        host, login = self._hosts.check_host(host), hashlib.sha256(device_code.encode()).hexdigest()
        if credential := await self._stored_by(login, principal, host):
            return credential
        try:
            turn = await self._logins.ask(principal, id_)
            if turn is None or datetime.now(UTC).timestamp() > ends:
                raise LoginExpired(host)
            if turn.wait:
                raise LoginTooSoon(host, seconds=math.ceil(turn.wait))
            # A host gives the token once: a caller who leaves meanwhile shall not lose it.
            return await self._finishing.run(self._finished(principal, host, device_code, _Begun(id_, login, turn.interval)))
        except LoginExpired:
            # The host says so, too, when another server has asked it meanwhile; what it gave that one may be about to be stored.
            for pause in _LOOK_PAUSES:
                await asyncio.sleep(pause)
                if credential := await self._stored_by(login, principal, host):
                    return credential
            raise

    async def _stored_by(self, login: str, principal: Principal, host: str) -> Credential | None:
        """None, too, for what took its place since."""
        found = await self._store.find(principal.tenant_id, principal.user_id, host)
        with suppress(CredentialUnreadable):
            return found.credential if found and self._opened(found).login == login else None
        return None

    def _host(self, given: str) -> str:
        """Errors: InvalidField."""
        host = self._hosts.check_host(given)
        if not self._hosts.keeps_secrets(host):
            raise InvalidField("host", f"{host}: {_IN_CLEAR}")
        return host

    async def _finished(self, principal: Principal, host: str, device_code: str, begun: _Begun) -> Credential | Pending:
        try:
            issued = await self._issuer.finish_login(host, device_code)
        except (LoginExpired, LoginDenied):
            await self._logins.end(principal, begun.id)
            raise
        if isinstance(issued, Pending):
            interval = max(issued.interval, begun.interval + SLOWER_SECONDS) if issued.interval else begun.interval
            await self._logins.asked(principal, begun.id, interval=interval)
            return Pending(interval)
        material = Material(token=issued.token, refresh_token=issued.refresh_token, login=begun.digest)
        request = PutCredential(host, "", material, CredentialKind.GITHUB_OAUTH, issued.expires_at, scopes=issued.scopes)
        stored = await self._stored(principal, host, DEFAULT_USERNAME, request)
        await self._logins.end(principal, begun.id)
        return stored

    async def _stored(self, principal: Principal, host: str, username: str, request: PutCredential) -> Credential:
        """Errors: VersionConflict."""
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
                kind=request.kind,
                username=username,
                scopes=request.scopes,
                expires_at=request.expires_at,
                version=now.version if now else 0,
            )
            stored = await self._store.put(self._sealed(wanted, request.material))
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
        """What the repository's owner has for its host, good for some minutes; None for nothing. Errors: TOKEN_TROUBLE,
        StoreUnavailable."""
        found = await self._store.find(repository.tenant_id, repository.owner_id, self._hosts.host_of(repository.url))
        if found is None:
            return None
        if not self._hosts.keeps_secrets(found.credential.host):
            raise CredentialRejected(found.credential.host, _IN_CLEAR)
        refused = Token.refused
        match found.credential.kind:
            case CredentialKind.TOKEN:
                secret = self._opened(found).token
            case CredentialKind.GITHUB_OAUTH:
                secret = await self._user_token(found)
            case CredentialKind.GITHUB_APP:
                secret = await self._installation_token(found)
                refused = partial(self._refused, _issue(found), secret)
        # For people to read: no operation fails for it.
        with suppress(StoreUnavailable, StoreRejected):
            await self._store.used(found.credential, seconds=USED_SECONDS)
        return Token(found.credential.username, secret, found.credential.kind, refused)

    def forget_installation(self, installation_id: str) -> None:
        """What may be done there has changed: its tokens are asked for anew."""
        self._issued = {key: kept for key, kept in self._issued.items() if kept.installation_id != installation_id}

    def _refused(self, key: tuple[str, int], secret: str) -> bool:
        """What an installation may do is in its token, and another server may have heard that it has changed."""
        kept = self._issued.get(key)
        if kept is not None and kept.issued.token == secret:
            if kept.since + NEW_SECONDS > time.monotonic():
                return False
            del self._issued[key]
        return True

    async def finished(self) -> None:
        """Wait for renewals that are under way: what they bring exists nowhere else. Bounded by the issuer."""
        await self._finishing.finished()

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

    async def _user_token(self, found: Sealed) -> str:
        material = self._opened(found)
        if _good(found.credential.expires_at) or not material.refresh_token:
            return material.token
        lock = self._renewing.setdefault(found.credential.id, asyncio.Lock())
        async with lock:
            # Whoever came first has renewed it. Between the host's answer and the database no caller who leaves may come: a refresh token
            # works once.
            return await self._finishing.run(self._renewed(found.credential))

    async def _renewed(self, before: Credential) -> str:
        found = await self._again(before)
        material = self._opened(found)
        if _good(found.credential.expires_at):
            return material.token
        try:
            issued = await self._issuer.refreshed(found.credential.host, material.refresh_token)
        except CredentialRejected:
            # Perhaps another server has spent it, and is about to store what it got.
            for pause in _LOOK_PAUSES:
                await asyncio.sleep(pause)
                again = await self._again(before)
                if again.credential.version != found.credential.version:
                    return self._opened(again).token
            raise
        kept = replace(material, token=issued.token, refresh_token=issued.refresh_token or material.refresh_token)
        credential = replace(found.credential, expires_at=issued.expires_at, scopes=issued.scopes or found.credential.scopes)
        await self._kept(self._sealed(credential, kept))
        return issued.token

    async def _kept(self, renewed: Sealed) -> None:
        """A database that is away for a moment costs no user the login: what was stored before is worthless now."""
        for pause in (*_KEEP_PAUSES, None):
            try:
                if await self._store.put(renewed) is None:
                    log.info("credential.replaced_meanwhile", credential_id=renewed.credential.id)
            except StoreUnavailable:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def _again(self, before: Credential) -> Sealed:
        found = await self._store.find(before.tenant_id, before.owner_id, before.host)
        if found is None:
            raise CredentialRejected(before.host, "it was deleted meanwhile")
        return found

    async def _installation_token(self, found: Sealed) -> str:
        """The same one until shortly before it expires. It lives in this process only."""
        kept = self._issued.get(_issue(found))
        if kept is None or not _good(kept.issued.expires_at):
            material = self._opened(found)
            kept = _Kept(material.installation_id, await self._of_installation(found.credential.host, material))
            while len(self._issued) >= MAX_ISSUED:
                del self._issued[next(iter(self._issued))]
            self._issued[_issue(found)] = kept
        return kept.issued.token

    async def _of_installation(self, host: str, material: Material) -> Issued:
        return await self._issuer.of_installation(
            host, app_id=material.app_id, installation_id=material.installation_id, private_key=material.private_key
        )

    def _sealed(self, credential: Credential, material: Material) -> Sealed:
        return Sealed(credential, self._vault.seal(material.encode(), _place(credential)))

    def _opened(self, sealed: Sealed) -> Material:
        try:
            return Material.decode(self._vault.open(sealed.secret, _place(sealed.credential)))
        except SecretUnreadable as error:
            raise CredentialUnreadable(sealed.credential.host) from error


def _place(credential: Credential) -> Place:
    return Place(credential.tenant_id, "credential", credential.id, credential.owner_id, credential.host)


def _issue(found: Sealed) -> tuple[str, int]:
    return found.credential.id, found.credential.version


def _login_place(principal: Principal) -> Place:
    return Place(principal.tenant_id, "login", "", principal.user_id)


def _good(expires_at: datetime | None) -> bool:
    return expires_at is None or expires_at - EARLY > datetime.now(UTC)


def _check(username: str, request: PutCredential) -> None:
    """Errors: InvalidField, RequestTooLarge."""
    material = request.material
    for name, text, limit in (
        ("username", username, MAX_USERNAME),
        ("token", material.token, MAX_SECRET),
        ("refresh_token", material.refresh_token, MAX_SECRET),
        ("private_key", material.private_key, MAX_PRIVATE_KEY),
    ):
        if len(text) > limit:
            raise RequestTooLarge(name, size=len(text), limit=limit)
    if not _USERNAME.fullmatch(username):
        raise InvalidField("username", "only letters, digits and ._@+- are allowed")
    if request.kind is CredentialKind.GITHUB_APP:
        if not (_CLIENT.fullmatch(material.app_id) and _NUMBER.fullmatch(material.installation_id) and material.private_key):
            raise InvalidField("github_app", "the app's id, the installation's number and the private key are needed")
        return
    for name, text in (("token", material.token), ("refresh_token", material.refresh_token or material.token)):
        if not _TOKEN.fullmatch(text):
            raise InvalidField(name, "8 printable ASCII characters or more, without blanks")
