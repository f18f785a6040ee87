"""By what a server and a spawner on another machine know each other: a certificate for each of the two, signed by itself. Each has its own
with its key, and the other's without, so whoever has the one's key cannot play the other. And by what each knows that the other is still
there."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import grpc

from server.refusal import StartRefused

SPAWNER, SERVER = "treadle-spawner", "treadle-server"
"""Names in the certificates; addresses change."""
COMMAND = (
    f"for name in {SPAWNER} {SERVER}; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=$name "
    "-addext subjectAltName=DNS:$name -keyout $name.key -out $name.crt; done; "
    f"cat {SPAWNER}.key {SPAWNER}.crt {SERVER}.crt >spawner.pem; cat {SERVER}.key {SERVER}.crt {SPAWNER}.crt >server.pem"
)

SILENCE_SECONDS = 30.0
"""Who does not answer for so long is gone: of a machine that was lost no word comes, and who waits for an end would wait for ever."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


class KeyUnfit(StartRefused):
    """There is no such key, or it is none; the message says how to make one."""


def of_server(key: Path | None) -> grpc.ChannelCredentials:
    """To call the spawner. Errors: KeyUnfit."""
    private, own, others = _read(key, own=SERVER, others=SPAWNER)
    return grpc.ssl_channel_credentials(others, private, own)


def of_spawner(key: Path | None) -> grpc.ServerCredentials:
    """To let in the server. Errors: KeyUnfit."""
    private, own, others = _read(key, own=SPAWNER, others=SERVER)
    return grpc.ssl_server_credentials([(private, own)], others, require_client_auth=True)


def keepalive(silence_seconds: float) -> dict[str, int]:
    """The options of gRPC for both sides: a question after two thirds of that time, and the rest of it for the answer."""
    third = round(silence_seconds * 1000 / 3)
    return {
        "grpc.keepalive_time_ms": 2 * third,
        # By this, and not by keepalive_timeout_ms: with that alone, grpcio 1.85 waits for a minute.
        "grpc.http2.ping_timeout_ms": third,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        # The other side asks as often.
        "grpc.http2.min_ping_interval_without_data_ms": third,
    }


def _read(key: Path | None, *, own: str, others: str) -> tuple[bytes, bytes, bytes]:
    """Its key, its certificate, the other's certificate."""
    how = f"to make both: {COMMAND}"
    if key is None:
        raise KeyUnfit(f"TREADLE_SPAWNER_KEY is needed with TREADLE_SPAWNER_TCP; {how}")
    try:
        # That the key is that of the first certificate.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(key)
        content = key.read_bytes()
        certificates = _CERTIFICATE.findall(content)
        names = [_name(each) for each in certificates]
    except (OSError, ValueError) as error:
        raise KeyUnfit(f"TREADLE_SPAWNER_KEY: {key} is no key with its certificate ({error}); {how}") from None
    if names != [own, others]:
        found = ", ".join(names)
        raise KeyUnfit(f"TREADLE_SPAWNER_KEY: {key} must have the certificates {own} (with its key) and {others}; it has {found}; {how}")
    return content, certificates[0], certificates[1]


def _name(certificate: bytes) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate.decode())
    found: list[Any] = context.get_ca_certs()
    return next((value for each in found for ((name, value),) in each["subject"] if name == "commonName"), "one without a name")
