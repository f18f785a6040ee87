"""Which headers pass. Those of a request are chosen one by one; so are those of an answer: the others are about the connection, or
about the account whose credential all share."""

from __future__ import annotations

import re
from collections.abc import Mapping

from server.models.formats import Format

_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}")
_BETA = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
_REFUSED_BETAS = re.compile(
    r"(oauth|files-api|file-|code-execution|mcp-|web-(fetch|search)|skills|message-batches|managed-agents|agent-|computer-use|"
    r"fast-mode|server-side|container|user-profiles|threads?|advisor)"
)
"""Switches for what the rules refuse anyway: what is not switched on cannot be reached by a field that the rules do not know.
`oauth` is the gateway's own to set."""
_USER_AGENT = re.compile(r"[^\x20-\x7e]")
_DEFAULT_VERSION = "2023-06-01"
_PASSED_BACK = ("content-type", "request-id", "x-request-id", "retry-after", "openai-processing-ms", "openai-version")


def request_headers(form: Format, asked: Mapping[str, str], *, streams: bool) -> dict[str, str]:
    """What goes to the provider, without the credential."""
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream" if streams else "application/json",
        # What comes must be read on its way: it is not to be compressed.
        "accept-encoding": "identity",
        "user-agent": _USER_AGENT.sub("", asked.get("user-agent", ""))[:200] or "treadle",
    }
    if form is Format.ANTHROPIC:
        version = asked.get("anthropic-version", "")
        headers["anthropic-version"] = version if _VERSION.fullmatch(version) else _DEFAULT_VERSION
        if betas := passed_betas(asked.get("anthropic-beta", "")):
            headers["anthropic-beta"] = betas
    return headers


def passed_betas(asked: str) -> str:
    """The beta switches that may be set."""
    names = [name.strip() for name in asked.split(",")]
    return ",".join(name for name in names if _BETA.fullmatch(name) and not _REFUSED_BETAS.match(name))


def answer_headers(given: Mapping[str, str]) -> dict[str, str]:
    """What of the provider's headers goes back to the agent."""
    return {name: given[name] for name in _PASSED_BACK if name in given}
