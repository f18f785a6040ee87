"""Tokens that live for a while: renewed in time, once, and kept; of apps and of users."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from pydantic import SecretStr
from support.fake_github import AT, HOST, FakeGitHub, Reply

from server.codehosts.api import Api, http_session
from server.codehosts.github import GitHub
from server.codehosts.github_tokens import GitHubTokens
from server.config import Settings
from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.git.remote_url import RemoteUrls
from server.identity.vault import open_vault
from server.kernel.credential import Credential, CredentialKind, Material
from server.kernel.credentials import LOGINS, BegunLogin, Credentials, PutCredential
from server.kernel.errors import (
    CodeHostUnavailable,
    CredentialRejected,
    InvalidField,
    LoginDenied,
    LoginExpired,
    LoginTooSoon,
    RemoteNotFound,
    TooManyLogins,
)
from server.kernel.identity import Principal
from server.kernel.ports.token_issuer import Issued, Pending

INTERVAL = 50
"""Seconds between two questions about a login: longer than any test takes."""
KEY = base64.b64encode(os.urandom(32)).decode()


@dataclass
class World:
    fake: FakeGitHub
    stores: Stores
    issuer: GitHubTokens
    database: DatabaseUrls

    def server(self) -> Credentials:
        """One of those that share the database."""
        vault = open_vault(Settings(vault_key=SecretStr(KEY)))
        return Credentials(self.stores.credentials, self.stores.logins, vault, RemoteUrls(hosts="", prefixes=HOST), self.issuer)

    async def later(self, seconds: float = 60.0) -> None:
        """As if so much time had passed for logins."""
        connection = await asyncpg.connect(self.database.owner)
        try:
            for name in ("begun_at", "expires_at", "ask_at"):
                await connection.execute(f"UPDATE logins SET {name} = {name} - $1 * interval '1 second'", seconds)
        finally:
            await connection.close()

    async def put_login(self, user: Principal, *, seconds: float) -> None:
        self.fake.refresh_tokens.add("ghr_the_first")
        material, ends = Material("ghu_the_first", "ghr_the_first"), datetime.now(UTC) + timedelta(seconds=seconds)
        await self.server().put(user, PutCredential(HOST, "", material, CredentialKind.GITHUB_OAUTH, ends))


@pytest.fixture
async def world(fake: FakeGitHub, stores: Stores, alice: Principal, database: DatabaseUrls) -> AsyncIterator[World]:
    fake.interval = INTERVAL
    async with http_session(public_only=False) as http:
        apis, logins = {HOST: Api(http, fake.url, host=HOST)}, {HOST: Api(http, fake.url, host=HOST, accept="application/json")}
        yield World(fake, stores, GitHubTokens(apis, logins, client_ids={"": "the-app"}, client_secrets={"": "of-the-app"}), database)


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
    server._issued[key] = replace(server._issued[key], issued=Issued(first, datetime.now(UTC) + timedelta(minutes=4)))
    second = await token(server)
    assert second != first
    assert len(world.fake.asked) == asked + 1
    # The host says by a webhook that something has changed there.
    server.forget_installation("41")
    assert await token(server) == second
    server.forget_installation("42")
    assert await token(server) != second


async def test_an_app_s_token_that_the_host_refuses_is_replaced_once(
    world: World, alice: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing was heard by a webhook: that reaches one server of several."""
    pem, public = app_key()
    world.fake.app_key = lambda jwt: claims_of(jwt, public)["iss"] == "Iv1.app"
    material = Material(app_id="Iv1.app", installation_id="42", private_key=pem)
    server = world.server()
    await server.put(alice, PutCredential(HOST, "", material, CredentialKind.GITHUB_APP))
    github, first = GitHub(world.issuer._apis[HOST], server.token_for), await token(server)
    # Refused from the beginning: it is the app that may not, and each refusal would cost another token.
    world.fake.plays("GET", "/branches", Reply(404, "Not Found"))
    with pytest.raises(RemoteNotFound):
        await github.branches(AT, page_size=10, page_token="")
    assert await token(server) == first
    monkeypatch.setattr("server.kernel.credentials.NEW_SECONDS", 0.0)
    world.fake.tokens.clear()
    assert await github.default_branch(AT) == "main"
    second = await token(server)
    for status in (403, 404):
        world.fake.plays("GET", "/branches", Reply(status, "Resource not accessible by integration"))
        assert (await github.branches(AT, page_size=10, page_token="")).items
    assert len({first, second, await token(server)}) == 3
    world.fake.plays("GET", "/branches", *[Reply(404, "Not Found")] * 2)
    with pytest.raises(RemoteNotFound):
        await github.branches(AT, page_size=10, page_token="")


