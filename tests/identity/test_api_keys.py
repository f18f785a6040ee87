"""API keys, on a real database."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from support.postgres import PostgresServer

from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.identity.authenticator import LOOKUPS, REMEMBER_KEYS, ApiKeyAuthenticator
from server.identity.keys import ApiKey, create_key, revoke_key
from server.identity.local_user import ensure_local_user
from server.kernel.errors import ApiKeyExpired, ApiKeyInvalid, TicketInvalid
from server.kernel.identity import Principal
from server.kernel.ports.key_store import KeyRecord, KeyStore


async def test_a_key_names_its_owner(stores: Stores, alice: Principal, mallory: Principal) -> None:
    authenticator = ApiKeyAuthenticator(stores.keys)
    for user in (alice, mallory):
        assert await authenticator.authenticate(await create_key(stores.keys, user)) == user


async def test_a_key_with_another_secret_or_form_is_refused_alike(stores: Stores, alice: Principal) -> None:
    key = await create_key(stores.keys, alice)
    authenticator = ApiKeyAuthenticator(stores.keys)
    await authenticator.authenticate(key)
    last = "A" if key[-1] != "A" else "B"
    messages = set()
    for wrong in (key[:-1] + last, key + "A", key[:-1], key.upper(), "trd_zzzzzzzz_" + key[13:], "", "trd__", key + "\n", "\u00e9" * 56):
        with pytest.raises(ApiKeyInvalid) as refused:
            await authenticator.authenticate(wrong)
        messages.add(str(refused.value))
    assert len(messages) == 1


async def test_the_secret_is_not_stored(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    key = await create_key(stores.keys, alice)
    owner = await asyncpg.connect(database.owner)
    try:
        rows = await owner.fetch("SELECT k::text FROM api_keys k")
    finally:
        await owner.close()
    assert len(rows) == 1
    assert key[13:] not in rows[0][0]
    assert key[13:].encode().hex() not in rows[0][0]


async def test_a_revoked_key_is_forgotten_in_time(stores: Stores, alice: Principal, mallory: Principal) -> None:
    key = await create_key(stores.keys, alice)
    parsed = ApiKey.parse(key)
    assert parsed is not None
    remembering, forgetting = ApiKeyAuthenticator(stores.keys), ApiKeyAuthenticator(stores.keys, remember_seconds=-1)
    await remembering.authenticate(key)
    await forgetting.authenticate(key)
    assert not await revoke_key(stores.keys, mallory, parsed.prefix)
    assert await revoke_key(stores.keys, alice, parsed.prefix)
    assert not await revoke_key(stores.keys, alice, parsed.prefix)
    assert await remembering.authenticate(key) == alice
    with pytest.raises(ApiKeyInvalid):
        await forgetting.authenticate(key)


async def test_a_remembered_key_costs_no_query(stores: Stores, alice: Principal, postgres: PostgresServer, database: DatabaseUrls) -> None:
    key = await create_key(stores.keys, alice)
    authenticator = ApiKeyAuthenticator(stores.keys)
    await authenticator.authenticate(key)
    owner = await asyncpg.connect(database.owner)
    try:
        await owner.execute("DROP TABLE api_keys")
    finally:
        await owner.close()
    assert await authenticator.authenticate(key) == alice


async def test_a_key_that_has_expired_says_so_to_who_has_it(stores: Stores, alice: Principal) -> None:
    now = datetime.now(UTC)
    over, young = [await create_key(stores.keys, alice, expires_at=now + timedelta(days=days)) for days in (-1, 1)]
    authenticator = ApiKeyAuthenticator(stores.keys)
    assert await authenticator.authenticate(young) == alice
    with pytest.raises(ApiKeyExpired, match=f"the API key expired at {now - timedelta(days=1):%Y-%m-%dT%H:%M}"):
        await authenticator.authenticate(over)
    with pytest.raises(ApiKeyInvalid):
        await authenticator.authenticate(over[:-1] + ("A" if over[-1] != "A" else "B"))
    ticket, _ = authenticator.issue_ticket(over, "s")
    with pytest.raises(TicketInvalid):
        await authenticator.admit(ticket, "s")


async def test_the_last_use_of_a_key_is_noted_beside_the_call_and_not_again_and_again(stores: Stores, alice: Principal) -> None:
    """Also where nobody remembers a key, so that each call looks it up."""
    key, unused = await create_key(stores.keys, alice), await create_key(stores.keys, alice)
    watched, begun = Watched(stores.keys), datetime.now(UTC)
    for authenticator in (ApiKeyAuthenticator(watched), ApiKeyAuthenticator(watched, remember_seconds=-1)):  # type: ignore[arg-type]
        for _ in range(5):
            assert await authenticator.authenticate(key) == alice
            await asyncio.gather(*authenticator._notes.values())
    assert watched.used_at == [key[4:12]]
    found = {each.prefix: each.last_used_at for each in await stores.keys.in_force(alice.tenant_id)}
    assert found[unused[4:12]] is None
    assert (last := found[key[4:12]])
    assert last >= begun - timedelta(seconds=5)


class Watched:
    """The real store, and how often and how many times at once it is asked."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys
        self.asked = self.open = self.most = 0
        self.used_at: list[str] = []

    async def used(self, prefix: str, *, seconds: float) -> None:
        self.used_at.append(prefix)
        await self._keys.used(prefix, seconds=seconds)

    async def find(self, prefix: str) -> KeyRecord | None:
        self.asked += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            return await self._keys.find(prefix)
        finally:
            self.open -= 1


