"""GitHub's tokens that live for a while.

Sources, of https://docs.github.com/en/apps: "Refreshing user access tokens" (8 hours; each refresh token works once, for 6 months),
"Authorizing OAuth apps", "Device flow" (RFC 8628; all errors come with a 200; an app's settings have to allow it),
"Generating a JSON Web Token (JWT) for a GitHub App" (RS256, 10 minutes at most, the clocks may differ by a minute), "Generating an
installation access token for a GitHub App" (an hour).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from yarl import URL

from server.codehosts.api import Api
from server.kernel.errors import (
    CodeHostForbidden,
    CodeHostRefused,
    CredentialRejected,
    InvalidField,
    LoginDenied,
    LoginExpired,
    RemoteNotFound,
)
from server.kernel.ports.token_issuer import DeviceLogin, Issued, Pending

_JWT_SECONDS = 540
_CLOCKS_SECONDS = 60
_USER_CODE = 40
_INTERVAL_SECONDS = 5
_LONGEST_INTERVAL_SECONDS = 60
_LONGEST_LOGIN_SECONDS = 3600


class GitHubTokens:
    """Implements the port `TokenIssuer`."""

    def __init__(
        self, apis: Mapping[str, Api], logins: Mapping[str, Api], *, client_ids: Mapping[str, str], client_secrets: Mapping[str, str]
    ) -> None:
        """By host: the API, where users log in, and which app this server is there ("" for all that are not named)."""
        self._apis = apis
        self._logins = logins
        self._client_ids = client_ids
        self._client_secrets = client_secrets

    def check(self, host: str, *, refreshes: bool, private_key: str = "") -> None:
        """See TokenIssuer."""
        if host not in self._apis:
            raise InvalidField("host", f"{host} is no GitHub that this server knows (TREADLE_GITHUB_APIS)")
        if refreshes and not (self._client_id(host) and self._client_secret(host)):
            raise InvalidField("github_oauth", "this server cannot renew tokens: it has no TREADLE_GITHUB_CLIENT_ID and _SECRET")
        if private_key and _rsa_key(private_key) is None:
            raise InvalidField("github_app.private_key", "is no RSA key in PEM, as GitHub gives it to an app")

    async def refreshed(self, host: str, refresh_token: str) -> Issued:
        """See TokenIssuer. A refusal comes with a 200."""
        asked = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        answer = await self._logged_in(host, "/login/oauth/access_token", asked)
        with self._logins[host].understood():
            if "error" in answer:
                raise CredentialRejected(host, str(answer["error"])[:100])
            return _user_token(answer)

    async def begin_login(self, host: str) -> DeviceLogin:
        """See TokenIssuer."""
        self.check(host, refreshes=False)
        if not self._client_id(host):
            raise InvalidField("host", f"this server is no app of {host}: its operator has not set TREADLE_GITHUB_CLIENT_ID")
        # An app of the newer kind has rights of its own, and asks for no scope.
        answer = await self._logged_in(host, "/login/device/code", {"scope": "repo"})
        with self._logins[host].understood():
            if "error" in answer:
                raise CredentialRejected(host, str(answer["error"])[:100])
            return DeviceLogin(
                device_code=str(answer["device_code"]),
                user_code=str(answer["user_code"])[:_USER_CODE],
                url=self._page(host, str(answer["verification_uri"])),
                seconds=min(int(answer["expires_in"]), _LONGEST_LOGIN_SECONDS),
                interval=_interval(answer, _INTERVAL_SECONDS),
            )

    async def finish_login(self, host: str, device_code: str) -> Issued | Pending:
        """See TokenIssuer."""
        asked = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device_code}
        answer = await self._logged_in(host, "/login/oauth/access_token", asked)
        with self._logins[host].understood():
            match answer.get("error", ""):
                case "":
                    return _user_token(answer)
                case "authorization_pending":
                    return Pending()
                case "slow_down":
                    return Pending(_interval(answer, 2 * _INTERVAL_SECONDS))
                case "expired_token" | "incorrect_device_code":
                    raise LoginExpired(host)
                case "access_denied":
                    raise LoginDenied(host)
                case other:
                    raise CredentialRejected(host, str(other)[:100])

    def _client_id(self, host: str) -> str:
        return self._client_ids.get(host) or self._client_ids.get("", "")

    def _client_secret(self, host: str) -> str:
        return self._client_secrets.get(host) or self._client_secrets.get("", "")

    def _page(self, host: str, url: str) -> str:
        """A user is sent to the host itself only. Errors: ValueError."""
        if not url.isprintable() or URL(url).origin() != URL(self._logins[host].url).origin():
            raise ValueError("it is elsewhere")
        return url

    async def _logged_in(self, host: str, path: str, asked: Mapping[str, str]) -> Any:
        """What the host says to the app that this server is there; also errors come with a 200. Errors: CredentialRejected, and those of
        every call."""
        secret = {"client_secret": self._client_secret(host)} if self._client_secret(host) and path.endswith("access_token") else {}
        body = {"client_id": self._client_id(host), **secret, **asked}
        try:
            answer = await self._logins[host].ask("POST", path, token="", what="login", body=body, expect=(400, 401))
        except (CodeHostForbidden, CodeHostRefused, RemoteNotFound) as error:
            raise CredentialRejected(host, error.message) from error
        return answer.json

    async def of_installation(self, host: str, *, app_id: str, installation_id: str, private_key: str) -> Issued:
        """See TokenIssuer."""
        api, jwt = self._apis[host], _jwt(host, app_id, private_key)
        try:
            answer = await api.ask("POST", f"/app/installations/{installation_id}/access_tokens", token=jwt, what="installation")
        except (CodeHostForbidden, CodeHostRefused, RemoteNotFound) as error:
            raise CredentialRejected(host, error.message) from error
        with api.understood():
            scopes = tuple(f"{name}:{level}" for name, level in sorted((answer.json.get("permissions") or {}).items()))
            return Issued(str(answer.json["token"]), datetime.fromisoformat(answer.json["expires_at"]), scopes=scopes)


def _interval(answer: Any, default: int) -> int:
    """Whatever the host says, a client that heeds it asks again, and not all the time."""
    return min(max(int(answer.get("interval", default)), 1), _LONGEST_INTERVAL_SECONDS)


def _user_token(answer: Any) -> Issued:
    return Issued(
        token=str(answer["access_token"]),
        expires_at=datetime.now(UTC) + timedelta(seconds=int(answer["expires_in"])) if "expires_in" in answer else None,
        refresh_token=str(answer.get("refresh_token") or ""),
        scopes=tuple(filter(None, str(answer.get("scope") or "").split(","))),
    )


def _jwt(host: str, app_id: str, private_key: str) -> str:
    """RFC 7519, signed as RFC 7518 section 3.3 says. Errors: CredentialRejected."""
    key = _rsa_key(private_key)
    if key is None:
        raise CredentialRejected(host, "the app's private key is no RSA key in PEM")
    now = int(time.time())
    claims = {"iat": now - _CLOCKS_SECONDS, "exp": now + _JWT_SECONDS, "iss": app_id}
    signed = b".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    return b".".join((signed, _encoded(key.sign(signed, PKCS1v15(), hashes.SHA256())))).decode()


def _rsa_key(text: str) -> RSAPrivateKey | None:
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, RSAPrivateKey) else None


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
