"""What is known of the pull requests of sessions' branches. Webhooks name no tenant, so all of it runs as `treadle_system`; what is of an
owner names tenant and owner."""

from __future__ import annotations

from collections.abc import Sequence

from server.db.pool import Database
from server.db.queries import SQL
from server.db.rows import pull_request_from, pull_request_of
from server.db.session_store import lock_session, refuse_in_the_way
from server.kernel.code_host import PullRequest
from server.kernel.identity import Principal
from server.kernel.ports.history_store import Seal
from server.kernel.ports.pull_request_store import Look, Untold
from server.kernel.ports.repositories import Repository
from server.kernel.webhook import Hint


class PostgresPullRequestStore:
    """Implements the port `PullRequestStore`."""

    def __init__(self, system: Database) -> None:
        self._system = system

    async def heard(self, delivery: str, hint: Hint | None) -> bool:
        """See PullRequestStore."""
        async with self._system.transaction() as connection:
            if await connection.fetchval(SQL["delivery_heard"], delivery) is None:
                return False
            if hint is not None:
                await connection.execute(SQL["look_at_pull_request"], _spellings(hint.url), hint.branch, hint.number)
        return True

    async def forget_deliveries(self, *, seconds: float) -> None:
        """See PullRequestStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["forget_deliveries"], seconds)

    async def due(self, *, limit: int, again_seconds: float, except_hosts: Sequence[str] = ()) -> Sequence[Look]:
        """See PullRequestStore."""
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["due_looks"], limit, again_seconds, [*except_hosts])
        return [
            Look(
                session_id=str(row["session_id"]),
                repository=Repository(row["tenant_id"], row["owner_id"], row["repository_url"]),
                number=row["number"],
                due_at=row["due_at"],
                tries=row["tries"],
            )
            for row in rows
        ]

    async def looked(self, look: Look) -> None:
        """See PullRequestStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["looked"], look.repository.tenant_id, look.session_id, look.due_at)

    async def later(self, look: Look, *, seconds: float) -> None:
        """See PullRequestStore."""
        async with self._system.connection() as connection:
            await connection.execute(SQL["look_later"], look.repository.tenant_id, look.session_id, look.due_at, seconds)

    async def saw(self, at: Repository, pull_request: PullRequest) -> Sequence[str]:
        """See PullRequestStore."""
        if pull_request.from_fork:
            return []
        whose = (at.tenant_id, at.owner_id, _spellings(at.url))
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["saw_pull_request"], *whose, pull_request.head, pull_request_of(pull_request))
        return [str(row["id"]) for row in rows]

    async def untold(self, *, limit: int) -> Sequence[Untold]:
        """See PullRequestStore."""
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["untold_pull_requests"], limit)
        found = ((row, pull_request_from(row["pull_request"])) for row in rows)
        return [Untold(str(row["id"]), row["tenant_id"], row["owner_id"], known) for row, known in found if known is not None]

    async def tell(self, untold: Untold, seal: Seal) -> bool:
        """See PullRequestStore."""
        owner = Principal(untold.tenant_id, untold.owner_id, "", "")
        own = (untold.tenant_id, untold.session_id)
        async with self._system.transaction() as connection:
            await lock_session(connection, owner, untold.session_id)
            await refuse_in_the_way(connection, owner, untold.session_id)
            if await connection.fetchval(SQL["told_pull_request"], *own, pull_request_of(untold.pull_request)) is None:
                return False
            head = await connection.fetchrow(SQL["lock_between"], untold.tenant_id, untold.owner_id, untold.session_id)
            chunk = seal(head["next_seq"], head["epoch"])
            await connection.execute(SQL["append_between"], *own, chunk.first_seq, chunk.last_seq, chunk.data)
        return True

    async def based_on(self, url: str, branch: str, *, days: float, limit: int) -> Sequence[Repository]:
        """See PullRequestStore."""
        async with self._system.connection() as connection:
            rows = await connection.fetch(SQL["based_on"], _spellings(url), branch, days, limit)
        return [Repository(row["tenant_id"], row["owner_id"], row["repository_url"]) for row in rows]


def _spellings(url: str) -> list[str]:
    """In lower case: to code hosts letters of both cases are the same."""
    bare = url.lower().removesuffix(".git")
    return [bare, f"{bare}.git"]
