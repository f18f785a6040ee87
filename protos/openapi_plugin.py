#!/usr/bin/env python3
"""A protoc plugin that writes the HTTP API as one OpenAPI 3.2 document: what `google.api.http` and the comments of the protos say.

3.2, because it can describe streams: `itemSchema` for server-sent events and for JSON lines. Messages are described in their JSON
form as the gateway writes it (https://protobuf.dev/programming-guides/json): names in camel case, 64-bit numbers as strings. The
failures of a call are those that its comment names as `CODE/REASON`, those of the calls it refers to, and the gateway's own.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
from gateway.local_replies import LOCAL_REPLIES

Json = dict[str, Any]

# As Envoy's transcoder maps them (google/rpc/code.proto says the same).
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "ABORTED": 409, "RESOURCE_EXHAUSTED": 429, "CANCELLED": 499, "INTERNAL": 500, "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
PHRASES = {
    400: "The request is not acceptable", 401: "No key, or a wrong one", 403: "Not allowed", 404: "Not found", 408: "Too slow",
    409: "In conflict with what is there", 413: "Too large", 415: "Of a media type that is not understood",
    426: "Of a protocol that is not spoken", 429: "Too much at once", 431: "Headers too large", 499: "Cancelled",
    500: "A defect of the server", 501: "Not there", 502: "Not available now: try again", 503: "Not available now: try again",
    504: "Too slow",
}  # fmt: skip

# For people, and for schemathesis; a test sends each of them.
_REPOSITORY = "https://github.com/owner/name"
EXAMPLES: dict[str, Json] = {
    "CreateSessionRequest": {"repositoryUrl": _REPOSITORY, "title": "Documentation"},
    "ExecuteSessionRequest": {"repositoryUrl": _REPOSITORY, "prompt": "Say in the README how to run the tests"},
    "ExecuteSessionRequestBody": {"prompt": "Now say it in the Makefile, too"},
    "UpdateSessionRequestBody": {"title": "Documentation", "updateMask": "title"},
    "RestoreSessionRequestBody": {"at": "1"},
    "PushSessionRequestBody": {"ontoNewBranch": "treadle/tests-documented"},
    "SendInputRequestBody": {"text": "Leave the Makefile as it is", "delivery": "INPUT_DELIVERY_QUEUE"},
    "UpdateInputRequestBody": {"text": "Leave the Makefile and the licence as they are"},
    "PutCredentialRequest": {"host": "github.com", "token": "ghp_0123456789abcdefghij"},
    "CreateBranchRequest": {"repositoryUrl": _REPOSITORY, "branch": "documentation"},
    "EditFilesRequestBody": {"edits": [{"write": {"path": "docs/tests.md", "text": "Run `make test`.\n"}}]},
    "ResolveRequestRequestBody": {"decline": True, "note": "Do what is usual"},
}

_F = FieldDescriptorProto
SCALARS: dict[int, Json] = {
    _F.TYPE_STRING: {"type": "string"},
    _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    _F.TYPE_BOOL: {"type": "boolean"},
    _F.TYPE_DOUBLE: {"type": "number"},
    _F.TYPE_FLOAT: {"type": "number"},
    _F.TYPE_INT32: {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    _F.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    _F.TYPE_INT64: {"type": "string", "format": "int64", "pattern": "^-?(0|[1-9][0-9]{0,17})$"},
    _F.TYPE_UINT64: {"type": "string", "format": "uint64", "pattern": "^(0|[1-9][0-9]{0,18})$"},
}
WELL_KNOWN: dict[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string", "description": "Names of fields in camel case, by comma."},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.Any": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
    "google.protobuf.Empty": {"type": "object"},
}
STREAM_BODY = "google.api.HttpBody"
FURTHER_BINDINGS = {
    "/v1/sessions/{session_id}:execute": "executeInSession",
    "/v1/sessions/{session_id}:stream": "streamExecuteInSession",
    "/execute": "execute",
    "/resume": "resumeEvents",
}
"""The operation ids of additional bindings, by their paths; the first binding of a call has the name of the call. Generators make names of
functions of them, in a spelling of their own. `resume` is taken by SessionService.Resume."""


class Protos:
    """Messages, enums and comments by full name (as descriptors write it: `.package.Name`)."""

    def __init__(self, files: Sequence[FileDescriptorProto]) -> None:
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.services: dict[str, ServiceDescriptorProto] = {}
        self.comments: dict[str, str] = {}
        pool = descriptor_pool.DescriptorPool()
        for file in files:
            pool.Add(file)
            comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
            self._types(f".{file.package}", file.message_type, comments, (4,))
            self._enums(f".{file.package}", file.enum_type, comments, (5,))
            for number, service in enumerate(file.service):
                name = f".{file.package}.{service.name}"
                self.services[name] = service
                self.comments[name] = comments.get((6, number), "")
                for at, method in enumerate(service.method):
                    self.comments[f"{name}.{method.name}"] = comments.get((6, number, 2, at), "")
        self._options = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.MethodOptions"))
        self._rule = pool.FindExtensionByName("google.api.http")
        message_factory.GetMessageClass(pool.FindMessageTypeByName("google.api.HttpRule"))

    def _types(self, scope: str, messages: Any, comments: Any, at: tuple[int, ...]) -> None:
        for number, message in enumerate(messages):
            name, path = f"{scope}.{message.name}", (*at, number)
            self.messages[name] = message
            self.comments[name] = comments.get(path, "")
            for index, field in enumerate(message.field):
                self.comments[f"{name}.{field.name}"] = comments.get((*path, 2, index), "")
            self._types(name, message.nested_type, comments, (*path, 3))
            self._enums(name, message.enum_type, comments, (*path, 4))

    def _enums(self, scope: str, enums: Any, comments: Any, at: tuple[int, ...]) -> None:
        for number, enum in enumerate(enums):
            name, path = f"{scope}.{enum.name}", (*at, number)
            self.enums[name] = enum
            self.comments[name] = comments.get(path, "")
            for index, value in enumerate(enum.value):
                self.comments[f"{name}.{value.name}"] = comments.get((*path, 2, index), "")

    def bindings(self, method: MethodDescriptorProto) -> Iterator[tuple[str, str, str]]:
        """(HTTP method, path template, body) of every binding."""
        options = self._options.FromString(method.options.SerializeToString())
        if not options.HasExtension(self._rule):
            return
        rule = options.Extensions[self._rule]
        for each in (rule, *rule.additional_bindings):
            verb = each.WhichOneof("pattern")
            yield verb, getattr(each, verb), each.body

    def said(self, name: str) -> str:
        """A comment as running text."""
        return re.sub(r"(?m)^ ", "", self.comments.get(name, "")).strip()


class Document:
    """The document while it grows: schemas are added as they are referred to."""

    def __init__(self, protos: Protos) -> None:
        self._protos = protos
        self.schemas: Json = {}
        self.paths: dict[str, Json] = defaultdict(dict)

    def schema(self, name: str, *, without: frozenset[str] = frozenset()) -> Json:
        """A reference to a message; `without` the fields that the path holds already."""
        if known := WELL_KNOWN.get(name.removeprefix(".")):
            return known
        message = self._protos.messages[name]
        own = {field.name for field in message.field} & without
        title = name.rsplit(".", 1)[-1] + ("Body" if own else "")
        if title not in self.schemas:
            self.schemas[title] = {}  # a message may hold itself
            self.schemas[title] = self._message(name, message, own)
        return {"$ref": f"#/components/schemas/{title}"}

    def _message(self, name: str, message: DescriptorProto, without: set[str]) -> Json:
        fields = [field for field in message.field if field.name not in without]
        described: Json = {"type": "object", "properties": {field.json_name: self._member(name, field) for field in fields}}
        if required := [field.json_name for field in fields if self._required(name, field)]:
            described["required"] = required
        if name.endswith("Request"):
            # As the gateway does it (strict_json.lua). Answers stay open: a newer server may say more.
            described["additionalProperties"] = False
        return _described(described, self._protos.said(name))

    def _required(self, owner: str, field: FieldDescriptorProto) -> bool:
        """Whether a request without it is refused."""
        return owner.endswith("Request") and self._value(field, owner).get("minLength", 0) > 0

    def _member(self, owner: str, field: FieldDescriptorProto) -> Json:
        """A field of a body. In requests, as protobuf reads them, null stands for what is left out."""
        described = self._field(owner, field)
        if not owner.endswith("Request") or self._required(owner, field):
            return described
        if "$ref" in described:
            return {"anyOf": [{"$ref": described.pop("$ref")}, {"type": "null"}], **described}
        return described | {"type": [described["type"], "null"]}

    def _field(self, owner: str, field: FieldDescriptorProto) -> Json:
        comment = self._protos.said(f"{owner}.{field.name}")
        if field.label != _F.LABEL_REPEATED:
            return _described(self._value(field, owner), comment)
        entry = self._protos.messages.get(field.type_name)
        if entry is not None and entry.options.map_entry:
            return _described({"type": "object", "additionalProperties": self._value(entry.field[1])}, comment)
        return _described({"type": "array", "items": self._value(field)}, comment)

    def _value(self, field: FieldDescriptorProto, owner: str = "") -> Json:
        """What may stand in a field; in one of the message `owner`, within what its comment says."""
        if field.type == _F.TYPE_MESSAGE:
            return self.schema(field.type_name)
        if field.type == _F.TYPE_ENUM:
            return self._enum(field.type_name)
        limits = _limits(field.type, self._protos.said(f"{owner}.{field.name}")) if owner.endswith("Request") else {}
        return SCALARS[field.type] | limits

    def _enum(self, name: str) -> Json:
        title = name.rsplit(".", 1)[-1]
        values = [value.name for value in self._protos.enums[name].value]
        lines = [f"- `{value}`: {self._protos.said(f'{name}.{value}')}" for value in values]
        text = "\n".join([self._protos.said(name), "", *lines])
        self.schemas[title] = {"type": "string", "enum": values, "description": text}
        return {"$ref": f"#/components/schemas/{title}"}

    def add(self, service: str, method: MethodDescriptorProto) -> None:
        """Every binding of a method."""
        for number, (verb, template, body) in enumerate(self._protos.bindings(method)):
            if body not in ("", "*"):
                # Of code hosts, for which nobody generates a client.
                continue
            bound = re.findall(r"\{(\w+)\}", template)
            message = self._protos.messages[method.input_type]
            names = {field.name: field.json_name for field in message.field}
            name = f"{service}.{method.name}"
            operation: Json = {
                "operationId": FURTHER_BINDINGS[template] if number else method.name[:1].lower() + method.name[1:],
                "tags": [service.rsplit(".", 1)[-1]],
                "summary": re.split(r"\.\s|\.$", self._protos.said(name))[0].replace("\n", " "),
                "description": self._protos.said(name),
                "parameters": list(self._parameters(method, bound, in_query=not body)),
            }
            if body:
                schema = self.schema(method.input_type, without=frozenset(bound))
                needed = any(self._required(method.input_type, field) for field in message.field if field.name not in bound)
                example = EXAMPLES.get(schema["$ref"].rpartition("/")[2])
                content = {"schema": schema} | ({} if example is None else {"example": example})
                operation["requestBody"] = {"required": needed, "content": {"application/json": content}}
            operation["responses"] = {"200": self._answer(method), **self._failures(service, method)}
            path = template
            for each in bound:
                path = path.replace(f"{{{each}}}", f"{{{names[each]}}}")
            self.paths[path][verb] = operation

    def _parameters(self, method: MethodDescriptorProto, bound: Sequence[str], *, in_query: bool) -> Iterator[Json]:
        for field in self._protos.messages[method.input_type].field:
            if field.name in bound:
                schema = {**self._value(field, method.input_type), "minLength": 1, "pattern": "^[^/:]+$"}
                text = self._protos.said(f"{method.input_type}.{field.name}")
                yield {"name": field.json_name, "in": "path", "required": True, "description": text, "schema": schema}
            elif in_query and field.type != _F.TYPE_MESSAGE:
                described = self._field(method.input_type, field)
                text = described.pop("description", "")
                if field.type == _F.TYPE_ENUM:  # in a query, the gateway takes its number as well
                    described = {"anyOf": [described, {"type": "integer"}]}
                needed = {"required": True} if self._required(method.input_type, field) else {}
                yield {"name": field.json_name, "in": "query", **needed, "description": text, "schema": described}
        if method.output_type.removeprefix(".") == STREAM_BODY and not _is_download(method):
            text = "The seq of the last event that the client has; counts more than any field of the request. Empty is none."
            number = {"type": "string", "pattern": "^[0-9]{0,18}$"}
            yield {"name": "Last-Event-ID", "in": "header", "description": text, "schema": number}

    def _answer(self, method: MethodDescriptorProto) -> Json:
        if _is_download(method):
            return {"description": "The bytes.", "content": {"application/octet-stream": {}}}
        if method.output_type.removeprefix(".") == STREAM_BODY:
            return {"description": "A stream of events.", "content": {"text/event-stream": {"itemSchema": self._server_sent_event()}}}
        schema = self.schema(method.output_type)
        if method.server_streaming:
            return {"description": "A stream: one object per line.", "content": {"application/jsonl": {"itemSchema": schema}}}
        return {"description": "Done.", "content": {"application/json": {"schema": schema}}}

    def _server_sent_event(self) -> Json:
        """One block; `data` is JSON, of a message that the block's name decides."""
        package = next(name for name in self._protos.messages if name.endswith(".ResumeResponse")).rsplit(".", 1)[0]
        notices = [field for field in self._protos.messages[f"{package}.ResumeResponse"].field if field.name != "events"]
        told = {field.name: self.schema(field.type_name) for field in notices if field.name != "heartbeat"}
        told["error"] = {"$ref": "#/components/schemas/Status"}
        event = self._protos.messages[f"{package}.Event"]
        bodies = [field.name for field in event.field if field.HasField("oneof_index") and not field.proto3_optional]

        def block(names: Sequence[str], data: Json, required: Sequence[str]) -> Json:
            content = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
            number = {"type": "string", "pattern": "^[1-9][0-9]*$"}
            fields = {"event": {"enum": [*names]}, "data": content, **({"id": number} if "id" in required else {})}
            return {"type": "object", "required": [*required], "properties": fields}

        self.schemas["ServerSentEvent"] = {
            "description": "An event of the log has its seq as `id`; what is about the stream itself has none. `error` is both: "
            "with an id an event of the log, without one the end of the stream.",
            "anyOf": [
                block(bodies, self.schema(f"{package}.Event"), ("id", "event", "data")),
                *(block([name], schema, ("event", "data")) for name, schema in told.items()),
            ],
        }
        return {"$ref": "#/components/schemas/ServerSentEvent"}

    def _failures(self, service: str, method: MethodDescriptorProto) -> Json:
        reasons: dict[int, set[str]] = defaultdict(set)
        for reply in LOCAL_REPLIES:
            reasons[reply.status].add(reply.reason)
        for code, reason in set(self._reasons(service, method.name, set())):
            reasons[HTTP_STATUS[code]].add(reason)
        return {str(status): _failure(status, sorted(reasons[status])) for status in sorted(reasons)}

    def _reasons(self, service: str, method: str, seen: set[str]) -> Iterator[tuple[str, str]]:
        """What the comments of a method, of its service, and of the methods that it refers to name."""
        if f"{service}.{method}" in seen:
            return
        seen.add(f"{service}.{method}")
        text = re.sub(r"\s+", " ", self._protos.said(f"{service}.{method}"))
        yield from re.findall(r"\b([A-Z_]+)/([A-Z_]+)\b", text + " " + self._protos.said(service))
        package = service.rsplit(".", 1)[0]
        for of_service, name in re.findall(r"\b(?:is|as) (?:(\w+Service)\.)?([A-Z]\w+)", text):
            other = f"{package}.{of_service}" if of_service else service
            if f"{other}.{name}" in self._protos.comments and other in self._protos.services:
                yield from self._reasons(other, name, seen)

    def write(self) -> str:
        """The finished document."""
        self.schemas |= _error_schemas()
        return json.dumps(
            {
                "openapi": "3.2.0",
                "info": {
                    "title": "Treadle",
                    "version": "v1",
                    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                    "description": "Coding sessions over HTTP, through the gateway. Made from the protos by protos/openapi_plugin.py.",
                },
                "servers": [{"url": "http://127.0.0.1:7430", "description": "`treadle up`"}],
                "security": [{"apiKey": []}],
                "paths": dict(sorted(self.paths.items())),
                "components": {
                    "schemas": dict(sorted(self.schemas.items())),
                    "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer", "description": "An API key of Treadle."}},
                },
            },
            indent=2,
            ensure_ascii=False,
        )


