"""The two roles that a server connects as, and the check that neither can do more than it should.

An operator makes them once, as a role with CREATEROLE, before the first migration:

    CREATE ROLE treadle_app LOGIN PASSWORD '...';
    CREATE ROLE treadle_system LOGIN PASSWORD '...';

`ensure_roles` does the same.
"""

from __future__ import annotations

import asyncpg

from server.db.errors import RoleTooPowerful

APP = "treadle_app"
"""Callers' queries: row-level security shows it one tenant, and it has the few rights that RPC handlers need."""
SYSTEM = "treadle_system"
"""Journal, leases, sweeps, authentication: all tenants, but no rights beyond those tables. No RPC handler reaches it."""

# Rights over the tables' owner would include switching row-level security off.
_POWERS = """
SELECT r.rolname AS role, r.rolsuper AS superuser, r.rolbypassrls AS bypass,
       EXISTS (SELECT FROM pg_class c WHERE c.relkind = 'r' AND c.relname <> 'alembic_version'
                 AND c.relnamespace = current_schema()::regnamespace AND pg_has_role(r.oid, c.relowner, 'MEMBER')) AS owner,
       EXISTS (SELECT FROM pg_roles s WHERE s.rolname = $1 AND s.oid <> r.oid AND pg_has_role(r.oid, s.oid, 'MEMBER')) AS system
FROM pg_roles r WHERE r.rolname = current_user
"""
_UNPROTECTED = """
SELECT c.relname FROM pg_class c
WHERE c.relkind = 'r' AND c.relname <> 'alembic_version' AND c.relnamespace = current_schema()::regnamespace
  AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
"""


async def ensure_roles(owner: asyncpg.Connection, app_password: str | None, system_password: str | None) -> None:
    """Make the roles where they are missing, and set their passwords where one is given (None: another way to log in)."""
    for role, password in ((APP, app_password), (SYSTEM, system_password)):
        if not await owner.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
            await owner.execute(f"CREATE ROLE {role} LOGIN")
        if password is not None:
            await owner.execute(await owner.fetchval("SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role, password))


async def check_role(connection: asyncpg.Connection, *, role: str) -> None:
    """Errors: RoleTooPowerful when the connection is not `role`'s, or could see rows of every tenant by other means than a policy."""
    powers = await connection.fetchrow(_POWERS, SYSTEM)
    if powers["role"] != role:
        raise RoleTooPowerful(powers["role"], f"is not {role}")
    reasons = {
        "superuser": "is a superuser",
        "bypass": "has BYPASSRLS",
        "owner": "owns the tables",
        "system": f"is a member of {SYSTEM}",
    }
    for power, reason in reasons.items():
        if powers[power]:
            raise RoleTooPowerful(powers["role"], reason)
    unprotected = await connection.fetch(_UNPROTECTED)
    if unprotected:
        raise RoleTooPowerful(powers["role"], f"finds row-level security off on {', '.join(row['relname'] for row in unprotected)}")
