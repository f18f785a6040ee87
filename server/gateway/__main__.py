"""`python -m server.gateway`: in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import ssl
import sys

_DONE, _FAILED, _REFUSED = 0, 1, 2
_HEALTH_SECONDS = 5.0


def main() -> int:
    """Exit code 0 after SIGTERM or SIGINT, 1 when Envoy ended by itself (or is not healthy), 2 when it cannot start like this."""
    parser = argparse.ArgumentParser(
        prog="python -m server.gateway",
        description="The gateway by itself: Envoy, in the current directory, which it owns.",
        epilog="Every setting is an environment variable, listed in docs/configuration.md.",
    )
    parser.add_argument("--healthy", action="store_true", help="only ask the one that runs here whether it answers")
    parser.add_argument("--validate", action="store_true", help="only have Envoy look at the configuration")
    options = parser.parse_args()
    if options.healthy:
        return _healthy()
    from server.environment import gateway_settings_of_environment
    from server.gateway.serve import found_envoy, serve, validate
    from server.refusal import StartRefused

    try:
        settings, program = gateway_settings_of_environment(), found_envoy()
        if options.validate:
            return validate(program, settings)
        return _DONE if asyncio.run(serve(program, settings, _say)) else _FAILED
    except StartRefused as error:
        _say(str(error), level="error")
        return _REFUSED


def _healthy() -> int:
    """Whether Envoy answers; that no server behind it takes calls is no reason to end it, and /healthz tells.
    Asked every few seconds, so nothing is loaded that this does not need."""
    _, _, port = os.environ.get("TREADLE_GATEWAY_LISTEN", "127.0.0.1:7430").rpartition(":")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_HEALTH_SECONDS)
    if os.environ.get("TREADLE_GATEWAY_TLS_CERTIFICATE"):
        # It is ourselves that we ask, by an address that no certificate has.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", int(port), timeout=_HEALTH_SECONDS, context=context)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        _say(f"it does not answer: {error}", level="error")
        return _FAILED
    finally:
        connection.close()
    return _DONE


def _say(words: str, *, level: str = "info") -> None:
    from server.refusal import tell

    tell("gateway", words, level=level)


if __name__ == "__main__":
    sys.exit(main())
