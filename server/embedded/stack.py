"""Everything that `treadle up` runs, as one: Postgres, the sample repository, the server, the metrics page, the local user."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.embedded.keeping import kept
from server.embedded.postgres import EmbeddedPostgres
from server.embedded.room import require_room
from server.embedded.sample import Sample, sample_repository
from server.embedded.settings import GATEWAY, asked_settings, embedded_settings
from server.embedded.spawner import embedded_spawner
from server.listening import require_free
from server.replica import held_replica
from server.serving import told_others
from server.setting_forms import parts

if TYPE_CHECKING:
    from server.composition import Server
    from server.config import Settings


@dataclass(frozen=True)
class Stack:
    """The running stack."""

    server: Server
    sample: Sample
    key_file: Path
    log_file: Path | None
    metrics_url: str
    gateway_url: str
    """Empty when there is none."""
    failed: asyncio.Future[None]
    """Done, with its error, when a part that everything stands on has ended for good."""


@asynccontextmanager
async def running_stack(data_dir: Path, *, listen: str | None, say: Callable[[str], None]) -> AsyncIterator[Stack]:
    """Started in order, stopped in reverse. At the end running turns are let go, not ended: that is the caller's choice to make.
    Postgres and the gateway are started again when they die; `say` is told.

    `<data_dir>/address` and `serving.json` tell other commands where the server is and what it can do. Errors: StartRefused, OSError, and
    those of `compose`.
    """
    with held_replica(data_dir):
        # Only a look, before anything starts; the server itself holds it later.
        pass
    require_room(data_dir)
    # Most of a second goes into imports: they happen while Postgres starts in processes of its own.
    loading = asyncio.create_task(asyncio.to_thread(_load))
    async with AsyncExitStack() as stack:
        try:
            postgres = EmbeddedPostgres(data_dir)
            urls = await stack.enter_async_context(postgres)
        finally:
            await asyncio.wait({loading})
        loading.result()
        asked = asked_settings(data_dir, listen)
        sample = stack.enter_context(sample_repository(data_dir, asked.sample_port))
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stack.callback(failed.cancel)
        await stack.enter_async_context(kept(postgres, say, give_up=lambda why: _fail(failed, RuntimeError(why))))
        yield await _serve(stack, embedded_settings(asked, urls, sample), sample, failed, say)


def _fail(failed: asyncio.Future[None], error: BaseException) -> None:
    if not failed.done():
        failed.set_exception(error)


def _pass_on(server_failed: asyncio.Future[None], failed: asyncio.Future[None]) -> None:
    if not server_failed.cancelled() and (error := server_failed.exception()) is not None:
        _fail(failed, error)


def _load() -> None:
    """Import everything that the server needs."""
    import server.composition
    import server.identity.local_user
    import server.serve  # noqa: F401


async def _serve(
    stack: AsyncExitStack, settings: Settings, sample: Sample, failed: asyncio.Future[None], say: Callable[[str], None]
) -> Stack:
    from server.composition import compose
    from server.identity.local_user import ensure_local_user
    from server.serve import logs, metrics_page

    require_free(
        {
            "TREADLE_LISTEN (or --listen)": settings.listen,
            "TREADLE_METRICS_LISTEN": settings.metrics_listen,
            "TREADLE_GATEWAY_LISTEN": settings.gateway_listen,
            "TREADLE_GATEWAY_METRICS_LISTEN": settings.gateway_metrics_listen if settings.gateway_listen else "",
        }
    )
    stack.enter_context(logs(settings))
    if settings.launcher == "docker":
        await stack.enter_async_context(embedded_spawner(settings, say))
    server = await stack.enter_async_context(compose(settings))
    server.failed.add_done_callback(lambda done: _pass_on(done, failed))
    key_file = await ensure_local_user(server.stores.keys, settings.data_dir)
    metrics_url = stack.enter_context(metrics_page(settings.metrics_listen))
    gateway_url = await _gateway(stack, settings, server, say)
    stack.enter_context(told_others(settings, server))
    address_file = settings.data_dir / "address"
    address_file.write_text(server.api.address + "\n", encoding="utf-8")
    stack.callback(address_file.unlink, missing_ok=True)
    return Stack(server, sample, key_file, settings.log_file, metrics_url, gateway_url, failed)


async def _gateway(stack: AsyncExitStack, settings: Settings, server: Server, say: Callable[[str], None]) -> str:
    """Its URL; empty when the settings want none, or there is no Envoy for this machine. Errors: SettingsUnfit."""
    from gateway.addresses import parse_networks
    from gateway.config import Gateway
    from server.embedded.gateway import embedded_gateway, envoy

    program = envoy()
    if not settings.gateway_listen or program is None:
        return ""
    wanted = Gateway(
        listen=settings.gateway_listen,
        upstream=server.api.address,
        admin="",
        metrics=settings.gateway_metrics_listen or Gateway.metrics,
        origins=parts(settings.gateway_origins),
        egress_credential=settings.egress_proxy_credential.get_secret_value(),
        egress_networks=parse_networks(settings.egress_networks),
        egress_denied_networks=parse_networks(settings.egress_denied_networks),
        tls_certificate=settings.gateway_tls_certificate,
        tls_key=settings.gateway_tls_key,
        silent_seconds=max(Gateway.silent_seconds, math.ceil(4 * settings.heartbeat_seconds)),
    )
    address = await stack.enter_async_context(embedded_gateway(program, wanted, settings.data_dir / GATEWAY, say=say))
    # Before Envoy goes, streams end in order: with a word that says so.
    stack.push_async_callback(server.api.drain)
    return f"{'https' if settings.gateway_tls_certificate else 'http'}://{address}"
