"""What strict_json.lua has to know: the methods of each path, and the fields of each call's body, from the descriptors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto

_SCRIPT = Path(__file__).with_name("strict_json.lua")

Fields = dict[str, Any]
_VALUES = "values"


def strict_json(descriptors: Path, services: Sequence[str], *, max_stranger_bytes: int) -> str:
    """The script for these services (full names)."""
    found = FileDescriptorSet.FromString(descriptors.read_bytes())
    messages = {f".{file.package}.{message.name}": message for file in found.file for message in file.message_type}
    paths: dict[str, dict[str, str]] = defaultdict(dict)
    for file in found.file:
        for service in file.service:
            for method in service.method if f"{file.package}.{service.name}" in services else ():
                for verb, pattern, has_body in _bindings(method):
                    paths[pattern][verb] = _table(_fields(messages, method.input_type)) if has_body else "false"
    known = [
        f"{{pattern = {_text(pattern)}, allow = {_text(', '.join(sorted(methods)))}, methods = {{{_entries(methods)}}}}}"
        for pattern, methods in paths.items()
    ]
    known_paths = "local PATHS = {\n" + ",\n".join(known) + "\n}\n"
    return f"local MAX_STRANGER_BYTES = {max_stranger_bytes}\n{known_paths}{_SCRIPT.read_text(encoding='utf-8')}"


def _bindings(method: MethodDescriptorProto) -> Iterator[tuple[str, str, bool]]:
    """(method, Lua pattern of the path, whether its body is the whole message) of every binding. Ids have no colon: what follows one is
    another call."""
    rule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        if verb is not None:
            literals = [re.sub(r"([^\w/])", r"%\1", part) for part in re.split(r"\{\w+\}", getattr(binding, verb))]
            yield verb.upper(), f"^{'[^/:]+'.join(literals)}/?$", binding.body == "*"


def _fields(messages: dict[str, DescriptorProto], name: str) -> Fields | None:
    """None for what has a form of its own in JSON, as maps and Google's types; `values` for lists of those. No request holds itself."""
    message = messages.get(name)
    if message is None or name.startswith(".google."):
        return None
    fields: Fields = {}
    for field in message.field:
        inner: Fields | str | None = _fields(messages, field.type_name) if field.type == FieldDescriptorProto.TYPE_MESSAGE else None
        if field.label == FieldDescriptorProto.LABEL_REPEATED and field.type != FieldDescriptorProto.TYPE_MESSAGE:
            inner = _VALUES
        fields |= {field.json_name: inner, field.name: inner}
    return fields


def _table(fields: Fields | str | None) -> str:
    if fields is None:
        return "true"
    if isinstance(fields, str):
        return _text(fields)
    return f"{{{_entries({name: _table(inner) for name, inner in fields.items()})}}}"


def _entries(entries: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in entries.items())


def _text(text: str) -> str:
    return f"'{text}'"
