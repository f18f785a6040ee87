"""Tickets for event streams, on a real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from server.db.stores import Stores
from server.identity.authenticator import TICKET_SECONDS, ApiKeyAuthenticator
from server.identity.keys import ApiKey, create_key, revoke_key
from server.kernel.errors import ApiKeyInvalid, TicketInvalid
from server.kernel.identity import Principal

SESSION, OTHER = "0190aaaa-0000-7000-8000-000000000001", "0190aaaa-0000-7000-8000-000000000002"


async def test_a_ticket_names_the_owner_of_its_key_on_every_server(stores: Stores, alice: Principal, mallory: Principal) -> None:
    for user in (alice, mallory):
        ticket, expires_at = ApiKeyAuthenticator(stores.keys).issue_ticket(await create_key(stores.keys, user), SESSION)
        assert await ApiKeyAuthenticator(stores.keys).admit(ticket, SESSION) == user
        left = expires_at - datetime.now(UTC)
        assert timedelta(seconds=TICKET_SECONDS - 5) < left <= timedelta(seconds=TICKET_SECONDS)


async def test_what_is_changed_in_a_ticket_makes_it_worthless(stores: Stores, alice: Principal, mallory: Principal) -> None:
    authenticator = ApiKeyAuthenticator(stores.keys)
    key, foreign = await create_key(stores.keys, alice), await create_key(stores.keys, mallory)
    ticket, _ = authenticator.issue_ticket(key, SESSION)
    start, prefix, end, code = ticket.split("_", 3)
    theirs = foreign.split("_")[1]
    later = f"{int(end) + 1}"
    other = f"{code[:-1]}{'E' if code[-1] == 'A' else 'A'}"
    changed = [
        f"{start}_{theirs}_{end}_{code}",
        f"{start}_{prefix}_{later}_{code}",
        f"{start}_{prefix}_0{end}_{code}",
        ticket.replace(code, other),
    ]
    for wrong in (*changed, ticket[:-1], ticket + "A", ticket + "\n", key, "", "\u00e9"):
        with pytest.raises(TicketInvalid):
            await authenticator.admit(wrong, SESSION)
    with pytest.raises(TicketInvalid):
        await authenticator.admit(ticket, OTHER)
    with pytest.raises(ApiKeyInvalid):
        await authenticator.authenticate(ticket)
    with pytest.raises(ApiKeyInvalid):
        authenticator.issue_ticket(ticket, SESSION)


async def test_a_ticket_of_a_key_that_does_not_exist_opens_nothing(stores: Stores, alice: Principal) -> None:
    """Whoever makes up a key can make up its tickets."""
    authenticator = ApiKeyAuthenticator(stores.keys)
    key = await create_key(stores.keys, alice)
    made_up = key[:13] + ("A" if key[13] != "A" else "B") + key[14:]
    ticket, _ = authenticator.issue_ticket(made_up, SESSION)
    with pytest.raises(TicketInvalid):
        await authenticator.admit(ticket, SESSION)


async def test_a_ticket_ends_with_its_time_and_with_its_key(stores: Stores, alice: Principal) -> None:
    key = await create_key(stores.keys, alice)
    over, _ = ApiKeyAuthenticator(stores.keys, ticket_seconds=-1).issue_ticket(key, SESSION)
    authenticator = ApiKeyAuthenticator(stores.keys, remember_seconds=-1)
    with pytest.raises(TicketInvalid):
        await authenticator.admit(over, SESSION)
    ticket, _ = authenticator.issue_ticket(key, SESSION)
    assert await authenticator.admit(ticket, SESSION) == alice
    parsed = ApiKey.parse(key)
    assert parsed is not None
    await revoke_key(stores.keys, alice, parsed.prefix)
    with pytest.raises(TicketInvalid):
        await authenticator.admit(ticket, SESSION)
