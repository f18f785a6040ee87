"""Use case: bring a session's work to its remote when its turns could not."""

from __future__ import annotations

from functools import partial

from server.kernel import naming
from server.kernel.errors import PushRefused, TurnActive
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.journal import Notes
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.repositories import Repositories
from server.kernel.ports.session_store import SessionStore
from server.kernel.push_refusal import PushOutcome
from server.kernel.retrieval import Retrieval
from server.kernel.session import Session


class Pushes:
    """While no turn is active: at its end a turn pushes by itself."""

    def __init__(
        self,
        sessions: SessionStore,
        repositories: Repositories,
        notes: Notes,
        codec: EventCodec,
        *,
        retrieval: Retrieval,
        branch_prefix: str,
    ) -> None:
        self._retrieval = retrieval
        self._sessions = sessions
        self._repositories = repositories
        self._notes = notes
        self._codec = codec
        self._branch_prefix = branch_prefix

    async def __call__(self, principal: Principal, session_id: str, *, onto: str) -> Session:
        """Push the newest commit to the session's branch, or to the new one `onto`. Returns the session as it is then. One that
        has no commit stays as it is, but for `onto`, which is made where its base branch is. Errors: as listed at
        SessionService.PushSession."""
        if onto:
            naming.check_branch_name(onto, field="onto_new_branch")
        session = await self._sessions.get(principal, session_id)
        if session.active_turn_id:
            raise TurnActive(session.id, session.active_turn_id)
        commit, branch = session.head_commit, onto or self._branch_of(session)
        if not commit and not onto:
            return session
        if commit:
            await self._retrieval.ensure(session, commit)
        else:
            # As its first turn would begin: the way on where that could not make the branch.
            commit = await self._repositories.fetch(session.repository, branch=session.base_branch, session_branch="", head_commit="")
        try:
            await self._repositories.push(session.repository, branch=branch, commit=commit, create=branch != session.branch)
        except PushRefused as error:
            await self._tell(principal, session, branch, commit, error)
            about = {"session_id": session.id, "repository": session.repository_url, "commit": session.head_commit}
            raise PushRefused(error.reason, error.kind, **about) from error
        if session.unpushed_commit or branch != session.branch:
            await self._tell(principal, session, branch, commit, None)
        return await self._sessions.get(principal, session_id)

    def _branch_of(self, session: Session) -> str:
        return session.branch or session.branch_requested or naming.branch_from(self._branch_prefix, session.title, session.id)

    async def _tell(self, principal: Principal, session: Session, branch: str, commit: str, error: PushRefused | None) -> None:
        """A push is told under an id of its own: each try is a fact."""
        note = partial(self._notes.note, principal, session.id, key=f"push/{commit}/{new_id()}")
        told = partial(self._codec.git_updated, repository=session.repository_url, branch=branch, sha=commit)
        if error is not None:
            failed = told("PUSH_FAILED", message=error.reason, refusal=error.kind)
            await note(facts=[failed], push=PushOutcome("", error.kind, error.reason))
            return
        facts = [told("PUSHED")]
        if branch != session.branch:
            facts.append(self._codec.session_updated(session.state, branch=branch))
        await note(facts=facts, branch=branch, push=PushOutcome(commit))
