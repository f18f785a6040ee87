"""What may stand in a request in the format of OpenAI's Responses API: the same idea as in `anthropic_rules`.

`store` is forced to false: else every answer is kept at the provider, where whoever shares the key can read it by its id.
"""

from __future__ import annotations

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
        "model", "input", "instructions", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text",
        "temperature", "top_p", "top_logprobs", "max_output_tokens", "max_tool_calls", "include", "store", "background", "metadata",
        "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user", "service_tier", "truncation", "client_metadata",
    }
)  # fmt: skip
_REFUSED_FIELDS = {
    "previous_response_id": "conversations that the provider keeps are not allowed; send the whole history",
    "conversation": "conversations that the provider keeps are not allowed; send the whole history",
    "prompt": "prompts that the provider keeps are not allowed",
}
_NOT_PASSED = frozenset({"client_metadata", "background"})
"""Accepted from the agent, and not handed on: telemetry, and a `background` that is false."""
_CLIENT_TOOLS = frozenset({"function", "custom", "local_shell", "apply_patch"})
_INCLUDES = frozenset({"reasoning.encrypted_content", "message.output_text.logprobs"})
_TIERS = frozenset({"auto", "default"})
_ROLES = frozenset({"user", "assistant", "system", "developer"})
_PLAIN_ITEMS = frozenset(
    {
        "function_call", "custom_tool_call", "local_shell_call", "local_shell_call_output", "apply_patch_call",
        "apply_patch_call_output", "compaction", "compaction_trigger",
    }
)  # fmt: skip
_PLAIN_PARTS = frozenset({"input_text", "output_text", "refusal", "summary_text", "reasoning_text", "text"})
_DATA = "data:"


def check(data: bytes | bytearray, rules: Rules) -> Checked:
    """A request for a response. Errors: Refused."""
    body = read(data)
    check_fields(body, _FIELDS, _REFUSED_FIELDS, rules)
    model = check_model(body, rules, Format.OPENAI)
    if flag(body, "background"):
        raise Refused("background: work that goes on without the turn is not allowed")
    if body.get("service_tier") is not None and not among(body["service_tier"], _TIERS):
        forbidden("service_tier", body["service_tier"], "is not allowed: it has other prices")
    included = body.get("include") or []
    if not isinstance(included, list):
        raise Refused("include: a list is needed")
    for wanted in included:
        if not among(wanted, _INCLUDES):
            forbidden("include", wanted, "is not known here, and so not allowed")
    weight = Weight()
    _check_input(body.get("input"), weight)
    for tool in objects(body.get("tools") or [], "tools"):
        _check_tool(tool)
    streams = flag(body, "stream")
    sent = {name: value for name, value in body.items() if name not in _NOT_PASSED} | {"store": False}
    written, size = write(sent, weight)
    return Checked(model, streams, written, Expected(size, most_output(body, "max_output_tokens"), hidden=True))


def _check_tool(tool: dict[str, Any]) -> None:
    kind = kind_of(tool, "tools")
    if kind == "namespace":
        for inner in objects(tool.get("tools"), "tools"):
            _check_tool(inner)
    elif kind == "shell":
        environment = tool.get("environment")
        if not isinstance(environment, dict) or environment.get("type") != "local":
            forbidden("tools", kind, "would run at the provider, which is not allowed")
    elif kind not in _CLIENT_TOOLS:
        forbidden("tools", kind, "would run at the provider, which is not allowed")


def _check_input(items: object, weight: Weight) -> None:
    if items is None or isinstance(items, str):
        return
    for item in objects(items, "input"):
        kind = kind_of(item, "input", default="message" if "role" in item else "")
        match kind:
            case "message":
                if not among(item.get("role"), _ROLES):
                    forbidden("input", item.get("role"), "is no role")
                _check_parts(item.get("content"), weight)
            case "function_call_output" | "custom_tool_call_output":
                _check_parts(item.get("output"), weight)
            case "shell_call_output":
                _check_shell(item.get("output"))
            case "reasoning":
                _check_parts(item.get("summary"), weight)
                _check_parts(item.get("content"), weight)
            case "shell_call":
                if (item.get("environment") or {"type": "local"}) != {"type": "local"}:
                    forbidden("input", kind, "ran at the provider, which is not allowed")
            case _ if kind not in _PLAIN_ITEMS:
                forbidden("input", kind, "is an item that is not known here, and so not allowed")


def _check_shell(output: object) -> None:
    for each in objects(output or [], "input"):
        if not each.keys() <= {"stdout", "stderr", "outcome", "created_by"}:
            forbidden("input", "shell_call_output", "holds more than output")


def _check_parts(content: object, weight: Weight) -> None:
    if content is None or isinstance(content, str):
        return
    for part in objects(content, "input"):
        kind = kind_of(part, "input")
        if kind in ("input_image", "input_file"):
            _check_data(part, kind, weight)
        elif kind not in _PLAIN_PARTS:
            forbidden("input", kind, "is a part that is not known here, and so not allowed")


def _check_data(part: dict[str, Any], kind: str, weight: Weight) -> None:
    """An image or file must come with its data; an id or an address would be looked up by the provider."""
    given = {name: part[name] for name in ("image_url", "file_url", "file_id", "file_data") if part.get(name) is not None}
    for name, value in given.items():
        if name in ("file_id", "file_url") or not isinstance(value, str) or (name == "image_url" and not value.startswith(_DATA)):
            forbidden(f"input: {kind}", name, "is a source that the provider would fetch, or that others share; only the data is allowed")
        weight.add(value)
