"""Why there was no answer, in words for people: a class's name helps nobody, and an error's own text may hold more than is theirs."""

from __future__ import annotations

import os
from collections.abc import Mapping

import aiohttp

_REASONS: Mapping[type[Exception], str] = {
    aiohttp.ClientConnectorDNSError: "cannot be reached: its name cannot be resolved (DNS)",
    aiohttp.ClientConnectorCertificateError: "cannot be reached: its certificate is not trusted",
    aiohttp.ClientConnectorSSLError: "cannot be reached: it does not speak TLS as it should",
    TimeoutError: "cannot be reached: it takes no connection in time",
    aiohttp.ClientConnectorError: "cannot be reached",
    aiohttp.ServerDisconnectedError: "hung up before it answered",
    ConnectionError: "hung up before it answered",
    aiohttp.ClientOSError: "hung up before it answered",
    aiohttp.ClientResponseError: "answered something that is no HTTP",
    aiohttp.ClientPayloadError: "answered something that is no HTTP",
}
"""The first that fits: some of them are kinds of others."""


def why_unreached(error: Exception) -> str:
    """What went wrong on the way to a host, as the end of a sentence that begins with its name."""
    reason = next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), "cannot be reached")
    if type(error) is aiohttp.ClientConnectorError and error.os_error.errno:
        return f"{reason}: {os.strerror(error.os_error.errno).lower()}"
    return reason
