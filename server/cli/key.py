"""`treadle key`: users and their API keys, by the database itself; for operators, where the server's settings are."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from server.cli.aside import aside
from server.cli.failure import CommandFailed, ExitCode
from server.kernel.errors import StoreRejected, StoreUnavailable
from server.kernel.identity import Principal
from server.refusal import SettingsUnfit, StartRefused

if TYPE_CHECKING:
    from server.kernel.ports.key_store import KeyStore

_PREFIX = 8
_SETTING = "TREADLE_DATABASE_SYSTEM_URL"


def run(options: argparse.Namespace) -> ExitCode:
    """Print the key alone, so that a script can keep it. Errors: CommandFailed."""
    if not options.user and not options.list:
        raise CommandFailed("whose key? `treadle key USER`", ExitCode.REFUSED)
    from server.db.errors import with_cause
    from server.environment import settings_of_environment

    try:
        url = settings_of_environment().database_system_url.get_secret_value()
    except SettingsUnfit as error:
        raise CommandFailed(str(error), ExitCode.REFUSED) from None
    if not url:
        raise CommandFailed(f"{_SETTING} is needed; run it where the server's settings are", ExitCode.REFUSED)
    user = Principal(options.tenant, options.user, options.name or options.user, options.email or f"{options.user}@treadle.invalid")
    try:
        return asyncio.run(_asked(options, url, user))
    except StartRefused as error:
        raise CommandFailed(str(error), ExitCode.REFUSED) from None
    except StoreUnavailable as error:
        raise CommandFailed(with_cause(error), ExitCode.UNREACHABLE) from None
    except StoreRejected as error:
        raise CommandFailed(error.message, ExitCode.REFUSED) from None


async def _asked(options: argparse.Namespace, url: str, user: Principal) -> ExitCode:
    from server.db.key_store import PostgresKeyStore
    from server.db.pool import open_database

    async with open_database(url, name="key", setting=_SETTING, size=1) as database:
        keys = PostgresKeyStore(database)
        if options.list:
            await _list(keys, user)
        elif options.revoke or options.revoke_all:
            await _revoke(keys, user, options.revoke)
        else:
            await _make(keys, user, options.days)
    return ExitCode.DONE


async def _make(keys: KeyStore, user: Principal, days: int | None) -> None:
    from server.identity.keys import create_key

    await keys.ensure_user(user)
    print(await create_key(keys, user, expires_at=datetime.now(UTC) + timedelta(days=days) if days else None))


async def _list(keys: KeyStore, user: Principal) -> None:
    """A line each: how the key begins, since when it is there, whose it is, when it ends and when it was last used."""
    for key in await keys.of_tenant(user.tenant_id):
        if user.user_id in ("", key.user_id):
            used = f"used {_time(key.last_used_at)}" if key.last_used_at else "never used"
            print(f"trd_{key.prefix}  {_time(key.created_at)}  {key.user_id}  {_end(key.expires_at)}  {used}")


def _end(expires_at: datetime | None) -> str:
    if expires_at is None:
        return "does not expire"
    return f"{'EXPIRED' if expires_at <= datetime.now(UTC) else 'expires'} {_time(expires_at)}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


async def _revoke(keys: KeyStore, user: Principal, key: str) -> None:
    """That key, or all of the user's."""
    from server.identity.keys import revoke_key

    prefixes = [key.removeprefix("trd_")[:_PREFIX]]
    if not key:
        prefixes = [each.prefix for each in await keys.of_tenant(user.tenant_id) if each.user_id == user.user_id]
    ended = [prefix for prefix in prefixes if await revoke_key(keys, user, prefix)]
    if not ended:
        raise CommandFailed(f"{user.user_id} of tenant {user.tenant_id} has no {'such ' if key else ''}key", ExitCode.REFUSED)
    aside(f"{'revoked' if key else f'{len(ended)} revoked'}; every server knows within a minute")