def guess(prefix: str = "") -> str:
    return f"trd_{prefix or secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


async def test_guesses_are_looked_up_a_few_at_a_time_and_push_out_no_key_in_use(stores: Stores, alice: Principal) -> None:
    key = await create_key(stores.keys, alice)
    watched = Watched(stores.keys)
    authenticator = ApiKeyAuthenticator(watched)  # type: ignore[arg-type]
    await authenticator.authenticate(key)
    guesses = [authenticator.authenticate(guess()) for _ in range(REMEMBER_KEYS + 100)]
    refused = await asyncio.gather(*guesses, return_exceptions=True)
    assert {type(error) for error in refused} == {ApiKeyInvalid}
    assert watched.most <= LOOKUPS
    asked = watched.asked
    assert await authenticator.authenticate(key) == alice
    assert watched.asked == asked


async def test_the_same_wrong_key_is_not_looked_up_again_and_again(stores: Stores, alice: Principal) -> None:
    """Of a program that tries for ever with a key that was revoked, or with a wrong secret, or many times at once."""
    watched = Watched(stores.keys)
    authenticator = ApiKeyAuthenticator(watched)  # type: ignore[arg-type]
    known = ApiKey.parse(await create_key(stores.keys, alice))
    assert known is not None
    for number, wrong in enumerate((guess(), guess(known.prefix)), start=1):
        refused = await asyncio.gather(*(authenticator.authenticate(wrong) for _ in range(20)), return_exceptions=True)
        assert {type(error) for error in refused} == {ApiKeyInvalid}
        assert watched.asked <= number * LOOKUPS


async def test_the_local_user_gets_one_key_in_a_private_file(stores: Stores, tmp_path: Path) -> None:
    path = await ensure_local_user(stores.keys, tmp_path)
    key = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert await ensure_local_user(stores.keys, tmp_path) == path
    assert path.read_text() == key
    principal = await ApiKeyAuthenticator(stores.keys).authenticate(key.strip())
    assert (principal.tenant_id, principal.user_id) == ("local", "local")
    assert principal.name
    assert "@" in principal.email
    assert [entry.name for entry in tmp_path.iterdir()] == ["api-key"]


