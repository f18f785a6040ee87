"""A renewable login of a Claude subscription: a file with an access token, when it expires, and a token to renew both.

The file is Claude Code's own: {"claudeAiOauth": {"accessToken", "refreshToken", "expiresAt" (ms), "scopes", "subscriptionType"}}. Renewing
makes the old refresh token worthless, so exactly one process does it at a time (a lock beside the file), whoever comes later reads what
the first one wrote, and what was written is complete or not there. How to renew is not documented by Anthropic; it was never tried
against their server, only against one that answers as it is said to.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import urlsplit

import structlog

from server.models.errors import LoginUnfit
from server.secrets import remember

_EARLY_SECONDS = 300.0
"""A token is renewed so long before it expires, so that no request is under way with an expired one."""
_RENEW_SECONDS = 20.0
_LOCK_PAUSE_SECONDS = 0.05
_AGAIN_SECONDS = 30.0
"""After a failure the provider is left alone for so long."""
_ROOT = "claudeAiOauth"

log = structlog.get_logger()


class LoginFailed(Exception):
    """The login could not be renewed; the message says why, without secrets."""


@dataclass(frozen=True)
class _Tokens:
    access: str
    refresh: str
    expires_at: float
    """Seconds since the epoch."""
    whole: dict[str, Any]
    """The file, with what this program does not know."""

    @property
    def fresh(self) -> bool:
        return self.expires_at - time.time() > _EARLY_SECONDS

    @property
    def usable(self) -> bool:
        return self.expires_at > time.time()


class Login:
    """See the module. Made by `open_login`."""

    def __init__(self, path: Path, tokens: _Tokens, *, url: str, client_id: str) -> None:
        self._path = path
        self._tokens = tokens
        self._url = url
        self._client_id = client_id
        self._renewing: asyncio.Task[None] | None = None
        self._failed_at = float("-inf")
        self._failure = ""

    async def token(self) -> str:
        """An access token that is good now. Errors: LoginFailed."""
        if not self._tokens.fresh:
            try:
                await self._renew(self._tokens.access)
            except LoginFailed:
                # It still has some minutes; perhaps the next try is better.
                if not self._tokens.usable:
                    raise
        return self._tokens.access

    async def renew(self, refused: str) -> bool:
        """The provider refused this token: whether there is another one now. Only the first who says so has it renewed."""
        if self._tokens.access == refused:
            with contextlib.suppress(LoginFailed):
                await self._renew(refused)
        return self._tokens.access != refused

    async def close(self) -> None:
        """Let a renewal that is under way come to its end: what it brings exists nowhere else. Bounded."""
        if self._renewing is not None:
            await asyncio.wait({self._renewing})

    async def _renew(self, stale: str) -> None:
        """Join the renewal that is under way, or begin one. It goes on when its caller is cancelled: between the provider's answer and the
        file nothing may come. Errors: LoginFailed."""
        if self._renewing is None:
            if time.monotonic() - self._failed_at < _AGAIN_SECONDS:
                raise LoginFailed(self._failure)
            self._renewing = asyncio.create_task(self._renewal(stale))
            self._renewing.add_done_callback(self._renewed)
        await asyncio.shield(self._renewing)

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed_at, self._failure = time.monotonic(), str(error)
            log.warning("login.not_renewed", error=str(error))

    async def _renewal(self, stale: str) -> None:
        try:
            async with asyncio.timeout(_RENEW_SECONDS):
                await self._renew_locked(stale)
        except TimeoutError:
            raise LoginFailed("the Claude login could not be renewed in time") from None
        except (OSError, LoginUnfit) as error:
            raise LoginFailed(f"the Claude login could not be renewed: {error}") from error

    async def _renew_locked(self, stale: str) -> None:
        with _lock_file(self._path) as lock:
            # Another program that renews the same file does it in seconds: there is nothing to wait on but the lock.
            while not _locked(lock):  # noqa: ASYNC110
                await asyncio.sleep(_LOCK_PAUSE_SECONDS)
            found = await asyncio.to_thread(_read, self._path)
            if found.access == stale or not found.fresh:
                found = await self._asked(found)
                # Known first: if it cannot be written, this process at least goes on.
                self._take(found)
                await self._kept(found)
            self._take(found)

    async def _kept(self, tokens: _Tokens) -> None:
        try:
            await asyncio.to_thread(_write, self._path, tokens.whole)
        except OSError as error:
            log.error("login.not_written", path=str(self._path), error=error.strerror)  # noqa: TRY400 its stack says nothing

    def _take(self, tokens: _Tokens) -> None:
        remember(tokens.access, tokens.refresh)
        self._tokens = tokens

    async def _asked(self, old: _Tokens) -> _Tokens:
        """What the provider gives for the refresh token. Errors: LoginFailed, OSError."""
        import aiohttp

        from server.models.unreached import why_unreached

        asked = {"grant_type": "refresh_token", "refresh_token": old.refresh, "client_id": self._client_id}
        try:
            async with (
                aiohttp.ClientSession(trust_env=False) as http,
                http.post(self._url, json=asked, allow_redirects=False, headers={"accept": "application/json"}) as answer,
            ):
                if answer.status != 200:
                    raise LoginFailed(f"the Claude login could not be renewed: {self._url} answered {answer.status}; log in again")
                given = await answer.json(content_type=None)
        except aiohttp.ClientError as error:
            raise LoginFailed(f"the Claude login could not be renewed: {urlsplit(self._url).netloc} {why_unreached(error)}") from error
        except ValueError as error:
            raise LoginFailed("the Claude login could not be renewed: the answer is no JSON") from error
        try:
            access, expires_in = str(given["access_token"]), float(given["expires_in"])
            refresh = str(given.get("refresh_token") or old.refresh)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LoginFailed("the Claude login could not be renewed: the answer holds no token") from error
        expires_at = time.time() + expires_in
        fields = {"accessToken": access, "refreshToken": refresh, "expiresAt": int(expires_at * 1000)}
        return _Tokens(access, refresh, expires_at, {**old.whole, _ROOT: {**old.whole[_ROOT], **fields}})


def open_login(path: Path, *, url: str, client_id: str) -> Login:
    """The login in a file. Errors: LoginUnfit."""
    tokens = _read(path)
    if not os.access(path.parent, os.W_OK):
        raise LoginUnfit(f"{path.parent} cannot be written, so a renewed login would be lost")
    remember(tokens.access, tokens.refresh)
    return Login(path, tokens, url=url, client_id=client_id)


def _read(path: Path) -> _Tokens:
    """Errors: LoginUnfit."""
    try:
        whole = json.loads(path.read_text())
        login = whole[_ROOT]
        return _Tokens(str(login["accessToken"]), str(login["refreshToken"]), float(login["expiresAt"]) / 1000, whole)
    except OSError as error:
        raise LoginUnfit(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LoginUnfit(f"{path} is no Claude login: {_ROOT} with accessToken, refreshToken and expiresAt is needed") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replace the file at once, readable for its owner only (the temporary file is made so). Blocks. Errors: OSError."""
    path = path.resolve()
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
        try:
            json.dump(content, draft)
            draft.flush()
            os.fchmod(draft.fileno(), 0o600)
            os.fsync(draft.fileno())
            Path(draft.name).replace(path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
