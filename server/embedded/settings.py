"""The settings of an embedded stack: those of the environment, with what the stack itself brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from server.embedded.postgres_home import DatabaseUrls
from server.embedded.sample import Sample

if TYPE_CHECKING:
    from pydantic import ValidationError

    from server.config import Settings

_LOG_LIMIT = 8 << 20


class SettingsUnfit(Exception):
    """The settings do not work here; the message says which, and what to do."""


def embedded_settings(data_dir: Path, listen: str | None, urls: DatabaseUrls, sample: Sample) -> Settings:
    """The environment's settings with what the stack brings. Errors: SettingsUnfit."""
    from pydantic import SecretStr, ValidationError

    from server.config import Settings

    try:
        asked = Settings(data_dir=data_dir)
        if asked.database_url.get_secret_value():
            raise SettingsUnfit(
                "TREADLE_DATABASE_URL is set, but `treadle up` brings its own Postgres; unset it, or use `python -m server`"
            )
        return asked.model_copy(
            update={
                "listen": listen or asked.listen,
                "database_url": SecretStr(urls.app),
                "database_system_url": SecretStr(urls.system),
                "database_owner_url": SecretStr(urls.owner),
                "git_allowed_prefixes": ",".join(filter(None, (asked.git_allowed_prefixes, sample.prefix))),
                "log_file": asked.log_file or _rotated(data_dir / "server.log"),
            }
        )
    except ValidationError as error:
        raise SettingsUnfit(invalid_settings(error)) from None


def invalid_settings(error: ValidationError) -> str:
    """One sentence for each setting that does not fit."""
    return "; ".join(f"TREADLE_{str(each['loc'][0]).upper()}: {each['msg'].lower()}" for each in error.errors())


def _rotated(log: Path) -> Path:
    """One old log is kept."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.rename(log.with_name(f"{log.name}.1"))
    return log
