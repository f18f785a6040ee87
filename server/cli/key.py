"""`treadle key`: users and their API keys, by the database itself; for operators, beside the server."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from server.cli.aside import aside
from server.cli.beside import settings_beside
from server.cli.failure import CommandFailed, ExitCode
from server.kernel.errors import StoreRejected, StoreUnavailable
from server.kernel.identity import Principal
from server.refusal import SettingsUnfit, StartRefused

if TYPE_CHECKING:
    from server.kernel.ports.key_store import KeyStore

_PREFIX = 8
_TENANT = "local"
_SETTING = "TREADLE_DATABASE_SYSTEM_URL"
_SOON = "every server knows within a minute"


def run(options: argparse.Namespace) -> ExitCode:
    """Print the key alone, so that a script can keep it. Errors: CommandFailed."""
    if not options.user and not options.list and not options.revoke:
        raise CommandFailed("whose key? `treadle key USER`", ExitCode.REFUSED)
    from server.db.errors import with_cause

    try:
        url = settings_beside(options).database_system_url.get_secret_value()
    except SettingsUnfit as error:
        raise CommandFailed(str(error), ExitCode.REFUSED) from None
    try:
        return asyncio.run(_asked(options, url))
    except StartRefused as error:
        raise CommandFailed(str(error), ExitCode.REFUSED) from None
    except StoreUnavailable as error:
        raise CommandFailed(with_cause(error), ExitCode.UNREACHABLE) from None
    except StoreRejected as error:
        raise CommandFailed(error.message, ExitCode.REFUSED) from None


async def _asked(options: argparse.Namespace, url: str) -> ExitCode:
    from server.db.key_store import PostgresKeyStore
    from server.db.pool import open_database

    async with open_database(url, name="key", setting=_SETTING, size=1) as database:
        keys = PostgresKeyStore(database)
        if options.list:
            await _list(keys, options.tenant, options.user)
        elif options.revoke:
            await _revoke(keys, options.tenant, options.user, options.revoke)
        elif options.revoke_all:
            await _revoke_all(keys, options.tenant or _TENANT, options.user)
        else:
            name, email = options.name or options.user, options.email or f"{options.user}@treadle.invalid"
            await _make(keys, Principal(options.tenant or _TENANT, options.user, name, email), options.days)
    return ExitCode.DONE


async def _make(keys: KeyStore, user: Principal, days: int | None) -> None:
    from server.identity.keys import create_key

    if await keys.ensure_user(user):
        # A slip of the pen is one, too.
        aside(f"a new user is made: {user.user_id!r}, of tenant {user.tenant_id}")
    print(await create_key(keys, user, expires_at=datetime.now(UTC) + timedelta(days=days) if days else None))


async def _list(keys: KeyStore, tenant: str, user: str) -> None:
    """A line each: how the key begins, since when it is there, whose it is, when it ends and when it was last used."""
    found = await keys.in_force(tenant, user)
    if not found:
        raise _none(tenant, user)
    for key in found:
        used = f"used {_time(key.last_used_at)}" if key.last_used_at else "never used"
        print(f"trd_{key.prefix}  {_time(key.created_at)}  {key.tenant_id}  {key.user_id}  {_end(key.expires_at)}  {used}")


def _end(expires_at: datetime | None) -> str:
    if expires_at is None:
        return "does not expire"
    return f"{'EXPIRED' if expires_at <= datetime.now(UTC) else 'expires'} {_time(expires_at)}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


async def _revoke(keys: KeyStore, tenant: str, user: str, key: str) -> None:
    """That one. Whose it is need not be known."""
    from server.identity.keys import revoke_key

    prefix = key.removeprefix("trd_")[:_PREFIX]
    record = await keys.find(prefix)
    owner = record.owner if record and tenant in ("", record.owner.tenant_id) and user in ("", record.owner.user_id) else None
    if owner is None or not await revoke_key(keys, owner, prefix):
        raise _none(tenant, user, such="such ")
    aside(f"revoked: a key of {owner.user_id} (tenant {owner.tenant_id}); {_SOON}")


async def _revoke_all(keys: KeyStore, tenant: str, user: str) -> None:
    from server.identity.keys import revoke_key

    owner = Principal(tenant, user, "", "")
    ended = [key for key in await keys.in_force(tenant, user) if await revoke_key(keys, owner, key.prefix)]
    if not ended:
        raise _none(tenant, user)
    aside(f"{len(ended)} revoked; {_SOON}")


def _none(tenant: str, user: str, *, such: str = "") -> CommandFailed:
    whose = f"{f' of {user}' if user else ''}{f' in tenant {tenant}' if tenant else ''}"
    return CommandFailed(f"there is no {such}key{whose}", ExitCode.REFUSED)