def _is_download(method: MethodDescriptorProto) -> bool:
    return method.output_type.removeprefix(".") == STREAM_BODY and method.name.startswith("Download")


def _limits(kind: int, comment: str) -> Json:
    """What a request's comment says of a field, in these words: `1 to 200; 0 for 50` of a number, `1 to 100 characters`, `at most 100
    characters` or `Needed.` of a text."""

    def found(pattern: str) -> list[int]:
        match = re.search(pattern, re.sub(r"\s+", " ", comment))
        return [int(number.replace(",", "")) for number in match.groups()] if match else []

    if kind == _F.TYPE_INT32:
        return {"minimum": 0, "maximum": limits[1]} if (limits := found(r"\b([\d,]+) to ([\d,]+); 0 for \d")) else {}
    if kind != _F.TYPE_STRING:
        return {}
    if limits := found(r"\b([\d,]+) to ([\d,]+) characters"):
        return {"minLength": limits[0], "maxLength": limits[1]}
    longest = {"maxLength": limits[0]} if (limits := found(r"\b[Aa]t most ([\d,]+) characters")) else {}
    return longest | ({"minLength": 1} if re.search(r"\bNeeded\.", comment) else {})


def _described(schema: Json, text: str) -> Json:
    return {**schema, "description": text} if text else schema


