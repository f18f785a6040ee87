"""A conversation with a model of the Messages API, as the plain list of messages that is sent to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_LIMIT_CHARS = 400_000
"""What is kept of earlier turns: about 100,000 tokens."""


@dataclass
class History:
    """Always a list that the API takes: each tool call of the model is followed by its result."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    def user_says(self, text: str) -> None:
        """A new turn."""
        self.messages.append({"role": "user", "content": [{"type": "text", "text": text}]})

    def model_says(self, content: Sequence[dict[str, Any]]) -> None:
        """The model's reply. One without content, which the API would not take back, is left out."""
        if content:
            self.messages.append({"role": "assistant", "content": [*content]})

    def tool_says(self, call_id: str, result: dict[str, Any]) -> None:
        """The result of one call of the last reply; all of a reply's results make one message."""
        block = {"type": "tool_result", "tool_use_id": call_id, **result}
        if self.messages[-1]["role"] == "assistant":
            self.messages.append({"role": "user", "content": []})
        self.messages[-1]["content"].append(block)

    def close_calls(self, reason: str) -> None:
        """Give each call of the last reply that has no result one that says why."""
        for call_id in self._open_calls():
            self.tool_says(call_id, {"content": reason, "is_error": True})

    def forget_beyond_limit(self) -> bool:
        """Drop the oldest turns of a history that is too long; whether there were any."""
        starts = [number for number, message in enumerate(self.messages) if _begins_turn(message)]
        sizes = [len(json.dumps(message)) for message in self.messages]
        keep = next((start for start in starts if sum(sizes[start:]) <= _LIMIT_CHARS), len(self.messages))
        forgotten, self.messages = self.messages[:keep], self.messages[keep:]
        return bool(forgotten)

    def to_bytes(self) -> bytes:
        """For `from_bytes` in another process; empty for an empty history."""
        return json.dumps({"messages": self.messages}).encode() if self.messages else b""

    @classmethod
    def from_bytes(cls, data: bytes) -> History:
        """The history; an empty one for no bytes. Errors: ValueError when it is none."""
        if not data:
            return cls()
        found = json.loads(data)
        messages = found.get("messages") if isinstance(found, dict) else None
        if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
            raise ValueError("the transcript holds no messages")
        history = cls(messages)
        history.close_calls("the turn ended before this was done")
        return history

    def _open_calls(self) -> list[str]:
        last = next((number for number in range(len(self.messages) - 1, -1, -1) if self.messages[number]["role"] == "assistant"), None)
        if last is None:
            return []
        done = {block.get("tool_use_id") for message in self.messages[last + 1 :] for block in message["content"]}
        return [block["id"] for block in self.messages[last]["content"] if block.get("type") == "tool_use" and block["id"] not in done]


def _is_message(message: object) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") in ("user", "assistant")
        and isinstance(message.get("content"), list)
        and all(isinstance(block, dict) and isinstance(block.get("id", ""), str) for block in message["content"])
    )


def _begins_turn(message: dict[str, Any]) -> bool:
    return message["role"] == "user" and all(block.get("type") == "text" for block in message["content"])
