"""The settings of an embedded stack: those of the environment, with what the stack itself brings."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.embedded.postgres_home import DatabaseUrls
from server.embedded.sample import Sample
from server.refusal import SettingsUnfit

if TYPE_CHECKING:
    from server.config import Settings

GATEWAY = "gateway"
"""Where in the data directory the gateway works."""
_LOG_LIMIT = 8 << 20


def asked_settings(data_dir: Path, listen: str | None) -> Settings:
    """The environment's settings and the options. Errors: SettingsUnfit."""
    from server.environment import settings_of_environment

    given: dict[str, Any] = {"listen": listen} if listen else {}
    asked = settings_of_environment(data_dir=data_dir, **given)
    if asked.database_url.get_secret_value():
        raise SettingsUnfit("TREADLE_DATABASE_URL is set, but `treadle up` brings its own Postgres; unset it, or use `python -m server`")
    return asked


def embedded_settings(asked: Settings, urls: DatabaseUrls, sample: Sample) -> Settings:
    """With what the stack brings."""
    from pydantic import SecretStr

    return asked.model_copy(
        update={
            "database_url": SecretStr(urls.app),
            "database_system_url": SecretStr(urls.system),
            "database_owner_url": SecretStr(urls.owner),
            "git_allowed_prefixes": ",".join(filter(None, (asked.git_allowed_prefixes, *sample.prefixes))),
            **_way_out(asked),
            "log_file": asked.log_file or _rotated(asked.data_dir / "server.log"),
        }
    )


def _way_out(asked: Settings) -> dict[str, object]:
    """Where the gateway lets workers out, and a credential that lasts as long as the stack; nothing where there is no gateway, or the
    settings name another one."""
    from pydantic import SecretStr

    from server.embedded.gateway import envoy
    from server.embedded.gateway_home import EGRESS

    if asked.egress_proxy or not asked.gateway_listen or envoy() is None:
        return {}
    place = asked.data_dir.absolute() / GATEWAY / EGRESS
    return {"egress_proxy": str(place), "egress_proxy_credential": SecretStr(secrets.token_hex(32))}


def _rotated(log: Path) -> Path:
    """One old log is kept."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.rename(log.with_name(f"{log.name}.1"))
    return log
