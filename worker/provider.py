"""Port: a coding agent. One file in `worker/providers/` each, found by the entry point group `treadle.provider`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent

GROUP = "treadle.provider"


class ProviderFailed(Exception):
    """The agent cannot go on; the message is one sentence for the user and ends the turn as FAILED, PROVIDER."""

    def __init__(self, message: str, stop_reason: str = "") -> None:
        super().__init__(message)
        self.stop_reason = stop_reason
        """The provider's own word for why it stopped, if it has one."""


def out_of_steps(limit: int) -> str:
    """What is told when an agent has asked its model as often as `Request.max_steps` says."""
    return f"the agent asked its model {limit} times, as often as it may in one turn (TREADLE_AGENT_STEPS)"


class RequestMalformed(ValueError):
    """No person could answer this request: it has no options, doubled ids, or is too large. Nothing was asked."""


@dataclass(frozen=True)
class UserMessage:
    """Something that the user says while the agent works."""

    input_id: str
    text: str


class Inbox(Protocol):
    """What the user says while the agent works. Only a provider that can be steered looks here.

    An input is handed over only while `next` waits, and cannot be changed by the user from then on: call `next` where the agent could
    take it. What was not confirmed by `taken` when the turn ends becomes the session's next turn, so nothing is lost by not taking it.
    """

    async def next(self) -> UserMessage:
        """Wait for the next input. A wait that is cancelled loses nothing: what comes meanwhile is there for the next call."""
        ...

    async def taken(self, input_id: str) -> None:
        """The agent has this input. Told as user_input DELIVERED at this place among the events; call it before what answers it."""
        ...


class Desk(Protocol):
    """Where an agent asks. A call waits for the answer as long as it takes, also over restarts of the server; a cancelled one withdraws
    the request. The desk sets the `request_id`. At most 16 requests are open; further ones wait for their turn. Long texts are cut.

    Outcomes: CHOSEN and ANSWERED are answers; DECLINED and EXPIRED mean that the agent has to do without (an approval is not given).
    Errors: RequestMalformed.
    """

    async def approve(self, request: session.ApprovalRequested) -> session.RequestResolved:
        """Ask for a yes or no."""
        ...

    async def ask(self, request: session.QuestionRequested) -> session.RequestResolved:
        """Ask questions."""
        ...


@dataclass(frozen=True)
class ModelAccess:
    """The one way to a model: HTTP/1.1 on a unix socket, where the server's gateway answers as the model's provider would.

    It knows the paths `/v1/messages`, `/v1/messages/count_tokens` and `/v1/responses`. While a server restarts a request waits here for an
    answer; one whose answer was cut is to be repeated.
    """

    socket: Path
    token: str
    """In the place of an API key (`x-api-key`, or `authorization: Bearer`); good on this socket and during this turn only."""


@dataclass(frozen=True)
class Request:
    """What the agent shall do, and where; and how it hears from the user while it works."""

    prompt: str
    model: str
    """As the user gave it; empty for the provider's own choice."""
    workspace: Path
    """The repository's working tree, and the current directory of everything that the agent runs."""
    turn_number: int
    """From 1, within the session."""
    approvals: session.Approvals
    """ASK: the agent asks at the desk before it changes or runs something. UNSPECIFIED: never; the sandbox is the wall."""
    inbox: Inbox
    desk: Desk
    models: ModelAccess | None = None
    """None only in tests of providers that need no model."""
    max_steps: int = 0
    """How often the agent may ask its model; 0 for no limit. One that needs more fails, with what it did so far in place."""
    transcript: bytes = b""
    """What the same provider left as its `transcript` in an earlier turn of the session; empty for none. Of a known provenance, but it
    went through the hands of an agent: bytes that make no sense are no reason to fail."""
    allowed_hosts: tuple[str, ...] = ()
    """Where the agent's programs may connect to, by the proxy that their environment names; empty for nowhere."""


def network_of(request: Request) -> str:
    """What an agent is told of its network: one sentence, as a model reads it."""
    if not request.allowed_hosts:
        return "There is no network."
    hosts = ", ".join(request.allowed_hosts)
    return f"There is no network but an HTTP proxy, which HTTPS_PROXY and HTTP_PROXY name; it leads to {hosts}, and to nothing else."


class Emitter(Protocol):
    """Where an agent tells what happens. Order is kept. Both calls wait while the server is behind: that is the back-pressure."""

    async def emit(self, event: WorkerEvent) -> None:
        """Tell a whole event. `occurred_at` is set here when it is missing; an event above 256 KiB is cut and marked so.

        The event is serialised before the call returns, so the caller may change and reuse it.
        """
        ...

    async def delta(self, item_id: str, channel: session.Channel, text: str) -> None:
        """Tell the next piece of a growing item. Pieces are joined for about 100 ms or 4 KiB; offsets are counted here."""
        ...


class Provider(Protocol):
    """One agent for one turn; made without arguments.

    - `run` returns the provider's own word for why the agent stopped (for example `end_turn`), and may be called once.
    - It raises ProviderFailed when the agent cannot do its work; any other exception counts as a defect of the provider and
      ends the turn the same way.
    - Soon after `interrupted` is set it stops the agent and returns. After a grace of half a second it is cancelled instead; it
      must not swallow that. Either way its processes are killed.
    - It says what happens through the emitter while it happens: a message at least, a tool call before its result, each item
      under an id that is unique within the turn.
    - `transcript`, read after `run` has ended in whatever way, is what this provider needs in the session's next turn, in another
      worker, to remember this one. Empty when there is nothing to keep, and as good as empty above 32 MiB, which is told: then the one
      from before stays.
    - It keeps to the workspace, needs no network but `Request.models` and no credentials of its own, and imports its agent's library
      only when made.
    """

    @property
    def transcript(self) -> bytes:
        """What to remember."""
        ...

    async def run(self, request: Request, emitter: Emitter, interrupted: asyncio.Event) -> str:
        """Carry out one request."""
        ...


def make_provider(name: str) -> Provider:
    """The provider of that name. Errors: ProviderFailed when it is not installed or cannot be imported."""
    # Here and not above: it takes 25 ms, which a worker's start would wait for.
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name=name):
        try:
            provider: Provider = entry.load()()
        except ImportError as error:
            raise ProviderFailed(f"provider {name!r} cannot be loaded: {error}") from error
        return provider
    raise ProviderFailed(f"provider {name!r} is not installed in the worker")
