"""What may stand in a request, whatever its format: read with limits, checked, written anew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from server.kernel.model_use import Tokens
from server.models.formats import OWNERS, Format, format_of

MAX_NODES = 500_000
"""Objects, lists and members in one request, marks in its texts among them: 32 MiB of nothing but brackets would become gigabytes of
Python objects, and nobody else would get to run while they are made. A million tokens of code have about a third of it."""

CHARS_PER_TOKEN = 4
TOKENS_PER_IMAGE = 1600
MOST_OUTPUT = 128_000
"""What the models of today write in one answer at most, whatever a request allows."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")


class Refused(Exception):
    """The request holds something that is not allowed; the message says what, in words that may be shown to anybody."""


@dataclass(frozen=True)
class Rules:
    """What a server allows, besides what is in the code."""

    models: Sequence[str]
    """Patterns with `*`."""
    fields: frozenset[str]
    """Further top-level fields."""


@dataclass(frozen=True)
class Expected:
    """What a request may use, in tokens, each time that the provider runs the model for it."""

    input: int
    """About as many as it has."""
    output: int
    """The most that it allows."""
    hidden: bool = False
    """Whether the model may think without showing all of it in the answer."""
    rounds: int = 1
    """How often the model may be run."""

    @property
    def most(self) -> Sequence[Tokens]:
        """The most that may be used, round by round."""
        return [Tokens(self.input, self.output)] * self.rounds


@dataclass(frozen=True)
class Checked:
    """A request that may pass, as it goes to the provider."""

    model: str
    streams: bool
    body: bytes
    expected: Expected


@dataclass
class Weight:
    """What in a request is no text: it counts by other rules."""

    images: int = 0
    binary_chars: int = 0

    def add(self, data: object) -> None:
        """An image or a document, as base64."""
        self.images += 1
        self.binary_chars += len(data) if isinstance(data, str) else 0


def read(data: bytes | bytearray) -> dict[str, Any]:
    """The request as JSON. Errors: Refused."""
    if sum(data.count(mark) for mark in (b"{", b"[", b",")) > MAX_NODES:
        raise Refused("the request has too many parts")
    try:
        body = json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        raise Refused("the request is nested too deeply") from None
    except ValueError as error:
        raise Refused(f"the request is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused("the request is not a JSON object")
    return body


def write(body: dict[str, Any], weight: Weight) -> tuple[bytes, int]:
    """The request as it is sent, and about how many tokens of input it has. What was not understood in reading cannot be in it: a name
    that stood there twice, another spelling, bytes behind the end. Errors: Refused."""
    try:
        data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (RecursionError, ValueError):
        raise Refused("the request cannot be written as JSON") from None
    return data, (len(data) - weight.binary_chars) // CHARS_PER_TOKEN + weight.images * TOKENS_PER_IMAGE


def check_fields(body: dict[str, Any], known: frozenset[str], refused: dict[str, str], rules: Rules) -> None:
    """Every top-level field must be known. Errors: Refused."""
    for name in body:
        if name in refused:
            raise Refused(f"{name}: {refused[name]}")
        if name not in known and name not in rules.fields:
            raise Refused(f"{name[:100]}: this field is not known here, and so not allowed")


def check_model(body: dict[str, Any], rules: Rules, form: Format) -> str:
    """The model. Errors: Refused."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refused("model: a model's name is needed")
    if reason := why_not(model, rules, frozenset({form})):
        raise Refused(f"model: {model[:100]!r} {reason}")
    return model


def why_not(model: str, rules: Rules, formats: frozenset[Format]) -> str:
    """Why an agent that speaks these formats may not use a model, as the end of a sentence that begins with its name; empty if it may."""
    if not _MODEL.fullmatch(model):
        return "is no model's name"
    if not any(fnmatchcase(model, pattern) for pattern in rules.models):
        return f"is not allowed on this server; TREADLE_MODELS allows {', '.join(rules.models)}"
    form = format_of(model)
    if form is not None and form not in formats:
        return f"is one of {OWNERS[form]}'s, which this agent does not speak to"
    return ""


def most_output(body: dict[str, Any], name: str) -> int:
    """How many tokens of output the request allows by this field; without it, what a model can do. Errors: Refused."""
    value = body.get(name)
    if value is None:
        return MOST_OUTPUT
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refused(f"{name}: a number of tokens is needed")
    return min(value, MOST_OUTPUT)


def flag(body: dict[str, Any], name: str) -> bool:
    """A boolean field, false when missing or null. Errors: Refused."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise Refused(f"{name}: true or false")


def objects(value: object, where: str) -> Iterable[dict[str, Any]]:
    """The members of a list of objects. Errors: Refused."""
    if not isinstance(value, list):
        raise Refused(f"{where}: a list is needed")
    for each in value:
        if not isinstance(each, dict):
            raise Refused(f"{where}: a list of objects is needed")
        yield each


def kind_of(value: dict[str, Any], where: str, default: str = "") -> str:
    """An object's `type`. Errors: Refused."""
    kind = value.get("type", default)
    if not isinstance(kind, str) or not kind:
        raise Refused(f"{where}: an object without a type")
    return kind


def among(value: object, known: frozenset[str]) -> bool:
    """Whether it is one of the known words; an agent may send anything, also what cannot be looked up."""
    return isinstance(value, str) and value in known


def forbidden(where: str, what: object, why: str) -> NoReturn:
    """Errors: Refused, always."""
    raise Refused(f"{where}: {str(what)[:100]!r} {why}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