async def test_what_is_no_app_is_not_stored(world: World, alice: Principal) -> None:
    pem, _ = app_key()
    with pytest.raises(InvalidField, match="no RSA key"):
        material = Material(app_id="1", installation_id="42", private_key="nonsense")
        await world.server().put(alice, PutCredential(HOST, "", material, CredentialKind.GITHUB_APP))
    assert world.fake.asked == []
    with pytest.raises(CredentialRejected, match="could not be decoded"):
        material = Material(app_id="1", installation_id="42", private_key=pem)
        await world.server().put(alice, PutCredential(HOST, "", material, CredentialKind.GITHUB_APP))
    with pytest.raises(InvalidField, match="installation"):
        material = Material(app_id="1", installation_id="42/../1", private_key=pem)
        await world.server().put(alice, PutCredential(HOST, "", material, CredentialKind.GITHUB_APP))
    assert await world.server().list(alice) == []


async def test_a_user_logs_in_by_a_code_that_is_entered_in_a_browser(world: World, alice: Principal) -> None:
    """On any of the servers."""
    begun = await world.server().begin_login(alice, HOST)
    assert (begun.url, begun.user_code[:4]) == (f"{world.fake.url}/login/device", "WDJB")
    await world.later(INTERVAL)
    assert await world.server().finish_login(alice, begun.id) == Pending(INTERVAL)
    (code,) = world.fake.logins
    world.fake.logins[code] = "done"
    await world.later(INTERVAL)
    stored = await world.server().finish_login(alice, begun.id)
    assert isinstance(stored, Credential)
    assert (stored.host, stored.kind, stored.scopes) == (HOST, CredentialKind.GITHUB_OAUTH, ("repo",))
    assert await token(world.server()) == "ghu_of_the_login"
    # And it is renewed as any other, without anybody there.
    world.fake.tokens.clear()
    await world.stores.credentials.put(
        replace(found, credential=replace(found.credential, expires_at=datetime.now(UTC)))
        if (found := await world.stores.credentials.find("acme", "alice", HOST))
        else pytest.fail("it is not stored")
    )
    assert (await token(world.server())).startswith("ghu_renewed")


