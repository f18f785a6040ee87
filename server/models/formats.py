"""The wire formats that are spoken at a door: their paths, and how each says that something is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Format(StrEnum):
    """Whose API it is."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"


OWNERS: Mapping[Format, str] = MappingProxyType({Format.ANTHROPIC: "Anthropic", Format.OPENAI: "OpenAI"})

_FAMILIES = (
    (re.compile(r"claude(-|$)"), Format.ANTHROPIC),
    (re.compile(r"(gpt|chatgpt|codex)(-|$)|o[0-9]"), Format.OPENAI),
)


def format_of(model: str) -> Format | None:
    """Whose model it is by its name; None for a name that says nothing."""
    return next((form for family, form in _FAMILIES if family.match(model)), None)


MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
RESPONSES = "/v1/responses"

TARGETS: Mapping[str, tuple[Format, str]] = MappingProxyType(
    {
        MESSAGES: (Format.ANTHROPIC, MESSAGES),
        f"{MESSAGES}?beta=true": (Format.ANTHROPIC, f"{MESSAGES}?beta=true"),
        COUNT_TOKENS: (Format.ANTHROPIC, COUNT_TOKENS),
        f"{COUNT_TOKENS}?beta=true": (Format.ANTHROPIC, f"{COUNT_TOKENS}?beta=true"),
        RESPONSES: (Format.OPENAI, RESPONSES),
    }
)
"""What may be asked for, byte for byte as it stands in the request line, and what is asked of the provider: nothing is normalised, so
nothing can be hidden in another spelling."""

_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_body(form: Format, status: int, message: str, *, kind: str = "") -> bytes:
    """An error as this provider writes it; `kind` is its own word for the sort of error, where it said one."""
    if form is Format.OPENAI:
        sort = kind or ("invalid_request_error" if status < 500 else "server_error")
        return json.dumps({"error": {"message": message, "type": sort, "param": None, "code": None}}).encode()
    sort = kind or _ANTHROPIC_KINDS.get(status, "api_error")
    return json.dumps({"type": "error", "error": {"type": sort, "message": message}}).encode()


def error_of(body: bytes) -> tuple[str, str]:
    """(kind, message) of a provider's error; both formats have them at the same place. Empty where it is something else."""
    try:
        error = json.loads(body)["error"]
        kind, message = error.get("type") or "", error.get("message") or ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    return (kind, message) if isinstance(kind, str) and isinstance(message, str) else ("", "")
