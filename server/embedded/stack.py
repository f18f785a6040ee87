"""Everything that `treadle up` runs, as one: Postgres, the sample repository, the server, the metrics page, the local user."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.embedded.postgres import EmbeddedPostgres
from server.embedded.postgres_home import DatabaseUrls
from server.embedded.sample import Sample, sample_repository
from server.replica import held_replica

if TYPE_CHECKING:
    from server.composition import Server
    from server.config import Settings

_LOG_LIMIT = 8 << 20


class SettingsUnfit(Exception):
    """The settings do not work here; the message says which, and what to do."""


@dataclass(frozen=True)
class Stack:
    """The running stack."""

    server: Server
    sample: Sample
    key_file: Path
    log_file: Path | None
    metrics_url: str


@asynccontextmanager
async def running_stack(data_dir: Path, *, listen: str | None) -> AsyncIterator[Stack]:
    """Started in order, stopped in reverse. At the end running turns are let go, not ended: that is the caller's choice to make.

    `<data_dir>/address` tells other commands where the server is. Errors: DataDirectoryTaken, SettingsUnfit, PostgresUnusable,
    SampleUnusable, OSError, and those of `compose`.
    """
    with held_replica(data_dir):
        # Only a look, before anything starts; the server itself holds it later.
        pass
    # Most of a second goes into imports: they happen while Postgres starts in processes of its own.
    loading = asyncio.create_task(asyncio.to_thread(_load))
    async with AsyncExitStack() as stack:
        try:
            urls = await stack.enter_async_context(EmbeddedPostgres(data_dir))
            sample = stack.enter_context(sample_repository(data_dir))
        finally:
            await asyncio.wait({loading})
        loading.result()
        yield await _serve(stack, _settings(data_dir, listen, urls, sample), sample)


def _load() -> None:
    """Import everything that the server needs."""
    import server.composition
    import server.identity.local_user
    import server.serve  # noqa: F401


def _settings(data_dir: Path, listen: str | None, urls: DatabaseUrls, sample: Sample) -> Settings:
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
        raise SettingsUnfit("; ".join(f"TREADLE_{_name(each)}: {each['msg']}" for each in error.errors())) from None


def _name(error: Mapping[str, Any]) -> str:
    return str(error["loc"][0]).upper()


def _rotated(log: Path) -> Path:
    """One old log is kept."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.rename(log.with_name(f"{log.name}.1"))
    return log


def _require_free(name: str, address: str) -> None:
    """Errors: SettingsUnfit, with a better sentence than the one gRPC has."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, ValueError, OverflowError) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        raise SettingsUnfit(f"{address} cannot be listened on ({reason}); choose another with {name}") from None


async def _serve(stack: AsyncExitStack, settings: Settings, sample: Sample) -> Stack:
    from server.composition import compose
    from server.identity.local_user import ensure_local_user
    from server.serve import logs, metrics_page

    for name, address in (("TREADLE_LISTEN (or --listen)", settings.listen), ("TREADLE_METRICS_LISTEN", settings.metrics_listen)):
        if address:
            _require_free(name, address)
    stack.enter_context(logs(settings))
    server = await stack.enter_async_context(compose(settings))
    key_file = await ensure_local_user(server.stores.keys, settings.data_dir)
    metrics_url = stack.enter_context(metrics_page(settings.metrics_listen))
    address_file = settings.data_dir / "address"
    address_file.write_text(server.api.address + "\n", encoding="utf-8")
    stack.callback(address_file.unlink, missing_ok=True)
    return Stack(server, sample, key_file, settings.log_file, metrics_url)
