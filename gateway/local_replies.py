"""Envoy's own answers (no such route, too large, too many, server not there) in the form that the server's have: google.rpc.Status."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

DOMAIN = "treadle"
CLIENT_CONTENT_TYPE = "x-client-content-type"
"""Holds the content type that the client sent: filters overwrite the original, and Envoy's replies go by what the client is."""


@dataclass(frozen=True)
class LocalReply:
    """One HTTP status that Envoy itself answers with."""

    status: int
    code: int
    """The google.rpc.Code for callers over HTTP and gRPC-web."""
    envoy_code: int
    """The code that Envoy gives to gRPC callers, which no configuration changes."""
    reason: str
    message: str
    envoy_status: int | None = None
    """What Envoy itself would answer, where that says something else."""
    when: str = ""
    """Only then: in CEL, with Envoy's attributes. Of replies that fit, the first is given."""


LOCAL_REPLIES = (
    LocalReply(400, 3, 13, "REQUEST_MALFORMED", "the request is malformed"),
    # As the server says it.
    LocalReply(401, 16, 16, "API_KEY_INVALID", "the API key is not valid", when="'authorization' in request.headers"),
    LocalReply(401, 16, 16, "API_KEY_MISSING", "an API key is needed: metadata `authorization: Bearer <key>`"),
    LocalReply(
        403,
        7,
        7,
        "UPGRADE_REFUSED",
        "no other protocol (WebSocket, h2c) is spoken over this connection",
        when="response.code_details.contains('upgrade_failed')",
    ),
    LocalReply(404, 5, 12, "ROUTE_UNKNOWN", "there is nothing at this path"),
    LocalReply(408, 4, 2, "REQUEST_TOO_SLOW", "the request did not arrive in time"),
    LocalReply(
        413,
        3,
        2,
        "REQUEST_TOO_LARGE",
        "the request is larger than this call takes here; a large file goes over gRPC (UploadFile, `treadle files put`)",
    ),
    LocalReply(415, 3, 2, "REQUEST_MALFORMED", "the request has a media type that is not understood"),
    LocalReply(426, 3, 2, "REQUEST_MALFORMED", "the request asks for a protocol that is not spoken here"),
    LocalReply(429, 8, 8, "RATE_LIMITED", "too many requests; wait a second"),
    LocalReply(431, 3, 2, "REQUEST_TOO_LARGE", "the headers of the request are too large"),
    LocalReply(500, 13, 2, "INTERNAL", "internal error of the gateway"),
    # Whoever asks again gets the same, so it is no 502.
    LocalReply(
        500,
        13,
        13,
        "ANSWER_UNREADABLE",
        "the server's answer cannot be turned into JSON",
        envoy_status=502,
        when="response.code_details.contains('grpc_json_transcode_failure')",
    ),
    LocalReply(502, 14, 14, "SERVER_UNREACHABLE", "the server cannot be reached; try again"),
    LocalReply(503, 14, 14, "SERVER_UNREACHABLE", "the server cannot be reached; try again"),
    LocalReply(504, 4, 4, "DEADLINE_EXCEEDED", "the server took too long"),
)
"""To calls."""

TO_NO_CALL = (
    # A browser's question before a page's call. Who does not ask gets the answer, which the browser keeps from the page.
    LocalReply(403, 7, 7, "ORIGIN_NOT_ALLOWED", "pages of this origin may not call"),
    LocalReply(405, 12, 12, "METHOD_NOT_ALLOWED", "this path has other methods: those in the header Allow"),
)
"""To what cannot be one."""


def local_replies() -> list[dict[str, Any]]:
    """Mappers for Envoy's configuration; the first that fits is used."""
    return [mapper for reply in (*LOCAL_REPLIES, *TO_NO_CALL) for mapper in _mappers(reply)]


_CUT = ("UH", "UT", "LR", "UR", "UF", "UC", "UO", "URX", "UPE", "SI", "OM")
"""Flags of a stream whose end is the server's or the gateway's own doing
(https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage)."""


