"""Credentials: scoped by owner, compared and swapped, sealed anew when the key changes."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from itertools import pairwise, product
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from server.codehosts.github_tokens import GitHubTokens
from server.config import Settings
from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.git.remote_url import RemoteUrls
from server.identity.vault import open_vault
from server.kernel.credential import Credential, CredentialKind, Material
from server.kernel.credentials import Credentials, PutCredential
from server.kernel.errors import CredentialNotFound, CredentialRejected, CredentialUnreadable, InvalidField, VersionConflict
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.ports.credential_store import Sealed
from server.kernel.ports.repositories import Repository

PREFIX = "https://git.example.org/team/"
KEYS = [base64.b64encode(os.urandom(32)).decode() for _ in range(2)]


def credentials(stores: Stores, *keys: str, hosts: RemoteUrls | None = None) -> Credentials:
    vault = open_vault(Settings(vault_key=SecretStr(",".join(keys or KEYS[:1]))))
    return Credentials(
        stores.credentials,
        stores.logins,
        vault,
        hosts or RemoteUrls(hosts="github.com,gitlab.com", prefixes=PREFIX),
        GitHubTokens({}, {}, client_ids={}, client_secrets={}),
    )


async def secret_for(used: Credentials, user: Principal, url: str) -> str | None:
    token = await used.token_for(Repository(user.tenant_id, user.user_id, url))
    return token.secret if token else None


async def test_a_token_is_lent_to_its_owner_for_its_host_and_to_nobody_else(
    stores: Stores, alice: Principal, bob: Principal, mallory: Principal
) -> None:
    used = credentials(stores)
    stored = await used.put(alice, PutCredential("GitHub.com", "", Material("ghp_of_alice")))
    assert (stored.host, stored.username, stored.version, stored.last_used_at) == ("github.com", "x-access-token", 1, None)
    await used.put(alice, PutCredential(PREFIX, "alice", Material("for-the-team")))
    assert await secret_for(used, alice, "https://github.com/acme/app.git") == "ghp_of_alice"
    assert await secret_for(used, alice, f"{PREFIX}app.git") == "for-the-team"
    for url in ("https://gitlab.com/acme/app.git", "https://git.example.org/other/app.git", "https://github.com.evil.test/acme/app.git"):
        assert await secret_for(used, alice, url) is None, urlsplit(url).hostname
    for other in (bob, mallory):
        assert await secret_for(used, other, "https://github.com/acme/app.git") is None
        assert await used.list(other) == []
        with pytest.raises(CredentialNotFound):
            await used.delete(other, stored.id)
    of_github, of_team = sorted(await used.list(alice), key=lambda each: each.host)
    assert of_github.last_used_at is not None
    await used.delete(alice, of_team.id)
    assert await secret_for(used, alice, f"{PREFIX}app.git") is None


async def test_what_replaces_another_keeps_its_id_and_never_a_newer_one(stores: Stores, alice: Principal) -> None:
    used = credentials(stores)
    first = await used.put(alice, PutCredential("github.com", "", Material("ghp_first_one")))
    second = await used.put(alice, PutCredential("github.com", "ada", Material("ghp_second_one"), version=1))
    assert (second.id, second.version, second.username) == (first.id, 2, "ada")
    with pytest.raises(VersionConflict):
        await used.put(alice, PutCredential("github.com", "", Material("ghp_third_one"), version=1))
    assert await secret_for(used, alice, "https://github.com/acme/app.git") == "ghp_second_one"
    # As a renewal does that comes too late.
    assert await stores.credentials.put(Sealed(replace(first, username="stale"), b"stale")) is None
    await used.delete(alice, first.id)
    assert await stores.credentials.put(Sealed(second, b"from the dead")) is None
    assert await used.list(alice) == []


async def test_no_row_opens_in_the_place_of_another(stores: Stores, alice: Principal, mallory: Principal) -> None:
    used = credentials(stores)
    await used.put(alice, PutCredential("github.com", "", Material("ghp_of_alice")))
    stolen = await stores.credentials.find("acme", "alice", "github.com")
    assert stolen is not None
    moved = Credential(new_id(), mallory.tenant_id, mallory.user_id, "github.com", CredentialKind.TOKEN, "x")
    await stores.credentials.put(Sealed(moved, stolen.secret))
    with pytest.raises(CredentialUnreadable):
        await secret_for(used, mallory, "https://github.com/acme/app.git")


async def test_a_new_key_seals_everything_anew_and_then_the_old_one_can_go(stores: Stores, alice: Principal, mallory: Principal) -> None:
    """In the three steps of docs/operations.md: while the servers are started anew, one after the other, those before and after the step
    read everything."""
    old, new = KEYS
    for user in (alice, mallory):
        await credentials(stores, old).put(user, PutCredential("github.com", "", Material(f"ghp_of_{user.user_id}")))
    with pytest.raises(CredentialUnreadable):
        await secret_for(credentials(stores, new), alice, "https://github.com/acme/app.git")
    await credentials(stores, new).renew_seals()  # it cannot, and harms nothing
    for before, after in pairwise([(old,), (old, new), (new, old), (new,)]):
        await credentials(stores, *after).renew_seals()
        for keys, user in product((before, after), (alice, mallory)):
            assert await secret_for(credentials(stores, *keys), user, "https://github.com/acme/app.git") == f"ghp_of_{user.user_id}"
    assert [each.version for each in await credentials(stores, new).list(alice)] == [1]


async def test_who_can_write_the_host_of_a_row_leads_its_token_nowhere(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    used = credentials(stores)
    await used.put(alice, PutCredential("github.com", "", Material("ghp_of_alice")))
    owner = await asyncpg.connect(database.owner)
    await owner.execute("UPDATE credentials SET host = $1", PREFIX)
    await owner.close()
    with pytest.raises(CredentialUnreadable):
        await secret_for(used, alice, f"{PREFIX}app.git")


@pytest.mark.parametrize(
    ("given", "canonical"),
    [("GitHub.com", "github.com"), ("https://github.com/me/app", "github.com"), (PREFIX[:-1], PREFIX), (f"{PREFIX}app.git", PREFIX)],
)
async def test_a_host_is_known_in_the_ways_in_which_people_write_it(stores: Stores, alice: Principal, given: str, canonical: str) -> None:
    stored = await credentials(stores).put(alice, PutCredential(given, "", Material("ghp_of_alice")))
    assert stored.host == canonical


async def test_no_token_goes_over_plain_http_but_to_this_machine_or_by_leave(stores: Stores, alice: Principal) -> None:
    clear, here = "http://git.example.org/", "http://127.0.0.1:3000/"

    def server(*, leave: bool) -> Credentials:
        return credentials(stores, hosts=RemoteUrls(hosts="", prefixes=f"{clear},{here}", plain_credentials=leave))

    with pytest.raises(InvalidField, match="TREADLE_GIT_PLAIN_CREDENTIALS"):
        await server(leave=False).put(alice, PutCredential(clear, "", Material("ghp_of_alice")))
    for host in (here, clear):
        await server(leave=True).put(alice, PutCredential(host, "", Material("ghp_of_alice")))
    assert await secret_for(server(leave=False), alice, f"{here}app.git") == await secret_for(server(leave=True), alice, f"{clear}app.git")
    # Of the time when it was allowed.
    with pytest.raises(CredentialRejected, match="plain http"):
        await secret_for(server(leave=False), alice, f"{clear}app.git")


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("host", PutCredential("github.com.evil.test", "", Material("ghp_12345678"))),
        ("host", PutCredential("https://git.example.org/", "", Material("ghp_12345678"))),
        ("username", PutCredential("github.com", "a:b", Material("ghp_12345678"))),
        ("token", PutCredential("github.com", "", Material("short"))),
        ("token", PutCredential("github.com", "", Material("ghp_1234\n5678"))),
    ],
)
async def test_what_is_no_credential_is_refused(stores: Stores, alice: Principal, field: str, request_: PutCredential) -> None:
    with pytest.raises(InvalidField) as refused:
        await credentials(stores).put(alice, request_)
    assert refused.value.field == field
    assert request_.material.token not in str(refused.value)
