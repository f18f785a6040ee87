"""Envoy's configuration from its template."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from gateway.addresses import Network, permission
from gateway.local_replies import CLIENT_CONTENT_TYPE, failures, local_replies
from gateway.strict_json import strict_json

_HERE = Path(__file__).parent
_DESCRIPTORS = _HERE / "descriptors.binpb"
_SECRET = "certificate"  # noqa: S105 - its name

_SERVICES = (
    "treadle.session.v1.SessionService",
    "treadle.session.v1.EventStreamService",
    "treadle.account.v1.CredentialService",
    "treadle.git.v1.GitService",
    "treadle.git.v1.WebhookService",
    "treadle.file.v1.FileService",
)

# The transcoder calls a stream of objects `application/json`, which one object per line is not.
_JSON_LINES = """
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get(":status") == "200" and headers:get("content-type") == "application/json" then
    headers:replace("content-type", "application/jsonl")
  end
end
"""

# In these headers other systems tell each other who calls. Nothing here believes them, and nobody shall begin to.
_CLAIMS = ("x-user-id", "x-tenant-id", "x-forwarded-user", "x-forwarded-email", "x-remote-user", "x-auth-request-user")


# gRPC answers with INTERNAL to names that HTTP allows and it does not, and to binary headers that are none; nothing here reads any.
_NOT_FOR_GRPC = (".*[^0-9a-z_.:-].*", ".+-bin")
# The same for its own headers, where no gRPC client is at the other end.
_GRPC_HEADERS = ("grpc-timeout", "grpc-encoding")

# For proxies between here and a client: a stream that is kept until it ends is none.
_UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}

# An address counts as a name here, and is forgotten soon: there may be many of them.
_EGRESS_ADDRESSES = {"name": "egress", "dns_lookup_family": "ALL", "host_ttl": "30s", "max_hosts": 65536}

# Only what never reached the server is tried again: no request is made twice.
_RETRIES = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"},
}


@dataclass(frozen=True)
class Gateway:
    """What a gateway needs to know. Addresses are `host:port`."""

    listen: str
    upstream: str
    """The main server's gRPC API; a name is looked up again and again."""
    admin: Path | str
    """Envoy's own control: a unix socket, or an address on loopback. Never reachable from outside."""
    metrics: Path | str = Path("run/metrics.sock")
    """Where `/metrics` for Prometheus is: a unix socket, or an address that only those reach who may read it."""
    origins: Sequence[str] = ()
    """Pages that may call, exactly as browsers send them: `https://example.org`."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    """In the same directory: both are read again when something is renamed in there."""
    tls_secret: Path = Path("tls/secret.yaml")
    """Where `render_secret` is written to: in a directory, for Envoy knows no bare names here."""
    descriptors: Path = _DESCRIPTORS
    """Of the services whose JSON is turned into messages."""
    requests_per_second: int = 2000
    """Of all clients together; for a moment twice as many."""
    client_requests_per_second: int = 500
    """Of one address (of one /64 network of IPv6)."""
    max_request_bytes: int = 16 * 1024 * 1024
    max_json_bytes: int = 1_300_000
    """A request over HTTP is held here until it is whole, thrice while it is parsed. The longest prompt, all escaped, has 1.2 MB."""
    max_stranger_bytes: int = 16 * 1024
    """What is taken of a request before anybody knows who calls."""
    max_webhook_bytes: int = 1_000_000
    """Of a code host's delivery, of which nothing is known before it is whole: that is what is signed."""
    webhook_seconds: int = 10
    """In which a delivery has to be here and answered. GitHub waits no longer either."""
    webhooks_per_second: int = 20
    """Of all addresses together, and of one half as many; for a moment twice that. So strangers make it hold (2 + seconds) times as many at
    most."""
    max_headers_kib: int = 16
    """The server's gRPC takes no more of them."""
    request_seconds: int = 30
    """In which a request has to be there as a whole."""
    silent_seconds: int = 300
    """A stream on which nothing comes through for this long is not being read: the server's heartbeats are more frequent."""
    max_connections: int = 10_000
    egress: Path | str = Path("run/egress.sock")
    """Where the server's doors for workers come to (gateway/envoy.yaml tells more): a unix socket, or an address that only servers
    reach."""
    egress_credential: str = field(default="", repr=False)
    """What they show; empty: nobody gets out."""
    egress_networks: Sequence[Network] = ()
    """Private networks that they may reach all the same."""
    egress_denied_networks: Sequence[Network] = ()
    """What they never reach, public or not."""
    egress_idle_seconds: int = 300
    egress_connect_seconds: int = 5
    max_egress_connections: int = 4096
    max_heap_bytes: int = 1024 * 1024 * 1024
    """Close to it the streams that hold the most are cut, and nothing new is let in. Looked at four times a second."""


