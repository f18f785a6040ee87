"""What servers agree about with the old system's bucket, when several of them write to it."""

from __future__ import annotations

from server.db.legacy_store import Agreed, Intended
from server.db.stores import Stores
from server.kernel.identity import Principal
from server.kernel.ids import new_id


async def test_a_server_that_comes_late_sets_nothing_back(stores: Stores, alice: Principal) -> None:
    records, session_id = stores.legacy, new_id()
    first, second = Agreed("v1", "sha1", "commit1"), Agreed("v2", "sha2", "commit2")
    assert await records.agree(alice, session_id, "key", first, over="")
    assert await records.agree(alice, session_id, "key", second, over="v1")
    assert not await records.agree(alice, session_id, "key", first, over="")
    assert (await records.standing(session_id)).agreed == second
    # An import has looked at what is there.
    assert await records.agree(alice, session_id, "key", first)
    assert (await records.standing(session_id)).agreed == first


async def test_what_may_still_be_written_is_remembered_and_nothing_else(stores: Stores, alice: Principal) -> None:
    records, session_id = stores.legacy, new_id()
    for number in (1, 2):
        await records.intend(alice, session_id, Intended(f"sha{number}", "commit", replaces=""))
    await records.intend(alice, session_id, Intended("sha3", "commit", replaces="v1"))
    assert (await records.standing(session_id)).intended == {"sha1": "commit", "sha2": "commit", "sha3": "commit"}
    await records.agree(alice, session_id, "key", Agreed("v1", "sha1", "commit"), over="")
    # Who agrees late about the same takes none from others.
    assert not await records.agree(alice, session_id, "key", Agreed("v1", "sha1", "commit"), over="")
    assert await records.intents(session_id) == {"sha3": "commit"}
    await records.agree(alice, session_id, "key", Agreed("v3", "sha3", "commit"), over="v1")
    assert await records.intents(session_id) == {}
