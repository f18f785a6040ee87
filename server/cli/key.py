"""`treadle key`: users and their API keys, by the database itself; for operators, where the server's settings are."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.aside import aside
from server.cli.failure import CommandFailed, ExitCode
from server.kernel.errors import StoreRejected, StoreUnavailable
from server.kernel.identity import Principal
from server.refusal import SettingsUnfit, StartRefused

_PREFIX = 8
_SETTING = "TREADLE_DATABASE_SYSTEM_URL"


def run(options: argparse.Namespace) -> ExitCode:
    """Print the key alone, so that a script can keep it. Errors: CommandFailed."""
    from server.environment import settings_of_environment

    try:
        url = settings_of_environment().database_system_url.get_secret_value()
    except SettingsUnfit as error:
        raise CommandFailed(str(error), ExitCode.REFUSED) from None
    if not url:
        raise CommandFailed(f"{_SETTING} is needed; run it where the server's settings are", ExitCode.REFUSED)
    user = Principal(options.tenant, options.user, options.name or options.user, options.email or f"{options.user}@treadle.invalid")
    try:
        return asyncio.run(_revoke(url, user, options.revoke) if options.revoke else _make(url, user))
    except StartRefused as error:
        raise CommandFailed(str(error), ExitCode.REFUSED) from None
    except StoreUnavailable as error:
        raise CommandFailed(f"{error.message}{f' ({error.__cause__})' if error.__cause__ else ''}", ExitCode.UNREACHABLE) from None
    except StoreRejected as error:
        raise CommandFailed(error.message, ExitCode.REFUSED) from None


async def _make(url: str, user: Principal) -> ExitCode:
    from server.db.key_store import PostgresKeyStore
    from server.db.pool import open_database
    from server.identity.keys import create_key

    async with open_database(url, name="key", setting=_SETTING, size=1) as database:
        keys = PostgresKeyStore(database)
        await keys.ensure_user(user)
        print(await create_key(keys, user))
    return ExitCode.DONE


async def _revoke(url: str, user: Principal, key: str) -> ExitCode:
    from server.db.key_store import PostgresKeyStore
    from server.db.pool import open_database
    from server.identity.keys import revoke_key

    async with open_database(url, name="key", setting=_SETTING, size=1) as database:
        if not await revoke_key(PostgresKeyStore(database), user, key.removeprefix("trd_")[:_PREFIX]):
            raise CommandFailed(f"{user.user_id} of tenant {user.tenant_id} has no such key", ExitCode.REFUSED)
    aside("revoked; every server knows within a minute")
    return ExitCode.DONE
