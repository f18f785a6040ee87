"""What may stand in a request in the format of Anthropic's Messages API.

Allowed is what the client itself does, or what is only data. What the provider would do for the client, with the credential that all
share (fetch a URL, search the web, run code, call a tool server, keep files), is refused; so is everything that is not known here.
The lists were made from what Claude Code 2.1 and the anthropic SDK send, and from the API's documentation.
"""

from __future__ import annotations

import re
from typing import Any

from server.models.formats import Format
from server.models.rules import (
    Checked,
    Expected,
    Refused,
    Rules,
    Weight,
    among,
    check_fields,
    check_model,
    flag,
    forbidden,
    kind_of,
    most_output,
    objects,
    read,
    write,
)

_FIELDS = frozenset(
    {
        "model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata", "thinking",
        "tools", "tool_choice", "output_config", "output_format", "context_management", "cache_control", "service_tier",
    }
)  # fmt: skip
_REFUSED_FIELDS = {
    "mcp_servers": "tool servers that the provider calls are not allowed",
    "container": "containers at the provider are not allowed",
    "thread": "conversations that the provider keeps are not allowed; send the whole history",
    "speed": "only the ordinary speed is allowed: another has other prices",
}
_CLIENT_TOOLS = re.compile(r"(custom|(bash|text_editor|memory)_\d{8})")
_PROVIDER_RUNS = "would run at the provider, which is not allowed"
_ROLES = frozenset({"user", "assistant", "system"})
_PLAIN_BLOCKS = frozenset(
    {"text", "thinking", "redacted_thinking", "tool_use", "tool_reference", "compaction", "mid_conv_system", "connector_text"}
)
_EDITS = re.compile(r"(clear_thinking|clear_tool_uses|compact)_\d{8}")
_SUMMARISES = "compact_"
_TIERS = frozenset({"auto", "standard_only"})


def check(data: bytes | bytearray, rules: Rules) -> Checked:
    """A request for a message, or for the count of its tokens. Errors: Refused."""
    body = read(data)
    check_fields(body, _FIELDS, _REFUSED_FIELDS, rules)
    model = check_model(body, rules, Format.ANTHROPIC)
    if body.get("service_tier") is not None and not among(body["service_tier"], _TIERS):
        forbidden("service_tier", body["service_tier"], "is not allowed: it has other prices")
    weight = Weight()
    _check_content(body.get("system", ""), "system", weight)
    for message in objects(body.get("messages"), "messages"):
        if not among(message.get("role"), _ROLES):
            forbidden("messages", message.get("role"), "is no role")
        _check_content(message.get("content", ""), "messages", weight)
    for tool in objects(body.get("tools") or [], "tools"):
        _check_tool(tool, "tools")
    # The provider reads the conversation twice then, and writes a summary before it answers.
    rounds = 2 if _check_edits(body.get("context_management")) else 1
    streams = flag(body, "stream")
    written, size = write(body, weight)
    expected = Expected(size, most_output(body, "max_tokens"), _hides(body.get("thinking")), rounds)
    return Checked(model, streams, written, expected)


def _hides(thinking: object) -> bool:
    """Unless it is switched off, newer models think by default, and show a summary at most."""
    return not isinstance(thinking, dict) or thinking.get("type") != "disabled"


def _check_tool(tool: object, where: str) -> None:
    if not isinstance(tool, dict):
        raise Refused(f"{where}: an object is needed")
    kind = tool.get("type") or "custom"
    if not isinstance(kind, str) or not _CLIENT_TOOLS.fullmatch(kind):
        forbidden(where, kind, _PROVIDER_RUNS)
    callers = tool.get("allowed_callers")
    if callers is not None and callers != ["direct"]:
        forbidden(where, callers, "would let code at the provider call the tool, which is not allowed")


def _check_content(content: object, where: str, weight: Weight) -> None:
    if content is None or isinstance(content, str):
        return
    for block in objects(content, where):
        _check_block(block, where, weight)


def _check_block(block: dict[str, Any], where: str, weight: Weight) -> None:
    kind = kind_of(block, where)
    match kind:
        case "image" | "document":
            _check_source(block.get("source"), f"{where}: {kind}", weight)
        case "tool_result" | "search_result":
            _check_content(block.get("content"), f"{where}: {kind}", weight)
            if not isinstance(block.get("source", ""), str):
                forbidden(where, kind, "has a source that is no name")
        case "tool_addition" | "tool_removal":
            _check_change(block.get("tool"), f"{where}: {kind}")
        case _ if kind not in _PLAIN_BLOCKS:
            forbidden(where, kind, "is a part that is not known here, and so not allowed")


def _check_source(source: object, where: str, weight: Weight) -> None:
    if not isinstance(source, dict):
        raise Refused(f"{where}: a source is needed")
    match source.get("type"):
        case "base64":
            weight.add(source.get("data"))
        case "text":
            pass
        case "content":
            _check_content(source.get("content"), where, weight)
        case other:
            forbidden(where, other, "is a source that the provider would fetch, or that others share; only the data itself is allowed")


def _check_change(tool: object, where: str) -> None:
    """A tool that comes or goes in mid-conversation: by name, or with its definition."""
    if not isinstance(tool, dict):
        raise Refused(f"{where}: a tool is needed")
    match tool.get("type"):
        case "tool_reference":
            pass
        case "tool_definition":
            _check_tool(tool.get("definition"), where)
        case other:
            forbidden(where, other, "is not known here, and so not allowed")


def _check_edits(management: object) -> bool:
    """Whether one of the edits is a summary of the conversation by the model. Errors: Refused."""
    if management is None:
        return False
    if not isinstance(management, dict) or not management.keys() <= {"edits"}:
        raise Refused("context_management: only edits are allowed")
    summarised = False
    for edit in objects(management.get("edits") or [], "context_management"):
        if not _EDITS.fullmatch(kind := kind_of(edit, "context_management")):
            forbidden("context_management", kind, "is not known here, and so not allowed")
        summarised |= kind.startswith(_SUMMARISES)
    return summarised
