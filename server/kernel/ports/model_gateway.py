"""Port: the one way from an agent to a model."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from server.kernel.model_use import ModelUse
from server.kernel.ports.launcher import ModelDoor


@dataclass(frozen=True)
class ModelTrouble:
    """Something that went wrong between an agent and a model. `code` is a stable word, `message` a sentence without secrets.

    MODEL_REQUEST_REFUSED: the agent asked for what it may not have; where there is a provider_status, in the provider's eyes.
    MODEL_RATE_LIMITED, MODEL_OVERLOADED, MODEL_UNAVAILABLE: the provider's answer. MODEL_CREDENTIAL_REFUSED: the server's own credential
    is not taken. MODEL_ANSWER_CUT: an answer broke off. MODEL_SLOW: the provider says nothing, and is waited for; once in a request.

    The sentence names the host, the status where there is one, the provider's words, and what happens next or what to check.
    """

    code: str
    message: str
    retryable: bool = False
    """True when the gateway tries again."""
    attempt: int = 0
    """Which try failed, from 1; 0 where nothing is tried again."""
    provider_status: int = 0
    """The provider's HTTP status; 0 for none."""


class Reservation(Protocol):
    """One request under way, on somebody's bill."""

    def count(self, use: ModelUse) -> None:
        """What the request is known to have used by now: the whole of it, not a difference. Cheap; called for each piece of an answer.
        When that empties the purse, everybody who was given the bill is told to cut."""
        ...

    async def settle(self, use: ModelUse | None) -> None:
        """The request has ended; None when it used nothing. Returns when the use is durable. Once."""
        ...


class ModelBill(Protocol):
    """Who pays for a turn's requests, and hears what becomes of them: the kernel's side of the gateway."""

    @property
    def costs_are_limited(self) -> bool:
        """Whether there is a budget of money: then a request whose price is not known must be refused."""
        ...

    @property
    def trace_parent(self) -> str:
        """What the spans of requests are part of (see Tracer); empty for the span in which the door was opened."""
        ...

    async def admit(self, expected: ModelUse) -> Reservation:
        """Ask for one more request, which will use `expected` at most. Waits while it does not fit beside those under way.
        Errors: BudgetExhausted."""
        ...

    async def trouble(self, trouble: ModelTrouble) -> None:
        """Tell the turn's readers; when one turn has too much to tell, the rest is dropped, and that is told."""
        ...

    def secrets_changed(self) -> None:
        """The server knows a new secret, which must be kept out of the turn's events from now on."""
        ...

    def on_exhausted(self, cut: Cut) -> None:
        """Call `cut` when the budget is used up."""
        ...


class Cut(Protocol):
    """Ends every request that is under way."""

    def __call__(self) -> None:
        """At once."""
        ...


class ModelGateway(Protocol):
    """A wall, not a pipe. For each turn it listens at the turn's own door as long as the agent's part lasts, and answers there as the
    model's provider does.

    - A request passes only with the door's token, for a method, path and model that are allowed, and with nothing in it that reaches
      the network, another tenant or the future through the shared credential: tools that run at the provider, remote tool servers,
      containers, sources by URL or file id, stored answers, work in the background, batches. What is not known is not allowed. What
      is refused is answered in the provider's own form, and told to the bill.
    - What goes to the provider is written anew from what was checked, with the server's credential in the place of the token.
    - Answers pass piece by piece as they come, and are counted on the way.
    - Overload, rate limits, failures and silence before the first byte are tried again within limits, each told. An answer that stands
      still is cut off. What is final is answered with a status that agents do not try again. An answer that breaks off is passed on
      broken off.
    - After `open` has ended, socket and token are dead, every request has ended, and what each used is settled.
    """

    def check(self, provider: str, model: str) -> None:
        """Whether this agent can reach a model, and may use this one; an empty name is for the one that it takes by itself.
        Errors: ProviderNotConfigured, ModelNotAllowed."""
        ...

    def serves(self, provider: str) -> bool:
        """Whether this agent gets a door at all: one that plays recordings must not reach a model."""
        ...

    def open(self, door: ModelDoor, *, provider: str, bill: ModelBill) -> AbstractAsyncContextManager[None]:
        """Listen at the door. Errors: LaunchFailed when that is not possible."""
        ...