async def test_who_did_not_hear_the_answer_of_a_login_asks_again(world: World, alice: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = await world.server().begin_login(alice, HOST)
    (code,) = world.fake.logins
    world.fake.logins[code] = "done"
    # Also of another server, while the first has not stored it yet.
    answer = world.fake.holds("/login/oauth/access_token")
    await world.later(INTERVAL)
    first = asyncio.create_task(world.server().finish_login(alice, begun.id))
    await answer.ready.wait()
    with pytest.raises(LoginTooSoon):
        await world.server().finish_login(alice, begun.id)
    await world.later(INTERVAL)
    second = asyncio.create_task(world.server().finish_login(alice, begun.id))
    answer.go.set()
    assert await first == await second == await world.server().finish_login(alice, begun.id)
    # It is the same credential after it was renewed, and another one does not pass for it.
    monkeypatch.setattr("server.kernel.credentials.EARLY", timedelta(hours=9))
    assert (await token(world.server())).startswith("ghu_renewed")
    assert await world.server().finish_login(alice, begun.id) == (await world.server().list(alice))[0]
    monkeypatch.setattr("server.kernel.credentials._LOOK_PAUSES", ())
    await world.server().put(alice, PutCredential(HOST, "", Material("ghp_by_hand")))
    await world.later(INTERVAL)
    with pytest.raises(LoginExpired):
        await world.server().finish_login(alice, begun.id)


async def test_a_login_that_comes_to_nothing_says_why_and_stores_nothing(
    world: World, alice: Principal, mallory: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.kernel.credentials._LOOK_PAUSES", ())
    begun = await world.server().begin_login(alice, HOST)
    (code,) = world.fake.logins
    for said, error in (("expired_token", LoginExpired), ("access_denied", LoginDenied), ("device_flow_disabled", CredentialRejected)):
        world.fake.logins[code] = said
        await world.later(INTERVAL)
        with pytest.raises(error):
            await world.server().finish_login(alice, begun.id)
    world.fake.logins[code] = "done"
    for who, id_ in ((mallory, begun.id), (alice, begun.id[:-8]), (alice, "x" * 9000), (alice, "ä")):
        with pytest.raises(InvalidField, match=r"StartLogin"):
            await world.server().finish_login(who, id_)
    assert await world.server().list(alice) == await world.server().list(mallory) == []
    page = {"device_code": "d", "user_code": "u", "verification_uri": "https://evil.test/device", "expires_in": 900}
    world.fake.plays("POST", "/login/device/code", Reply(200, page))
    with pytest.raises(CodeHostUnavailable):
        await world.server().begin_login(alice, HOST)
    async with http_session(public_only=False) as http:
        nobody = GitHubTokens({HOST: Api(http, world.fake.url, host=HOST)}, {}, client_ids={"other": "x"}, client_secrets={})
        with pytest.raises(InvalidField, match="TREADLE_GITHUB_CLIENT_ID"):
            await nobody.begin_login(HOST)


async def test_a_host_that_names_no_pause_is_not_asked_all_the_time(world: World, alice: Principal) -> None:
    world.fake.interval = 0
    assert (await world.server().begin_login(alice, HOST)).interval == 1


async def test_a_host_is_asked_no_faster_than_it_says_by_whoever_asks(world: World, alice: Principal) -> None:
    """Whatever the client does, on each of two servers, and after a restart."""
    begun = await world.server().begin_login(alice, HOST)
    (code,) = world.fake.logins

    def asked() -> int:
        return world.fake.paths().count("/login/oauth/access_token")

    async def all_at_once() -> list[Pending | LoginTooSoon]:
        one, two = world.server(), world.server()
        answers = await asyncio.gather(*(each.finish_login(alice, begun.id) for each in (one, two) * 10), return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, Pending | LoginTooSoon)]

    answers = await all_at_once()
    assert {type(answer) for answer in answers} == {LoginTooSoon}
    assert len(answers) == 20
    assert asked() == 0
    waits = [int(answer.metadata["retry_after_seconds"]) for answer in answers if isinstance(answer, LoginTooSoon)]
    assert all(0 < wait <= INTERVAL for wait in waits)
    # With each `slow_down` it is 5 s more, and what the host says when that is more.
    world.fake.slower = 60
    for said, seconds, interval in (("slow_down", 50, 60), ("authorization_pending", 60, 60), ("slow_down", 60, 65), ("slow_down", 65, 70)):
        world.fake.logins[code] = said
        before = asked()
        await world.later(seconds)
        answers = await all_at_once()
        assert [answer for answer in answers if isinstance(answer, Pending)] == [Pending(interval)]
        assert len(answers) == 20
        assert asked() == before + 1
    with pytest.raises(LoginTooSoon) as early:
        await world.server().finish_login(alice, begun.id)
    assert 0 < int(early.value.metadata["retry_after_seconds"]) <= 70


async def test_a_user_has_few_logins_open_and_does_not_begin_many(world: World, alice: Principal, bob: Principal) -> None:
    one, two = world.server(), world.server()

    async def begin(count: int) -> list[TooManyLogins]:
        answers = await asyncio.gather(*(each.begin_login(alice, HOST) for each in (one, two) * (count // 2)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, TooManyLogins)]
        assert len(refused) + sum(isinstance(answer, BegunLogin) for answer in answers) == count
        return refused

    refused = await begin(12)
    assert len(refused) == 12 - LOGINS.open
    assert world.fake.paths().count("/login/device/code") == LOGINS.open
    # The host's codes are good for 899 s.
    assert {0 < int(error.metadata["retry_after_seconds"]) <= 899 for error in refused} == {True}
    await world.server().begin_login(bob, HOST)
    # Those that are over do not count, and neither do those whose host did not begin them; but not for ever.
    for _ in range(2):
        await world.later(900)
        assert len(await begin(10)) == 10 - LOGINS.open
    await world.later(900)
    world.fake.plays("POST", "/login/device/code", *[Reply(503)] * (LOGINS.rate - 3 * LOGINS.open))
    for _ in range(LOGINS.rate - 3 * LOGINS.open):
        with pytest.raises(CodeHostUnavailable):
            await world.server().begin_login(alice, HOST)
    asked = len(world.fake.asked)
    with pytest.raises(TooManyLogins) as refused_one:
        await world.server().begin_login(alice, HOST)
    assert 0 < int(refused_one.value.metadata["retry_after_seconds"]) <= 900
    assert len(world.fake.asked) == asked
    await world.later(900)
    assert len(await begin(10)) == 10 - LOGINS.open


async def test_a_login_that_is_done_or_denied_leaves_room_for_another(world: World, alice: Principal) -> None:
    begun = [await world.server().begin_login(alice, HOST) for _ in range(LOGINS.open)]
    for login, code in zip(begun, [*world.fake.logins], strict=True):
        with pytest.raises(TooManyLogins):
            await world.server().begin_login(alice, HOST)
        world.fake.logins[code] = "done" if login is begun[0] else "access_denied"
        await world.later(INTERVAL)
        with suppress(LoginDenied):
            await world.server().finish_login(alice, login.id)
        await world.server().begin_login(alice, HOST)
