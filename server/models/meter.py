"""Counts tokens in an answer while it passes. Nothing is held back for it: a piece is handed on first, and read after."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from server.kernel.model_use import Tokens
from server.models.formats import Format
from server.models.rules import CHARS_PER_TOKEN, Expected

_MAX_LINE_BYTES = 32 * 1024 * 1024
"""A longer line of a stream is not read, and neither is a longer answer that is no stream."""
_HIDDEN_PER_SECOND = 100
"""About as many tokens as a fast model writes in a second."""


class Meter(ABC):
    """One answer, piece by piece. `rounds` is what is known by now; what was not told yet is estimated once something has come."""

    def __init__(self, *, streams: bool, expected: Expected) -> None:
        self.complete = False
        """Whether the provider has told all there is to tell."""
        self.broken = False
        """Whether the provider told of a failure in mid-stream."""
        self._streams = streams
        self._expected = expected
        self._buffer = bytearray()
        self._searched = 0
        self._skipping = False
        self._chars = 0
        self._told: dict[str, int] = {}
        self._besides: Sequence[Tokens] = ()
        """What the model was run for besides the answer, and is told apart."""

    def feed(self, piece: bytes) -> bool:
        """The next piece; whether more is known than before."""
        if not self._streams:
            self._keep(piece)
            return False
        self._buffer += piece
        changed = False
        begin = 0
        # Each byte is searched once, however small the pieces of a long line are.
        while (end := self._buffer.find(b"\n", max(begin, self._searched))) >= 0:
            if self._skipping:
                self._skipping = False
            else:
                changed |= self._line(bytes(self._buffer[begin:end]))
            begin = end + 1
            self._searched = begin
        del self._buffer[:begin]
        self._searched = len(self._buffer)
        if len(self._buffer) > _MAX_LINE_BYTES:
            self._buffer.clear()
            self._searched, self._skipping = 0, True
        return changed

    def finish(self) -> None:
        """The answer has come to its end."""
        if not self._streams and (body := _parsed(bytes(self._buffer))) is not None:
            self._whole(body)
        self._buffer.clear()

    @property
    def rounds(self) -> Sequence[Tokens]:
        """Each run of the model by itself, the answer first: one request may need several, and a price goes by the length of each. An
        answer that broke off has output that nobody counted: about as many tokens as its text has characters / 4."""
        told = self._told
        output = told.get("output", 0)
        if not self.complete:
            output = max(output, self._chars // CHARS_PER_TOKEN)
        answer = Tokens(**{"input": self._expected.input, **told, "output": output})
        if told:
            return [answer, *self._besides]
        return [answer, *[Tokens(self._expected.input)] * (self._expected.rounds - 1)]

    def owed(self, seconds: float) -> Sequence[Tokens]:
        """What an answer that ended after so many seconds is booked at. Of one that broke off nobody tells what it used: output that could
        not be seen is estimated, for one that is no stream by the most that it could have, else by the time that it had to be made."""
        if self.complete:
            return self.rounds
        if not self._streams:
            return self._expected.most
        answer, *besides = self.rounds
        if self._expected.hidden:
            unseen = min(self._expected.rounds * self._expected.output, int(seconds * _HIDDEN_PER_SECOND))
            answer = replace(answer, output=max(answer.output, unseen))
        return [answer, *besides]

    def _keep(self, piece: bytes) -> None:
        if not self._skipping:
            self._buffer += piece
            self._skipping = len(self._buffer) > _MAX_LINE_BYTES

    def _line(self, line: bytes) -> bool:
        """One line of server-sent events; each event's data is one line of JSON."""
        if not line.startswith(b"data:"):
            return False
        event = _parsed(line[5:])
        return event is not None and self._event(event)

    @abstractmethod
    def _event(self, event: dict[str, Any]) -> bool:
        """One event of a stream; whether more is known than before."""

    @abstractmethod
    def _whole(self, body: dict[str, Any]) -> None:
        """An answer that is no stream."""


class AnthropicMeter(Meter):
    """`message_start` tells the input, `message_delta` the output so far; `message_stop` is the end."""

    def _event(self, event: dict[str, Any]) -> bool:
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                return isinstance(message, dict) and self._usage(message.get("usage"))
            case "content_block_delta":
                delta = event.get("delta")
                if isinstance(delta, dict):
                    self._chars += sum(len(text) for name, text in delta.items() if name != "type" and isinstance(text, str))
                return True
            case "message_delta":
                return self._usage(event.get("usage"))
            case "message_stop":
                self.complete = True
                return True
            case "error":
                self.broken = True
        return False

    def _whole(self, body: dict[str, Any]) -> None:
        self.complete = self._usage(body.get("usage"))

    def _usage(self, usage: object) -> bool:
        if not isinstance(usage, dict):
            return False
        # Each is the sum so far, and later words of a stream need not repeat all.
        self._told |= _anthropic_counts(usage)
        if isinstance(iterations := usage.get("iterations"), list):
            # A summary of the conversation (`compaction`) is paid for, and in none of the sums.
            besides = [each for each in iterations if isinstance(each, dict) and each.get("type") != "message"]
            self._besides = [Tokens(**_anthropic_counts(each)) for each in besides]
        return True


class OpenAIMeter(Meter):
    """The last event (`response.completed`, `.incomplete` or `.failed`) tells everything; before it nothing is known."""

    def _event(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if not isinstance(kind, str):
            return False
        if kind.endswith(".delta"):
            self._chars += len(text) if isinstance(text := event.get("delta"), str) else 0
            return True
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            response = event.get("response")
            if isinstance(response, dict):
                self._whole(response)
            self.broken = kind == "response.failed"
            return True
        self.broken |= kind == "error"
        return False

    def _whole(self, body: dict[str, Any]) -> None:
        usage = body.get("usage")
        if not isinstance(usage, dict):
            return
        told = _counts(usage, input="input_tokens", output="output_tokens")
        told |= _counts(usage.get("input_tokens_details"), cache_read="cached_tokens")
        told |= _counts(usage.get("output_tokens_details"), reasoning="reasoning_tokens")
        # Here the input counts the cached tokens too.
        told["input"] = max(0, told.get("input", 0) - told.get("cache_read", 0))
        self._told, self.complete = told, True


def meter_for(form: Format, *, streams: bool, expected: Expected) -> Meter:
    """The meter of a format."""
    kind = OpenAIMeter if form is Format.OPENAI else AnthropicMeter
    return kind(streams=streams, expected=expected)


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _anthropic_counts(usage: dict[str, Any]) -> dict[str, int]:
    found = _counts(
        usage,
        input="input_tokens",
        output="output_tokens",
        cache_read="cache_read_input_tokens",
        cache_write="cache_creation_input_tokens",
    )
    found |= _counts(usage.get("cache_creation"), cache_write_hour="ephemeral_1h_input_tokens")
    return found | _counts(usage.get("output_tokens_details"), reasoning="thinking_tokens")


def _counts(usage: object, **names: str) -> dict[str, int]:
    """The counts that are there, by our names."""
    if not isinstance(usage, dict):
        return {}
    found = {ours: usage.get(theirs) for ours, theirs in names.items()}
    return {ours: value for ours, value in found.items() if isinstance(value, int) and not isinstance(value, bool) and value >= 0}