async def test_a_key_file_of_another_database_is_replaced(stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("trd_aaaaaaaa_" + "a" * 43)
    path = await ensure_local_user(stores.keys, tmp_path)
    await ApiKeyAuthenticator(stores.keys).authenticate(path.read_text().strip())


async def key_command(database: DatabaseUrls, home: Path, *words: str) -> tuple[int, str, str]:
    """`treadle key`, as an operator calls it; exit code, output, errors."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TREADLE_")}
    environment = kept | {"TREADLE_DATABASE_SYSTEM_URL": database.system, "TREADLE_DATA_DIR": str(home)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.cli", "key", *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_an_operator_sees_the_keys_and_ends_all_of_a_user(stores: Stores, database: DatabaseUrls, tmp_path: Path) -> None:
    given = [("ada",), ("ada", "--days", "7"), ("bob",)]
    answers = [await key_command(database, tmp_path, *words, "--tenant", "acme") for words in given]
    made = [answer[1].strip() for answer in answers]
    new = "treadle: a new user is made: '{}', of tenant acme\n"
    assert [answer[2] for answer in answers] == [new.format("ada"), "", new.format("bob")]
    code, listed, _ = await key_command(database, tmp_path, "--list", "--tenant", "acme")
    assert code == 0
    assert sorted((line.split()[0], *line.split()[2:4]) for line in listed.splitlines()) == sorted(
        zip([key[:12] for key in made], ["acme"] * 3, ["ada", "ada", "bob"], strict=True)
    )
    assert not any(key[13:] in listed for key in made)
    ends = {line.split()[0]: line.partition("ada")[2] for line in listed.splitlines() if " ada " in line}
    assert ends[made[0][:12]] == "  does not expire  never used"
    week = datetime.now(UTC) + timedelta(days=7)
    assert ends[made[1][:12]].startswith(f"  expires {week:%Y-%m-%d}T")
    assert (await key_command(database, tmp_path, "ada", "--tenant", "acme", "--revoke-all"))[::2] == (
        0,
        "treadle: 2 revoked; every server knows within a minute\n",
    )
    authenticator = ApiKeyAuthenticator(stores.keys)
    for key in made[:2]:
        with pytest.raises(ApiKeyInvalid):
            await authenticator.authenticate(key)
    assert (await authenticator.authenticate(made[2])).user_id == "bob"
    assert [line.split()[0] for line in (await key_command(database, tmp_path, "--list", "--tenant", "acme"))[1].splitlines()] == [
        made[2][:12]
    ]
    code, _, told = await key_command(database, tmp_path, "ada", "--tenant", "acme", "--revoke-all")
    assert (code != 0, "there is no key of ada in tenant acme" in told) == (True, True)
    code, _, told = await key_command(database, tmp_path, "ada", "--days", "0")
    assert (code != 0, "'0' is no number of days" in told) == (True, True)
    code, _, told = await key_command(database, tmp_path, "ada", "--revoke", made[0], "--days", "3")
    assert (code != 0, "--days: not allowed with argument --revoke" in told) == (True, True)
    code, _, told = await key_command(database, tmp_path)
    assert (code != 0, "whose key?" in told) == (True, True)


async def test_a_key_is_ended_by_whoever_finds_it_and_no_tenant_is_left_out(stores: Stores, database: DatabaseUrls, tmp_path: Path) -> None:
    """Somebody who holds a leaked key does not know whose it is."""
    at_home = (await key_command(database, tmp_path, "ada"))[1].strip()
    leaked = (await key_command(database, tmp_path, "ada", "--tenant", "acme"))[1].strip()
    listed = [line.split() for line in (await key_command(database, tmp_path, "--list"))[1].splitlines()]
    assert [(line[0], *line[2:4]) for line in listed] == [(leaked[:12], "acme", "ada"), (at_home[:12], "local", "ada")]
    elsewhere = await key_command(database, tmp_path, "ada", "--tenant", "other", "--revoke", leaked)
    assert elsewhere == (2, "", "treadle: there is no such key of ada in tenant other\n")
    ended = await key_command(database, tmp_path, "--revoke", leaked)
    assert ended == (0, "", "treadle: revoked: a key of ada (tenant acme); every server knows within a minute\n")
    assert await key_command(database, tmp_path, "--revoke", leaked) == (2, "", "treadle: there is no such key\n")
    assert await key_command(database, tmp_path, "--list", "nobody") == (2, "", "treadle: there is no key of nobody\n")
    assert (await ApiKeyAuthenticator(stores.keys).authenticate(at_home)).tenant_id == "local"
    assert (await key_command(database, tmp_path, "ada", "--revoke", at_home[:12]))[0] == 0
    assert await key_command(database, tmp_path, "--list") == (2, "", "treadle: there is no key\n")
