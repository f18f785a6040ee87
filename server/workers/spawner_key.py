"""By what a server and a spawner on another machine know each other: one certificate, signed by itself, that both have with its key."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from server.refusal import StartRefused

NAME = "treadle-spawner"
"""In the certificate; addresses change."""
COMMAND = (
    f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN={NAME} "
    f"-addext subjectAltName=DNS:{NAME} -keyout spawner.pem -out spawner.crt && cat spawner.crt >>spawner.pem"
)


class KeyUnfit(StartRefused):
    """There is no such key, or it is none; the message says how to make one."""


def of_server(key: Path | None) -> grpc.ChannelCredentials:
    """To call the spawner. Errors: KeyUnfit."""
    both = _read(key)
    return grpc.ssl_channel_credentials(both, both, both)


def of_spawner(key: Path | None) -> grpc.ServerCredentials:
    """To let in who has the same. Errors: KeyUnfit."""
    both = _read(key)
    return grpc.ssl_server_credentials([(both, both)], both, require_client_auth=True)


def _read(key: Path | None) -> bytes:
    if key is None:
        raise KeyUnfit(f"TREADLE_SPAWNER_KEY is needed with TREADLE_SPAWNER_TCP; to make it: {COMMAND}")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(key)
        context.load_verify_locations(key)
        return key.read_bytes()
    except OSError as error:
        raise KeyUnfit(f"TREADLE_SPAWNER_KEY: {key} is no certificate with its key ({error}); to make it: {COMMAND}") from None
