"""GitHub's tokens that live for a while.

Sources, of https://docs.github.com/en/apps: "Refreshing user access tokens" (8 hours; each refresh token works once, for 6 months),
"Generating a JSON Web Token (JWT) for a GitHub App" (RS256, 10 minutes at most, the clocks may differ by a minute), "Generating an
installation access token for a GitHub App" (an hour).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server.codehosts.api import Api
from server.kernel.errors import CodeHostForbidden, CodeHostRefused, CredentialRejected, InvalidField, RemoteNotFound
from server.kernel.ports.token_issuer import Issued

_JWT_SECONDS = 540
_CLOCKS_SECONDS = 60


class GitHubTokens:
    """Implements the port `TokenIssuer`."""

    def __init__(self, apis: Mapping[str, Api], logins: Mapping[str, Api], *, client_id: str, client_secret: str) -> None:
        """By host: the API, and where users log in."""
        self._apis = apis
        self._logins = logins
        self._client_id = client_id
        self._client_secret = client_secret

    def check(self, host: str, *, refreshes: bool) -> None:
        """See TokenIssuer."""
        if host not in self._apis:
            raise InvalidField("host", f"{host} is no GitHub that this server knows (TREADLE_GITHUB_APIS)")
        if refreshes and not (self._client_id and self._client_secret):
            raise InvalidField("github_oauth", "this server cannot renew tokens: it has no TREADLE_GITHUB_CLIENT_ID and _SECRET")

    async def refreshed(self, host: str, refresh_token: str) -> Issued:
        """See TokenIssuer. A refusal comes with a 200."""
        asked = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": self._client_id,
            "client_secret": self._client_secret,
        }
        login = self._logins[host]
        try:
            answer = await login.ask("POST", "/login/oauth/access_token", token="", what="login", body=asked, expect=(400, 401))
        except (CodeHostForbidden, CodeHostRefused, RemoteNotFound) as error:
            raise CredentialRejected(host, error.message) from error
        with login.understood():
            if "error" in answer.json:
                raise CredentialRejected(host, str(answer.json["error"])[:100])
            return Issued(
                token=str(answer.json["access_token"]),
                expires_at=datetime.now(UTC) + timedelta(seconds=int(answer.json["expires_in"])) if "expires_in" in answer.json else None,
                refresh_token=str(answer.json.get("refresh_token") or ""),
                scopes=tuple(filter(None, str(answer.json.get("scope") or "").split(","))),
            )

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


def _jwt(host: str, app_id: str, private_key: str) -> str:
    """RFC 7519, signed as RFC 7518 section 3.3 says. Errors: CredentialRejected."""
    try:
        key = load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise CredentialRejected(host, "the app's private key is no RSA key in PEM")
    now = int(time.time())
    claims = {"iat": now - _CLOCKS_SECONDS, "exp": now + _JWT_SECONDS, "iss": app_id}
    signed = b".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    return b".".join((signed, _encoded(key.sign(signed, PKCS1v15(), hashes.SHA256())))).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