def _failure(status: int, reasons: Sequence[str]) -> Json:
    named = ", ".join(f"`{reason}`" for reason in reasons)
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}}}
    return {"description": f"{PHRASES[status]}. Reasons: {named}.", "content": content}


def _error_schemas() -> Json:
    """google.rpc.Status with the details that failures carry."""

    def detail(name: str, properties: Json, required: Sequence[str]) -> Json:
        kind = {"const": f"type.googleapis.com/google.rpc.{name}"}
        return {"type": "object", "required": ["@type", *required], "properties": {"@type": kind, **properties}}

    text = {"type": "string"}
    violation = {"type": "object", "properties": {"field": text, "description": text, "reason": text}, "required": ["field", "description"]}
    return {
        "Status": {
            "type": "object",
            "description": "A failure (google.rpc.Status). The first detail is always an ErrorInfo; bad input also names its fields.",
            "required": ["code", "message", "details"],
            "properties": {
                "code": {"type": "integer", "minimum": 1, "maximum": 16, "description": "google.rpc.Code"},
                "message": {**text, "description": "One sentence for a person."},
                "details": {
                    "type": "array",
                    "prefixItems": [{"$ref": "#/components/schemas/ErrorInfo"}],
                    "items": {"$ref": "#/components/schemas/BadRequest"},
                    "minItems": 1,
                },
            },
        },
        "ErrorInfo": detail(
            "ErrorInfo",
            {
                "reason": {**text, "pattern": "^[A-Z][A-Z_]+$", "description": "Stable: what a program decides by."},
                "domain": {"const": "treadle"},
                "metadata": {"type": "object", "additionalProperties": text},
            },
            ("reason", "domain"),
        ),
        "BadRequest": detail("BadRequest", {"fieldViolations": {"type": "array", "items": violation}}, ("fieldViolations",)),
    }


def main() -> None:
    """Read a CodeGeneratorRequest, write a CodeGeneratorResponse with one file."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    document = Document(Protos(request.proto_file))
    for file in request.proto_file:
        if file.name in request.file_to_generate:
            for service in file.service:
                for method in service.method:
                    document.add(f".{file.package}.{service.name}", method)
    response = plugin_pb2.CodeGeneratorResponse(supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    response.file.add(name="treadle.openapi.json", content=document.write() + "\n")
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
