"""Use cases: say something to a session while it works, and answer what its agent asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from server.kernel.agent_request import Answer, RequestOutcome, Resolution, check_resolution
from server.kernel.errors import InvalidField
from server.kernel.finish import Finishing
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.ports.input_store import InputStore, Sent, Starter
from server.kernel.ports.model_gateway import ModelGateway
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.tracer import Tracer
from server.kernel.quota import Quota
from server.kernel.supervisor import Supervisor
from server.kernel.user_input import Delivery, InputPage, NewInput, UserInput
from server.kernel.validation import check_agent_request_id, check_answer_texts, check_page_size, check_prompt, check_request_id

MAX_QUEUED = 100
DEFAULT_PAGE = 50
MAX_PAGE = 200


class Inputs:
    """Writes what callers say, durably, and calls whoever drives the session. Another replica's finds it with its next sweep."""

    def __init__(
        self,
        store: InputStore,
        sessions: SessionStore,
        supervisor: Supervisor,
        *,
        models: ModelGateway,
        quota: Quota,
        starter: Starter,
        mark: Callable[[str], None],
        tracer: Tracer,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._models = models
        self._quota = quota
        self._supervisor = supervisor
        self._starter = starter
        self._mark = mark
        self._tracer = tracer
        self._finishing = Finishing()

    async def finished(self) -> None:
        """Wait for what callers left behind, as long as there are stores."""
        await self._finishing.finished()

    async def send(self, principal: Principal, session_id: str, *, text: str, delivery: Delivery, request_id: str) -> UserInput:
        """Errors: as listed at SessionService.SendInput."""
        check_request_id(request_id)
        check_prompt(text, field="text")
        # The turn that it becomes goes on with the session's agent and model.
        session = await self._sessions.get(principal, session_id)
        self._models.check(session.provider or self._starter.default_provider, session.model)
        await self._quota.check(principal)
        new = NewInput(new_id(), request_id, text, delivery)
        # Between the database's yes and the start of a turn's task no caller who leaves may come.
        return await self._finishing.run(self._send(principal, session_id, new))

    async def list(self, principal: Principal, session_id: str, *, page_size: int, page_token: str, everything: bool) -> InputPage:
        """Errors: as listed at SessionService.ListInputs."""
        size = check_page_size(page_size, default=DEFAULT_PAGE, limit=MAX_PAGE)
        return await self._store.list(principal, session_id, page_size=size, page_token=page_token, everything=everything)

    async def update(self, principal: Principal, session_id: str, input_id: str, *, text: str, version: int) -> UserInput:
        """Errors: as listed at SessionService.UpdateInput."""
        check_prompt(text, field="text")
        updated = await self._store.update(principal, session_id, input_id, text=text, version=version)
        self._supervisor.call(session_id)
        return updated

    async def cancel(self, principal: Principal, session_id: str, input_id: str) -> UserInput:
        """Errors: as listed at SessionService.CancelInput."""
        cancelled = await self._store.cancel(principal, session_id, input_id)
        self._supervisor.call(session_id)
        return cancelled

    async def resolve(
        self,
        principal: Principal,
        session_id: str,
        request_id: str,
        *,
        option_id: str,
        answers: Sequence[Answer],
        decline: bool,
        note: str,
    ) -> Resolution:
        """Errors: as listed at SessionService.ResolveRequest."""
        if [bool(option_id), bool(answers), decline].count(True) != 1:
            raise InvalidField("option_id", "answer with exactly one of option_id, answers and decline")
        check_agent_request_id(request_id)
        check_answer_texts([answer.text for answer in answers], note=note)
        outcome = RequestOutcome.CHOSEN if option_id else RequestOutcome.ANSWERED if answers else RequestOutcome.DECLINED
        resolution = Resolution(request_id, outcome, option_id, tuple(answers), principal.user_id, note)
        check_resolution(await self._store.request(principal, session_id, request_id), resolution)
        self._mark("resolve.before")
        resolved = await self._store.resolve(principal, session_id, resolution)
        self._mark("resolve.after")
        self._supervisor.call(session_id)
        return resolved

    async def _send(self, principal: Principal, session_id: str, new: NewInput) -> UserInput:
        with self._supervisor.place() as replica:
            starter = replace(self._starter, replica=replica, trace_parent=self._tracer.current())
            self._mark("send.before")
            sent = await self._store.send(principal, session_id, new, starter=starter, limit=MAX_QUEUED)
            self._mark("send.after")
            self._begin(sent)
        return sent.input

    def _begin(self, sent: Sent) -> None:
        if sent.started is not None:
            self._supervisor.begin(sent.started)
        self._supervisor.call(sent.input.session_id)
