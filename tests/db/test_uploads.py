"""Which snapshots a server gives up, of those that it cannot store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from support.logs import end_turn, start_turn

from server.config import Settings
from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.git.repository import GitRepositories, open_git
from server.kernel.history import Snapshot
from server.kernel.identity import Principal
from server.kernel.ports.repositories import Repository
from server.kernel.uploads import Uploads
from server.storage.filesystem import open_filesystem

COMMIT = "1" * 40


@pytest.fixture
async def repositories(tmp_path: Path) -> AsyncIterator[GitRepositories]:
    """Of a server that never had the commit."""
    async with open_git(Settings(data_dir=tmp_path / "data")) as opened:
        yield opened


@pytest.fixture
async def uploads(stores: Stores, repositories: GitRepositories, tmp_path: Path) -> AsyncIterator[Uploads]:
    (tmp_path / "scratch").mkdir()
    async with open_filesystem(Settings(data_dir=tmp_path / "data")) as objects:
        yield Uploads(stores.history, stores.turns, repositories, objects, scratch=tmp_path / "scratch", retry_seconds=60)


async def age(database: DatabaseUrls, days: int) -> None:
    admin = await asyncpg.connect(database.owner)
    try:
        await admin.execute("UPDATE snapshots SET created_at = now() - $1 * interval '1 day'", days)
    finally:
        await admin.close()


async def pending(stores: Stores, database: DatabaseUrls, owner: Principal, *, days: int) -> Snapshot:
    """One that some server made so long ago."""
    claimed = await start_turn(stores, owner)
    await end_turn(stores, claimed, commit=COMMIT)
    await age(database, days)
    (snapshot,) = await stores.history.pending(limit=9)
    return snapshot


async def test_what_another_server_may_still_store_is_given_up_late_and_not_for_ever(
    stores: Stores, alice: Principal, database: DatabaseUrls, uploads: Uploads
) -> None:
    await uploads._try(await pending(stores, database, alice, days=8))
    await age(database, 31)
    (snapshot,) = await stores.history.pending(limit=9)
    await uploads._try(snapshot)
    assert (await stores.history.get(alice, snapshot.session_id, number=1)).lost
    await stores.history.stored(snapshot, key="key", sha256="5a", size=7)
    assert [each.key for each in await stores.history.chain(alice.tenant_id, snapshot.session_id, COMMIT)] == ["key"]
    assert await stores.history.doomed(limit=9, after="") == []


async def test_a_server_that_cannot_tell_what_it_has_gives_up_nothing(
    stores: Stores, alice: Principal, database: DatabaseUrls, uploads: Uploads, repositories: GitRepositories
) -> None:
    snapshot = await pending(stores, database, alice, days=31)
    url = await stores.turns.repository_url(snapshot.session_id)
    async with repositories.mirrors.used(Repository(snapshot.tenant_id, snapshot.owner_id, url), seconds=9) as mirror:
        (mirror / "config").write_text("[")
    await uploads._try(snapshot)
    assert await stores.history.pending(limit=9) == [snapshot]
