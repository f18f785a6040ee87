"""The settings of a server, for commands that work beside it, on its database: those of the environment, or of a `treadle up`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.data_dir import chosen_data_dir

if TYPE_CHECKING:
    from server.config import Settings


def settings_beside(options: argparse.Namespace, **given: Any) -> Settings:
    """With the database of the `treadle up` that runs in the data directory, where the environment names none, and with the repositories
    that it lets sessions have, whatever this shell allows. Errors: CommandFailed, SettingsUnfit."""
    from pydantic import SecretStr

    from server.embedded.postgres_home import running_database
    from server.environment import settings_of_environment
    from server.serving import read_serving

    data_dir = chosen_data_dir(options.data_dir)
    settings = settings_of_environment(data_dir=data_dir, **given)
    if settings.database_system_url.get_secret_value():
        return settings
    urls = running_database(data_dir)
    if urls is None:
        raise CommandFailed(_none(data_dir), ExitCode.REFUSED)
    beside: dict[str, Any] = {"database_url": SecretStr(urls.app), "database_system_url": SecretStr(urls.system)}
    serving = read_serving(data_dir)
    if serving and serving.git_allowed_hosts is not None:
        beside |= {"git_allowed_hosts": serving.git_allowed_hosts, "git_allowed_prefixes": serving.git_allowed_prefixes}
    return settings.model_copy(update=beside)


def _none(data_dir: Path) -> str:
    return (
        f"no database is known: TREADLE_DATABASE_SYSTEM_URL is not set, and no `treadle up` runs in {data_dir}\n"
        "  run it where the server's settings are, or name the directory of a `treadle up` with --data-dir\n"
        f"  to start one there: {typed('up', data_dir)}"
    )
