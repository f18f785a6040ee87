"""A database that was just made becomes one that a server runs on: what an operator would do by hand (see roles.py)."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import asyncpg

from server.config import Settings
from server.db.migrate import migrate
from server.db.pool import CONNECT_SECONDS, refused_logins, translated_errors
from server.db.roles import ensure_roles


async def prepare_database(settings: Settings) -> None:
    """The roles, with the passwords that the server will show, and the newest tables. Repeatable, also beside a server that runs.
    Errors: StoreUnavailable, StoreRejected, LoginRefused."""
    owner_url = settings.database_owner_url.get_secret_value()
    passwords = [_password(url.get_secret_value()) for url in (settings.database_url, settings.database_system_url)]
    with translated_errors(), refused_logins("TREADLE_DATABASE_OWNER_URL"):
        owner = await asyncpg.connect(owner_url, timeout=CONNECT_SECONDS)
        try:
            await ensure_roles(owner, *passwords)
        finally:
            await owner.close(timeout=CONNECT_SECONDS)
        await migrate(owner_url)


def _password(url: str) -> str | None:
    password = urlsplit(url).password
    return unquote(password) if password else None