def render(gateway: Gateway) -> str:
    """The configuration as Envoy reads it. Errors: ValueError for an address that is none."""
    host, _, _ = gateway.upstream.rpartition(":")
    # From our own copy: where Envoy will find its own need not be a place that is here.
    script = strict_json(_DESCRIPTORS, _SERVICES, max_stranger_bytes=gateway.max_stranger_bytes)
    values = {
        "services": _SERVICES,
        "strict_json": script,
        "json_lines": script + _JSON_LINES,
        "admin": _place(gateway.admin),
        "metrics": _place(gateway.metrics),
        "listen": _address(gateway.listen),
        "upstream": _address(gateway.upstream),
        "discovery": "STATIC" if host.replace(".", "").isdigit() or ":" in host else "STRICT_DNS",
        "origins": [{"exact": origin} for origin in gateway.origins],
        "tls": _tls(gateway),
        "rate_limit": _rate_limit("public", gateway.requests_per_second, gateway.client_requests_per_second),
        "max_request_bytes": gateway.max_request_bytes,
        "max_json_bytes": gateway.max_json_bytes,
        "max_stranger_bytes": gateway.max_stranger_bytes,
        "max_webhook_bytes": gateway.max_webhook_bytes,
        "webhook_timeout": f"{gateway.webhook_seconds}s",
        "webhook_limits": _rate_limit("webhooks", gateway.webhooks_per_second, max(1, gateway.webhooks_per_second // 2)),
        "for_webhooks": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}},
        "max_headers_kib": gateway.max_headers_kib,
        "for_strangers": {"for_strangers": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}},
        "unlimited": {
            "envoy.filters.http.body_size_limit": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
        },
        "request_timeout": f"{gateway.request_seconds}s",
        "silent_timeout": f"{gateway.silent_seconds}s",
        "max_connections": gateway.max_connections,
        "max_heap_bytes": gateway.max_heap_bytes,
        "descriptors": str(gateway.descriptors),
        "header_mutations": [{"remove": name} for name in (*_CLAIMS, CLIENT_CONTENT_TYPE)]
        + [{"remove_on_match": {"key_matcher": {"safe_regex": {"regex": regex}}}} for regex in _NOT_FOR_GRPC]
        + [_copied_content_type()],
        "grpc_headers": _GRPC_HEADERS,
        "retries": _RETRIES,
        "local_replies": local_replies(),
        "failures": failures(),
        "egress": _place(gateway.egress),
        "egress_credential": proxy_authorization(gateway.egress_credential or secrets.token_hex(32)),
        "egress_permission": permission(gateway.egress_networks, gateway.egress_denied_networks),
        "egress_addresses": _EGRESS_ADDRESSES,
        "egress_idle_timeout": f"{gateway.egress_idle_seconds}s",
        "egress_connect_timeout": f"{gateway.egress_connect_seconds}s",
        "max_egress_connections": gateway.max_egress_connections,
        "unbuffered": [{"header": {"key": name, "value": value}} for name, value in _UNBUFFERED.items()],
    }
    text = (_HERE / "envoy.yaml").read_text(encoding="utf-8")
    return Template(text).substitute({name: json.dumps(value) for name, value in values.items()})


def render_secret(gateway: Gateway) -> str:
    """Where certificate and key are, in a file of its own, as Envoy wants it for those that it reads again."""
    if gateway.tls_certificate is None:
        raise ValueError("a gateway without TLS has no secret")
    secret = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": _SECRET,
        "tls_certificate": {
            "certificate_chain": {"filename": str(gateway.tls_certificate)},
            "private_key": {"filename": str(gateway.tls_key)},
            "watched_directory": {"path": str(gateway.tls_certificate.parent)},
        },
    }
    return json.dumps({"resources": [secret]})


def proxy_authorization(credential: str) -> str:
    """The value of the header that shows it."""
    return f"Bearer {credential}"


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _copied_content_type() -> dict[str, Any]:
    header = {"key": CLIENT_CONTENT_TYPE, "value": "%REQ(content-type)%"}
    return {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD", "keep_empty_value": False}}


def _rate_limit(name: str, all_per_second: int, client_per_second: int) -> dict[str, Any]:
    """First each client's own, so that what one has too many of takes nothing from the others; then what all together may ask."""
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": name,
        "rate_limits": [{"actions": [{"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}}]}],
        "descriptors": [{"entries": [{"key": "masked_remote_address"}], "token_bucket": _bucket(client_per_second)}],
        # Clients of the last while that are remembered.
        "max_dynamic_descriptors": 10000,
        "token_bucket": _bucket(all_per_second),
        "rate_limited_as_resource_exhausted": True,
        "response_headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
        "filter_enabled": always,
        "filter_enforced": always,
    }


def _bucket(per_second: int) -> dict[str, Any]:
    return {"max_tokens": 2 * per_second, "tokens_per_fill": per_second, "fill_interval": "1s"}


def _place(place: Path | str) -> dict[str, Any]:
    return {"pipe": {"path": str(place), "mode": 0o600}} if isinstance(place, Path) else _address(place)


def _tls(gateway: Gateway) -> dict[str, Any] | None:
    if gateway.tls_certificate is None:
        return None
    source = {"path_config_source": {"path": str(gateway.tls_secret)}, "resource_api_version": "V3"}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [{"name": _SECRET, "sds_config": source}],
            },
        },
    }
