"""The environment as settings: what is wrong with it stops a start, all at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from server.config import Settings, invalid_settings
from server.gateway_settings import GatewaySettings
from server.refusal import SettingsUnfit
from server.spawner.settings import SpawnerSettings

S = TypeVar("S", bound=BaseSettings)

_PREFIX = "TREADLE_"
_SECRETS = "SECRETS_DIR"
"""A directory of files that are named as variables are, in small letters, and hold their values: how secrets of a Swarm arrive."""
_CLIENTS = ("ADDRESS", "API_KEY", "API_KEY_FILE")
"""Read by the commands that call a server, and by the Python client."""

_LINKS = re.compile(r"TREADLE(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)")
_LINK = re.compile(r"(tcp|udp)://")
"""What Kubernetes gives every container of a namespace that has a service `treadle` (or `treadle-gateway`), and Docker its links; the
variable that ends in `_PORT` holds a URL."""


def settings_of_environment(**given: Any) -> Settings:
    """The server's settings by the environment; `given` ones count before it. Errors: SettingsUnfit."""
    return _of_environment(Settings, given)


def spawner_settings_of_environment() -> SpawnerSettings:
    """The spawner's. Errors: SettingsUnfit."""
    return _of_environment(SpawnerSettings, {})


def gateway_settings_of_environment() -> GatewaySettings:
    """Those of a gateway that runs by itself. Errors: SettingsUnfit."""
    return _of_environment(GatewaySettings, {})


def set_in_vain(settings: Settings) -> list[str]:
    """One sentence for each variable that only a spawner reads, where that has an environment of its own: a limit that is set here only
    is none."""
    if settings.launcher == "process" or not (settings.spawner_socket or settings.spawner_tcp):
        return []
    spawners = {*SpawnerSettings.model_fields} - {*Settings.model_fields} | {"worker_memory_mib"}
    return [
        f"{name}: the spawner reads it, and not this server; set it where the spawner gets its settings (docs/operations.md), and not here"
        for name in sorted(os.environ)
        if name.upper().startswith(_PREFIX) and name.upper().removeprefix(_PREFIX).lower() in spawners
    ]


def _of_environment(kind: type[S], given: Mapping[str, Any]) -> S:
    secrets = os.environ.get(_PREFIX + _SECRETS) or None
    wrong = unknown_settings(os.environ | _files(secrets))
    try:
        settings = kind(_secrets_dir=secrets, **given)
    except ValidationError as error:
        wrong = [*invalid_settings(error, kind), *wrong]
    if wrong:
        raise SettingsUnfit("\n  ".join(wrong))
    return settings


def _files(secrets: str | None) -> dict[str, str]:
    """Those that should set something; others may be there, too."""
    names = os.listdir(secrets) if secrets and os.path.isdir(secrets) else []  # noqa: PTH208, PTH112
    return {name: "" for name in names if name.upper().startswith(_PREFIX)}


def unknown_settings(environment: Mapping[str, str]) -> list[str]:
    """One sentence for each variable that would set nothing: a limit with a slip in its name is none. Their values may be secrets."""
    known = [*(name.upper() for kind in (Settings, SpawnerSettings, GatewaySettings) for name in kind.model_fields), *_CLIENTS, _SECRETS]
    told = []
    for name in sorted(environment):
        # Case makes no difference to those that are known, either.
        upper = name.upper()
        wanted = upper.removeprefix(_PREFIX)
        if upper.startswith(_PREFIX) and wanted not in known and not _is_link(upper, environment[name]):
            near = get_close_matches(wanted, known, n=1)
            hint = f"; is {_PREFIX}{near[0]} meant?" if near else " (docs/configuration.md lists all)"
            told.append(f"{name}: there is no such setting{hint}")
    return told


def _is_link(name: str, value: str) -> bool:
    return bool(_LINKS.fullmatch(name) or (name.endswith("_PORT") and _LINK.match(value)))
