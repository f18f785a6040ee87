"""What strict_json.lua has to know: the fields of each call's body, from the descriptors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto

_SCRIPT = Path(__file__).with_name("strict_json.lua")

Fields = dict[str, Any]


def strict_json(descriptors: Path, services: Sequence[str]) -> str:
    """The script for these services (full names)."""
    found = FileDescriptorSet.FromString(descriptors.read_bytes())
    messages = {f".{file.package}.{message.name}": message for file in found.file for message in file.message_type}
    calls = [
        f"{{{_text(verb.upper())}, {_text(pattern)}, {_table(_fields(messages, method.input_type))}}}"
        for file in found.file
        for service in file.service
        if f"{file.package}.{service.name}" in services
        for method in service.method
        for verb, pattern in _bindings(method)
    ]
    return "local CALLS = {\n" + ",\n".join(calls) + "\n}\n" + _SCRIPT.read_text(encoding="utf-8")


def _bindings(method: MethodDescriptorProto) -> Iterator[tuple[str, str]]:
    """(verb, Lua pattern of the path) of every binding whose body is the whole message."""
    rule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        if verb is not None and binding.body == "*":
            literals = [re.sub(r"([^\w/])", r"%\1", part) for part in re.split(r"\{\w+\}", getattr(binding, verb))]
            yield verb, f"^{'[^/]+'.join(literals)}/?$"


def _fields(messages: dict[str, DescriptorProto], name: str) -> Fields | None:
    """None for what has a form of its own in JSON: maps, and Google's types. No request holds itself."""
    message = messages.get(name)
    if message is None or name.startswith(".google."):
        return None
    fields: Fields = {}
    for field in message.field:
        inner = _fields(messages, field.type_name) if field.type == FieldDescriptorProto.TYPE_MESSAGE else None
        fields |= {field.json_name: inner, field.name: inner}
    return fields


def _table(fields: Fields | None) -> str:
    if fields is None:
        return "true"
    return "{" + ", ".join(f"{name} = {_table(inner)}" for name, inner in fields.items()) + "}"


def _text(text: str) -> str:
    return f"'{text}'"
