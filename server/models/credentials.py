"""The server's credentials for model providers: the one place that has them. A worker never does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from server.config import Settings
from server.models.formats import Format
from server.models.login import Login, open_login

OAUTH_BETA = "oauth-2025-04-20"
"""What a request with a subscription's token must say."""

VARIABLES: Mapping[Format, tuple[str, ...]] = {
    Format.ANTHROPIC: ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "TREADLE_CLAUDE_CREDENTIALS"),
    Format.OPENAI: ("OPENAI_API_KEY",),
}
"""Where a credential can come from, for whoever has none."""


class Credential(Protocol):
    """How requests to one provider are paid for."""

    @property
    def setting(self) -> str:
        """Where it comes from, for people: what to check when the provider does not take it."""
        ...

    async def headers(self) -> dict[str, str]:
        """What to send; the value is good now. Errors: LoginFailed when it had to be renewed and could not be."""
        ...

    async def renew(self, refused: Mapping[str, str]) -> bool:
        """The provider refused these headers with a 401. Whether there are others now."""
        ...

    async def close(self) -> None:
        """Finish what must be finished. Bounded."""
        ...


def _subscription(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "anthropic-beta": OAUTH_BETA}


class Fixed:
    """A key or token that this server cannot renew."""

    def __init__(self, headers: Mapping[str, str], setting: str) -> None:
        self._headers = headers
        self.setting = setting

    async def headers(self) -> dict[str, str]:
        """See Credential."""
        return dict(self._headers)

    async def renew(self, refused: Mapping[str, str]) -> bool:
        """See Credential."""
        del refused
        return False

    async def close(self) -> None:
        """See Credential."""


class RenewableLogin:
    """A Claude subscription whose login this server keeps fresh."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self.setting = "the Claude login in TREADLE_CLAUDE_CREDENTIALS"

    async def headers(self) -> dict[str, str]:
        """See Credential."""
        return _subscription(await self._login.token())

    async def renew(self, refused: Mapping[str, str]) -> bool:
        """See Credential."""
        return await self._login.renew(refused.get("authorization", "").removeprefix("Bearer "))

    async def close(self) -> None:
        """See Credential."""
        await self._login.close()


def credentials_of(settings: Settings) -> dict[Format, Credential]:
    """What the settings give, for each format the first of: key, token, login. Errors: LoginUnfit when the login's file cannot be used."""
    found: dict[Format, Credential] = {}
    if key := settings.anthropic_api_key.get_secret_value():
        found[Format.ANTHROPIC] = Fixed({"x-api-key": key}, "ANTHROPIC_API_KEY or TREADLE_ANTHROPIC_API_KEY")
    elif token := settings.claude_oauth_token.get_secret_value():
        found[Format.ANTHROPIC] = Fixed(_subscription(token), "CLAUDE_CODE_OAUTH_TOKEN or TREADLE_CLAUDE_OAUTH_TOKEN")
    elif path := settings.claude_credentials:
        login = open_login(path, url=settings.claude_refresh_url, client_id=settings.claude_client_id)
        found[Format.ANTHROPIC] = RenewableLogin(login)
    if key := settings.openai_api_key.get_secret_value():
        found[Format.OPENAI] = Fixed({"authorization": f"Bearer {key}"}, "OPENAI_API_KEY or TREADLE_OPENAI_API_KEY")
    return found