def failures() -> dict[str, Any]:
    """A filter for the access log: what HTTP or gRPC calls a failure, and streams cut after a 200. Who leaves one has not failed."""
    comparison = {"op": "GE", "value": {"default_value": 400, "runtime_key": "log_from_status"}}
    stayed = _cel('!(response.code_details == "http2.remote_reset" || response.code_details.startsWith("downstream_remote_disconnect"))')
    # What was left has no status, which counts as UNKNOWN.
    grpc = _both(_content_type("application/grpc"), {"grpc_status_filter": {"statuses": ["OK", "CANCELED"], "exclude": True}}, stayed)
    return {"or_filter": {"filters": [{"status_code_filter": {"comparison": comparison}}, grpc, {"response_flag_filter": {"flags": _CUT}}]}}


def _mappers(reply: LocalReply) -> Iterator[dict[str, Any]]:
    # To a caller of RPCs, where nothing is there is a call that is not there: UNIMPLEMENTED, as over gRPC.
    web_code = reply.envoy_code if reply.reason == "ROUTE_UNKNOWN" else reply.code
    yield {
        # gRPC-web, for Envoy plain HTTP: a response without a body, whose headers are the trailers.
        "filter": _both(*_answered(reply), _content_type("application/grpc-web")),
        "status_code": 200,
        "headers_to_add": [
            _header("grpc-status", str(web_code)),
            _header("grpc-message", reply.message),
            _header("grpc-status-details-bin", _details(reply, web_code)),
        ],
        "body_format_override": {"text_format_source": {"inline_string": ""}, "content_type": "application/grpc-web+proto"},
    }
    yield {
        # gRPC: Envoy itself makes a status of it, and only the details are missing.
        "filter": _both(*_answered(reply), _content_type("application/grpc")),
        "headers_to_add": [_header("grpc-status-details-bin", _details(reply, reply.envoy_code))],
        "body_format_override": {"text_format_source": {"inline_string": reply.message}},
    }
    if reply.status == 400:
        # What the transcoder or strict_json.lua says about a malformed request helps; all else, where it says anything, is for operators.
        said = _cel('response.code_details.contains("grpc_json_transcode_failure") || response.code_details == "lua_response"')
        yield _json(reply, _both(*_answered(reply), said), "%LOCAL_REPLY_BODY%")
    yield _json(reply, _both(*_answered(reply)), reply.message)


def _json(reply: LocalReply, wanted: dict[str, Any], message: str) -> dict[str, Any]:
    return {
        "filter": wanted,
        "status_code": reply.status,
        "body_format_override": {
            "json_format": {"code": reply.code, "message": message, "details": [_error_info(reply)]},
            "content_type": "application/json",
        },
    }


def _error_info(reply: LocalReply) -> dict[str, str]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reply.reason, "domain": DOMAIN}


def _details(reply: LocalReply, code: int) -> str:
    packed = Packed()
    packed.Pack(ErrorInfo(reason=reply.reason, domain=DOMAIN))
    status = Status(code=code, message=reply.message, details=[packed])
    return base64.b64encode(status.SerializeToString()).decode().rstrip("=")


def _header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _answered(reply: LocalReply) -> Iterator[dict[str, Any]]:
    status = reply.envoy_status or reply.status
    yield {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": f"reply_{status}"}}}}
    if reply.when:
        yield _cel(reply.when)


def _cel(expression: str) -> dict[str, Any]:
    """https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes"""
    kind = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    wanted = {"@type": kind, "expression": expression}
    return {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": wanted}}


def _content_type(prefix: str) -> dict[str, Any]:
    return {"header_filter": {"header": {"name": CLIENT_CONTENT_TYPE, "string_match": {"prefix": prefix}}}}


def _both(*filters: dict[str, Any]) -> dict[str, Any]:
    return {"and_filter": {"filters": [*filters]}} if len(filters) > 1 else filters[0]
