"""The fake GitHub, and the adapter that speaks to it for one user."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.fake_github import HOST, TOKEN, FakeGitHub, fake_github

from server.codehosts.api import Api, http_session
from server.codehosts.github import GitHub
from server.kernel.credential import Token
from server.kernel.ports.repositories import Repository


@pytest.fixture
async def fake() -> AsyncIterator[FakeGitHub]:
    async with fake_github() as fake:
        fake.takes(TOKEN)
        fake.repo("acme/app")
        yield fake


@pytest.fixture
async def github(fake: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GitHub]:
    monkeypatch.setattr("server.codehosts.api.READ_PAUSES", (0.01, 0.01))

    async def token(at: Repository) -> Token | None:
        return Token("x-access-token", TOKEN) if at.owner_id == "alice" else None

    async with http_session(public_only=False) as http:
        yield GitHub(Api(http, fake.url, host=HOST), token)
