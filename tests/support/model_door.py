"""An agent at a door to models, and a bill that keeps what it hears."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from server.kernel.budget import Purse, admit
from server.kernel.model_use import Budget, ModelUse, Spent
from server.kernel.ports.launcher import ModelDoor
from server.kernel.ports.model_gateway import Cut, ModelTrouble

MESSAGES = "/v1/messages?beta=true"
RESPONSES = "/v1/responses"


class RecordingBill:
    """A ModelBill with a budget, and without a turn."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.purse = Purse("the test", budget or Budget(), Spent())
        self.expected: list[ModelUse] = []
        self.uses: list[ModelUse] = []
        self.troubles: list[ModelTrouble] = []
        self.troubled = asyncio.Event()
        """Set when something was told."""
        self.renewals = 0
        self.admitted = 0
        self.unsettled = 0
        self.settled = asyncio.Event()
        """Set when a request's use is known."""
        self.trace_parent = ""
        self.costs_are_limited = bool(self.purse.budget.micros)

    async def admit(self, expected: ModelUse) -> RecordingReservation:
        self.expected.append(expected)
        reservation = RecordingReservation(self)
        await admit([self.purse], reservation, Spent.of(expected))
        self.admitted += 1
        self.unsettled += 1
        return reservation

    async def trouble(self, trouble: ModelTrouble) -> None:
        self.troubles.append(trouble)
        self.troubled.set()

    def secrets_changed(self) -> None:
        self.renewals += 1

    def on_exhausted(self, cut: Cut) -> None:
        self.purse.watch(lambda _: cut())

    @property
    def codes(self) -> list[str]:
        return [trouble.code for trouble in self.troubles]


class RecordingReservation:
    def __init__(self, bill: RecordingBill) -> None:
        self._bill = bill

    def count(self, use: ModelUse) -> None:
        self._bill.purse.count(self, Spent.of(use))

    async def settle(self, use: ModelUse | None) -> None:
        self._bill.purse.end(self, Spent.of(use) if use else Spent())
        self._bill.unsettled -= 1
        if use is not None:
            self._bill.uses.append(use)
        self._bill.settled.set()


@dataclass(frozen=True)
class Said:
    status: int
    headers: dict[str, str]
    body: bytes
    json: Any = None


@dataclass
class Agent:
    """Speaks HTTP on the door's socket, as agents do."""

    door: ModelDoor
    bill: RecordingBill
    http: aiohttp.ClientSession
    key: dict[str, str] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def at(cls, door: ModelDoor, bill: RecordingBill) -> AsyncIterator[Agent]:
        async with aiohttp.ClientSession(
            "http://gateway", connector=aiohttp.UnixConnector(str(door.socket)), auto_decompress=False
        ) as http:
            yield cls(door, bill, http, {"x-api-key": door.token})

    def post(self, path: str = MESSAGES, body: Any = None, *, headers: dict[str, str] | None = None, **options: Any) -> Any:
        """An aiohttp request context. A body that is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(ask() if body is None else body).encode()
        return self.http.post(path, headers={**self.key, **(headers or {})}, data=io.BytesIO(data), **options)

    async def say(self, path: str = MESSAGES, body: Any = None, **options: Any) -> Said:
        """Ask, and read the answer to its end."""
        async with self.post(path, body, **options) as answer:
            data = await answer.read()
            parsed = await answer.json() if answer.content_type == "application/json" else None
            return Said(answer.status, {name.lower(): value for name, value in answer.headers.items()}, data, parsed)


def ask(text: str = "hi", *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    """A request in Anthropic's format."""
    return {"model": "claude-sonnet-4-5", "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": text}], **fields}


def ask_openai(text: str = "hi", *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-5-codex", "stream": stream, "input": [{"type": "message", "role": "user", "content": text}], **fields}
