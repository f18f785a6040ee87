"""Where the server is and who calls: from arguments, else from the environment."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from treadle_client.errors import ConfigurationError

VERSION = "0.1.0"

_MAX_FRAME_BYTES = 16 * 1024 * 1024
_SILENCE_MS = 20_000
_ANSWER_MS = 10_000
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Target:
    """A server and a key; the key is in no repr."""

    address: str
    """`host:port`."""
    api_key: str = field(repr=False)
    credentials: grpc.ChannelCredentials | None = field(repr=False)
    """For TLS; None for a connection in plain text."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Goes with every call."""
        return (("authorization", f"Bearer {self.api_key}"),)

    @property
    def options(self) -> tuple[tuple[str, str | int], ...]:
        """How a channel to it behaves."""
        return (
            ("grpc.primary_user_agent", f"treadle-client/{VERSION}"),
            ("grpc.max_receive_message_length", _MAX_FRAME_BYTES),
            # Without it channels of a process share connections: one client's close would not close, and its options not count.
            ("grpc.use_local_subchannel_pool", 1),
            # A server in plain text is on one's own machine or network: a proxy for the internet only stands in the way.
            ("grpc.enable_http_proxy", int(self.credentials is not None)),
            # A dead connection is noticed within half a minute, also while nothing is sent on it.
            ("grpc.keepalive_time_ms", _SILENCE_MS),
            ("grpc.keepalive_timeout_ms", _ANSWER_MS),
            # The same for newer grpcio: by the line above alone, 1.85 waits for a minute.
            ("grpc.http2.ping_timeout_ms", _ANSWER_MS),
            ("grpc.http2.max_pings_without_data", 0),
            # A server that was restarted is found again at once.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        )


def find_target(
    address: str | None,
    api_key: str | None,
    *,
    ca_file: str | os.PathLike[str] | None,
    credentials: grpc.ChannelCredentials | None,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """Errors: ConfigurationError."""
    where = address or environment.get("TREADLE_ADDRESS")
    if not where:
        raise ConfigurationError(
            "no address: give `address`, or set TREADLE_ADDRESS, for example 127.0.0.1:7430 or https://treadle.example.org"
        )
    host_and_port, tls = parse_address(where)
    if not tls and (ca_file is not None or credentials is not None):
        raise ConfigurationError(f"ca_file and credentials are for TLS, and {where!r} is not an https:// address")
    if tls and credentials is None:
        trusted = ca_file or environment.get("TREADLE_CA_FILE")
        credentials = grpc.ssl_channel_credentials(_certificates(Path(trusted).expanduser()) if trusted else None)
    return Target(host_and_port, find_api_key(api_key, environment), credentials)


def parse_address(address: str) -> tuple[str, bool]:
    """(`host:port`, whether TLS is spoken): of `host:port`, `http://host[:port]` or `https://host[:port]`. Errors: ConfigurationError."""
    text = address.strip().rstrip("/")
    parts = urlsplit(text if "://" in text else f"//{text}")
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        port = None
    odd = parts.path or parts.query or parts.fragment or parts.username is not None or any(map(str.isspace, text))
    if parts.scheme not in ("", *_DEFAULT_PORTS) or not parts.hostname or odd:
        raise ConfigurationError(f"{address!r} is no address: host:port, http://host:port or https://host:port is needed")
    if port is None:
        raise ConfigurationError(f"{address!r} has no port; the gateway's is 7430 unless it was set otherwise")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}", parts.scheme == "https"


def find_api_key(api_key: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The argument, else TREADLE_API_KEY, else what is in the file that TREADLE_API_KEY_FILE names. Errors: ConfigurationError."""
    key = api_key or environment.get("TREADLE_API_KEY")
    if not key and (file := environment.get("TREADLE_API_KEY_FILE")):
        key = _read(Path(file).expanduser()).decode(errors="replace")
    key = (key or "").strip()
    if not key:
        raise ConfigurationError("no API key: give `api_key`, or set TREADLE_API_KEY or TREADLE_API_KEY_FILE")
    if not (key.isascii() and key.isprintable()) or " " in key:
        # Not shown: most of it may be the real one.
        raise ConfigurationError("the API key holds characters that no key has")
    return key


def _certificates(path: Path) -> bytes:
    pem = _read(path)
    try:
        # gRPC would tell of a bad file no sooner than by a failed connection.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode())
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(f"{path} holds no certificates in PEM") from None
    return pem


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
