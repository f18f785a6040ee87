"""Tokens that live for a while: renewed in time, once, and kept; of apps and of users."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from pydantic import SecretStr
from support.fake_github import AT, HOST, FakeGitHub, Reply

from server.codehosts.api import Api, http_session
from server.codehosts.github_tokens import GitHubTokens
from server.config import Settings
from server.db.stores import Stores
from server.git.remote_url import RemoteUrls
from server.identity.vault import open_vault
from server.kernel.credential import CredentialKind, Material
from server.kernel.credentials import Credentials, PutCredential
from server.kernel.errors import CodeHostUnavailable, CredentialRejected, InvalidField
from server.kernel.identity import Principal

KEY = base64.b64encode(os.urandom(32)).decode()


@dataclass
class World:
    fake: FakeGitHub
    stores: Stores
    issuer: GitHubTokens

    def server(self) -> Credentials:
        """One of those that share the database."""
        vault = open_vault(Settings(vault_key=SecretStr(KEY)))
        return Credentials(self.stores.credentials, vault, RemoteUrls(hosts="", prefixes=HOST), self.issuer)

    async def put_login(self, user: Principal, *, seconds: float) -> None:
        self.fake.refresh_tokens.add("ghr_the_first")
        material, ends = Material("ghu_the_first", "ghr_the_first"), datetime.now(UTC) + timedelta(seconds=seconds)
        await self.server().put(user, PutCredential(HOST, "", material, CredentialKind.GITHUB_OAUTH, ends))


@pytest.fixture
async def world(fake: FakeGitHub, stores: Stores, alice: Principal) -> AsyncIterator[World]:
    async with http_session(public_only=False) as http:
        apis, logins = {HOST: Api(http, fake.url, host=HOST)}, {HOST: Api(http, fake.url, host=HOST, accept="application/json")}
        yield World(fake, stores, GitHubTokens(apis, logins, client_id="the-app", client_secret="of-the-app"))


async def token(server: Credentials) -> str:
    found = await server.token_for(AT)
    assert found is not None
    return found.secret


async def test_a_user_s_token_is_renewed_before_it_ends_and_kept(world: World, alice: Principal) -> None:
    await world.put_login(alice, seconds=3600)
    assert await token(world.server()) == "ghu_the_first"
    assert world.fake.asked == []
    await world.put_login(alice, seconds=60)
    renewed = await token(world.server())
    assert renewed.startswith("ghu_renewed")
    assert await token(world.server()) == renewed
    assert world.fake.paths() == ["/login/oauth/access_token"]
    assert "authorization" not in world.fake.asked[0].headers
    (shown,) = await world.server().list(alice)
    assert shown.expires_at is not None
    assert shown.expires_at > datetime.now(UTC) + timedelta(hours=7)


async def test_many_who_need_it_at_once_renew_it_once(world: World, alice: Principal) -> None:
    """Also on two servers: the one whose refresh token is spent takes what the other got."""
    await world.put_login(alice, seconds=60)
    one, two = world.server(), world.server()
    found = await asyncio.gather(*(token(server) for server in (one, two) * 5))
    assert found[0].startswith("ghu_renewed")
    assert len({*found}) == 1
    assert len(world.fake.asked) <= 2


async def test_who_leaves_in_the_middle_loses_no_login(world: World, alice: Principal) -> None:
    await world.put_login(alice, seconds=60)
    server = world.server()
    asking = asyncio.create_task(token(server))
    async with asyncio.timeout(5):
        while not world.fake.asked:
            await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await server.finished()
    assert (await token(world.server())).startswith("ghu_renewed")


async def test_a_login_that_is_over_says_so_and_one_that_cannot_be_asked_is_kept(world: World, alice: Principal) -> None:
    await world.put_login(alice, seconds=60)
    world.fake.plays("POST", "/login/oauth/access_token", Reply(503, "oops"))
    with pytest.raises(CodeHostUnavailable):
        await token(world.server())
    assert (await token(world.server())).startswith("ghu_renewed")
    await world.put_login(alice, seconds=60)
    world.fake.refresh_tokens.clear()
    with pytest.raises(CredentialRejected, match="bad_refresh_token"):
        await token(world.server())


def app_key() -> tuple[str, rsa.RSAPublicKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    return pem.decode(), key.public_key()


def claims_of(jwt: str, public: rsa.RSAPublicKey) -> dict[str, int | str]:
    """Errors: InvalidSignature."""
    header, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in jwt.split("."))
    public.verify(signature, jwt.rpartition(".")[0].encode(), PKCS1v15(), hashes.SHA256())
    assert json.loads(header) == {"alg": "RS256", "typ": "JWT"}
    return json.loads(claims)


async def test_an_app_gets_a_token_for_its_installation_and_uses_it_for_its_time(world: World, alice: Principal) -> None:
    pem, public = app_key()
    world.fake.app_key = lambda jwt: claims_of(jwt, public)["iss"] == "Iv1.app"
    server = world.server()
    material = Material(app_id="Iv1.app", installation_id="42", private_key=pem)
    await server.put(alice, PutCredential(HOST, "", material, CredentialKind.GITHUB_APP))
    first = await token(server)
    assert first.startswith("ghs_installation_42_")
    assert await token(server) == first
    claims = claims_of(world.fake.asked[-1].token, public)
    assert 0 < int(claims["exp"]) - int(claims["iat"]) <= 600
    # Another server has its own, and so has this one when the first is about to end.
    assert await token(world.server()) != first
    asked = len(world.fake.asked)
    (key,) = server._issued
    server._issued[key] = type(server._issued[key])(first, datetime.now(UTC) + timedelta(minutes=4))
    assert await token(server) != first
    assert len(world.fake.asked) == asked + 1


async def test_what_is_no_app_is_not_stored(world: World, alice: Principal) -> None:
    pem, _ = app_key()
    for material, says in (
        (Material(app_id="1", installation_id="42", private_key="nonsense"), "no RSA key"),
        (Material(app_id="1", installation_id="42", private_key=pem), "could not be decoded"),
    ):
        with pytest.raises(CredentialRejected, match=says):
            await world.server().put(alice, PutCredential(HOST, "", material, CredentialKind.GITHUB_APP))
    with pytest.raises(InvalidField, match="installation"):
        material = Material(app_id="1", installation_id="42/../1", private_key=pem)
        await world.server().put(alice, PutCredential(HOST, "", material, CredentialKind.GITHUB_APP))
    assert await world.server().list(alice) == []
