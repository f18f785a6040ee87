"""Use case: ask for a change. Start a turn, or find the one that this very request started before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from server.kernel import naming
from server.kernel.errors import InvalidField, ProviderUnknown, RequestIdReused
from server.kernel.finish import Finishing
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.inspection import Inspections
from server.kernel.ports.egress import Egress
from server.kernel.ports.model_gateway import ModelGateway
from server.kernel.ports.session_store import SessionStore
from server.kernel.ports.tracer import Tracer
from server.kernel.ports.turn_store import NewTurn, TurnStore
from server.kernel.quota import Quota
from server.kernel.rush import Rush
from server.kernel.session import NewSession, Session
from server.kernel.supervisor import Supervisor
from server.kernel.turn import Turn
from server.kernel.validation import check_base_branch, check_model, check_prompt, check_provider, check_request_id, check_title


@dataclass(frozen=True)
class Request:
    """What a caller asks for; fields as in treadle.session.v1.ExecuteSessionRequest."""

    request_id: str
    session_id: str
    repository_url: str
    base_branch: str
    branch: str
    prompt: str
    provider: str
    model: str
    title: str
    approvals: str = ""
    """Empty, or `ASK`."""
    allowed_hosts: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Tells a repeated request from a reused request_id."""
        fields = asdict(self)
        # As before there were such fields, for requests that are repeated after an upgrade.
        for later in ("approvals", "allowed_hosts"):
            if not fields[later]:
                del fields[later]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Started:
    """The turn to follow; `existing` when the request had started it before."""

    turn: Turn
    existing: bool


class Execute:
    """Starts turns. Everything that can be wrong with a request is found before anything is created."""

    def __init__(
        self,
        sessions: SessionStore,
        turns: TurnStore,
        inspections: Inspections,
        supervisor: Supervisor,
        *,
        rush: Rush,
        tracer: Tracer,
        providers: Callable[[], Sequence[str]],
        models: ModelGateway,
        egress: Egress,
        quota: Quota,
        default_provider: str,
        lease_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._turns = turns
        self._inspections = inspections
        self._supervisor = supervisor
        self._rush = rush
        self._tracer = tracer
        self._providers = providers
        self._models = models
        self._egress = egress
        self._quota = quota
        self._default_provider = default_provider
        self._lease_seconds = lease_seconds
        self._finishing = Finishing()

    async def finished(self) -> None:
        """Wait for what callers left behind, as long as there are stores."""
        await self._finishing.finished()

    async def __call__(self, principal: Principal, request: Request) -> Started:
        """Errors: as listed at SessionService.ExecuteSession."""
        known = await self.find(principal, request)
        if known is not None:
            return Started(known, existing=True)
        self._check(request)
        self._supervisor.admit()
        self._check_model_access(request)
        await self._quota.check(principal)
        session, provider, model = await self._session(principal, request)
        self._models.check(provider, model)
        turn = NewTurn(
            new_id(),
            request.request_id,
            request.digest,
            provider,
            model,
            request.prompt,
            trace_parent=self._tracer.current(),
            approvals=request.approvals,
        )
        try:
            # Between the database's yes and the supervisor's start no caller who leaves may come.
            begun = await self._finishing.run(self._begin(principal, session, turn))
        except RequestIdReused:
            # The same request came twice at the same time, and the other one was first.
            known = await self._known(principal, request)
            if known is None:
                raise
            return Started(known, existing=True)
        return Started(begun, existing=False)

    async def find(self, principal: Principal, request: Request) -> Turn | None:
        """The turn that this very request started before. Errors: InvalidField, RequestIdReused."""
        check_request_id(request.request_id)
        return await self._known(principal, request)

    async def _begin(self, principal: Principal, session: NewSession | str, turn: NewTurn) -> Turn:
        self._rush.enter(turn.id)
        try:
            with self._supervisor.place() as replica:
                begun = await self._turns.start(principal, session, turn, replica=replica, lease_seconds=self._lease_seconds)
                self._supervisor.begin(begun)
        except BaseException:
            self._rush.leave(turn.id)
            raise
        if isinstance(begun, Turn):
            # Its first events need no place, and so nobody has to stand back for them.
            self._rush.leave(turn.id)
            return begun
        return begun.turn

    async def _known(self, principal: Principal, request: Request) -> Turn | None:
        if not request.request_id:
            return None
        turn = await self._turns.find_request(principal, request.request_id)
        if turn is not None and turn.request_digest != request.digest:
            raise RequestIdReused(request.request_id)
        return turn

    def _check(self, request: Request) -> None:
        check_prompt(request.prompt)
        check_title(request.title)
        check_model(request.model)
        check_base_branch(request.base_branch)
        if request.branch:
            naming.check_branch_name(request.branch)
        check_provider(request.provider)
        self._check_provider(request.provider)

    def _check_provider(self, provider: str) -> None:
        known = [*self._providers()]
        if provider and provider not in known:
            raise ProviderUnknown(provider, known)

    def _check_model_access(self, request: Request) -> None:
        """Before the repository is asked, where the agent is known already. Errors: ProviderNotConfigured, ModelNotAllowed."""
        if request.provider or not request.session_id:
            self._models.check(request.provider or self._default_provider, request.model)

    async def _session(self, principal: Principal, request: Request) -> tuple[NewSession | str, str, str]:
        """The session to make or to go on with, and the agent and model to use."""
        if not request.session_id:
            return await self._new_session(principal, request), request.provider or self._default_provider, request.model
        session = await self._sessions.get(principal, request.session_id)
        _check_same(session, request)
        if request.allowed_hosts and self._egress.check(request.allowed_hosts) != session.allowed_hosts:
            raise InvalidField("allowed_hosts", "change the hosts of a session with UpdateSession")
        if request.branch and not session.branch and request.branch != session.branch_requested:
            wanted = f"was made for the branch {session.branch_requested!r}" if session.branch_requested else "gets a branch by itself"
            raise InvalidField("branch", f"the session {wanted}; `treadle push {session.id} --branch NAME` gives it another one")
        provider = request.provider or session.provider or self._default_provider
        self._check_provider(provider)
        model = request.model or (session.model if provider == session.provider else "")
        return session.id, provider, model

    async def _new_session(self, principal: Principal, request: Request) -> NewSession:
        hosts = self._egress.check(request.allowed_hosts)
        url, base = await self._inspections.repository(principal, request.repository_url, request.base_branch, request.branch)
        return NewSession(new_id(), url, base, branch_requested=request.branch, title=request.title, allowed_hosts=hosts)


def _check_same(session: Session, request: Request) -> None:
    """A session stays with its repository and its branch."""
    if request.repository_url and request.repository_url.removesuffix("/").removesuffix(".git") != session.repository_url.removesuffix(
        ".git"
    ):
        raise InvalidField("repository_url", f"the session is about {session.repository_url}")
    if request.base_branch and request.base_branch != session.base_branch:
        raise InvalidField("base_branch", f"the session grows from {session.base_branch}")
    if request.branch and session.branch and request.branch != session.branch:
        raise InvalidField("branch", f"the session has the branch {session.branch}")
    if request.title:
        raise InvalidField("title", "change the title of a session with UpdateSession")
