"""The async client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import grpc

from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.event_pb2 import (
    APPROVALS_UNSPECIFIED,
    INPUT_DELIVERY_QUEUE,
    Answer,
    Approvals,
    InputDelivery,
    RequestResolved,
)
from treadle.session.v1.input_pb2 import Input
from treadle.session.v1.session_pb2 import Session
from treadle.session.v1.snapshot_pb2 import Snapshot
from treadle_client import requests
from treadle_client.aio_git import AsyncGit
from treadle_client.aio_link import AsyncLink
from treadle_client.aio_stream import AsyncEventStream
from treadle_client.credentials import AsyncCredentials
from treadle_client.event import Event
from treadle_client.files import AsyncFiles
from treadle_client.following import Following, OnConnection, OnSynced, Request
from treadle_client.pages import EventPages, InputPages, SessionPages, SnapshotPages
from treadle_client.retry import DEFAULT, PUSH_SECONDS, Retry
from treadle_client.target import find_target


class AsyncTreadle:
    """A connection to a Treadle server, for `async with`. It belongs to the event loop in which it is first used.

    `address`: `host:port`, or `https://host[:port]` for TLS; else TREADLE_ADDRESS. `api_key`: else TREADLE_API_KEY, else the content of the
    file that TREADLE_API_KEY_FILE names. `ca_file`: certificates (PEM) to trust instead of the public ones, else TREADLE_CA_FILE;
    `credentials`: anything else that gRPC can do, client certificates for example. `retry`: how long a server may be away.
    `heartbeat_seconds`: the server's setting; a stream that is silent for three times as long is taken for dead.
    `timeout_seconds`: limit for a call that is no stream.
    `on_connection` is told when a stream loses its connection (why), and when it has it again (None).

    Errors: ConfigurationError. Nothing is sent before the first call.
    """

    def __init__(
        self,
        address: str | None = None,
        api_key: str | None = None,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        retry: Retry = DEFAULT,
        heartbeat_seconds: float = 15.0,
        timeout_seconds: float = 30.0,
        on_connection: OnConnection | None = None,
    ) -> None:
        target = find_target(address, api_key, ca_file=ca_file, credentials=credentials)
        self._link = AsyncLink(target, retry, silence_seconds=3 * heartbeat_seconds, timeout_seconds=timeout_seconds)
        self._on_connection = on_connection

    @property
    def credentials(self) -> AsyncCredentials:
        """What you have to get into code hosts."""
        return AsyncCredentials(self._link)

    def files(self, session_id: str) -> AsyncFiles:
        """The files of a session, at any time: read, searched, compared and edited."""
        return AsyncFiles(self._link, session_id)

    @property
    def git(self) -> AsyncGit:
        """What code hosts do besides Git."""
        return AsyncGit(self._link)

    @property
    def address(self) -> str:
        """The server, as `host:port`."""
        return self._link.target.address

    async def aclose(self) -> None:
        """End all streams and calls, also those that other tasks wait for: they raise ClientClosed. Turns go on."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.aclose()

    # -- streams --------------------------------------------------------------------------------------------------------------

    def execute(
        self,
        repository: str = "",
        prompt: str = "",
        *,
        session_id: str = "",
        base_branch: str = "",
        branch: str = "",
        provider: str = "",
        model: str = "",
        title: str = "",
        approvals: Approvals = APPROVALS_UNSPECIFIED,
        allowed_hosts: Sequence[str] = (),
        request_id: str = "",
        on_synced: OnSynced | None = None,
    ) -> AsyncEventStream:
        """Ask for a change, and follow it to its end. Without `session_id` the session is made too, on `repository`.

        `request_id` is your own key for this request: the same one again starts nothing and follows the turn that is there, also from
        another process. Without one it is made here, so that a cut in the middle starts nothing twice either. With `approvals`
        APPROVALS_ASK the agent asks before it acts (`resolve_request`). `allowed_hosts`: where the workers of a new session may connect to
        (`index.example.org`, `*.packages.example.org`). `on_synced`: as for `resume`.
        Errors while iterating, with nothing created: InvalidRequest, RepositoryUnreachable, SessionNotFound, TurnActive, RequestIdReused,
        TooManyTurns, NotAuthenticated; and see AsyncEventStream.
        """
        request = requests.execute(
            repository,
            prompt,
            session_id=session_id,
            base_branch=base_branch,
            branch=branch,
            provider=provider,
            model=model,
            title=title,
            approvals=approvals,
            allowed_hosts=allowed_hosts,
            request_id=request_id,
        )
        return self._follow(request, on_synced)

    def resume(self, session_id: str, *, after_seq: int = 0, follow: bool = True, on_synced: OnSynced | None = None) -> AsyncEventStream:
        """The session's events behind `after_seq`, and what comes until no turn is active or about to start; without `follow` only what
        is there. `on_synced` is told when the past was given, with the ids of the agent's requests that wait for an answer then (again
        after each reconnect).

        Errors while iterating: SessionNotFound, SequenceAhead, NotAuthenticated; and see AsyncEventStream.
        """
        return self._follow(requests.resume(session_id, after_seq=after_seq, follow=follow), on_synced)

    # -- sessions -------------------------------------------------------------------------------------------------------------

    async def create_session(
        self,
        repository: str,
        *,
        base_branch: str = "",
        branch: str = "",
        title: str = "",
        labels: Mapping[str, str] | None = None,
        allowed_hosts: Sequence[str] = (),
        request_id: str = "",
    ) -> Session:
        """Make a session without a turn; the same `request_id` again answers the same session.

        Errors: InvalidRequest, RepositoryUnreachable, RequestIdReused.
        """
        request = requests.create(
            repository,
            base_branch=base_branch,
            branch=branch,
            title=title,
            labels=labels,
            allowed_hosts=allowed_hosts,
            request_id=request_id,
        )
        return (await self._link.ask(self._link.stub.CreateSession, request, again=True)).session

    async def get_session(self, session_id: str) -> Session:
        """Errors: SessionNotFound."""
        return (await self._link.ask(self._link.stub.GetSession, pb.GetSessionRequest(session_id=session_id), again=True)).session

    async def list_sessions(self, *, page_size: int = 0) -> AsyncIterator[Session]:
        """Your sessions, newest first; asked for in pages of `page_size` (0: as the server likes) as they are needed."""
        pages = SessionPages(page_size)
        while not pages.done:
            for session in pages.take(await self._link.ask(self._link.stub.ListSessions, pages.request, again=True)):
                yield session

    async def update_session(
        self,
        session_id: str,
        *,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        allowed_hosts: Sequence[str] | None = None,
        version: int = 0,
    ) -> Session:
        """Change the title, or replace the labels or the allowed hosts. With `version` (of a Session) only if nobody changed it since.

        Errors: SessionNotFound, VersionConflict, InvalidRequest.
        """
        request = requests.update(session_id, title=title, labels=labels, allowed_hosts=allowed_hosts, version=version)
        return (await self._link.ask(self._link.stub.UpdateSession, request, again=False)).session

    async def delete_session(self, session_id: str) -> None:
        """Remove a session and its events; its branch on the remote stays. Errors: SessionNotFound, TurnActive."""
        await self._link.ask(self._link.stub.DeleteSession, pb.DeleteSessionRequest(session_id=session_id), again=False)

    async def interrupt(self, session_id: str, *, turn_id: str = "") -> str:
        """Stop the active turn (only `turn_id`, if given); its work so far is committed and pushed. Returns the turn's id, or "" when
        none was active. Errors: SessionNotFound."""
        request = pb.InterruptRequest(session_id=session_id, turn_id=turn_id)
        return (await self._link.ask(self._link.stub.Interrupt, request, again=False)).turn_id

    async def push_session(self, session_id: str, *, onto_new_branch: str = "") -> Session:
        """Push the session's newest commit to its branch, where its turns could not; or to a new one, on which it goes on.

        Errors: PushRefused, SessionNotFound, TurnActive, InvalidRequest.
        """
        request = pb.PushSessionRequest(session_id=session_id, onto_new_branch=onto_new_branch)
        return (await self._link.ask(self._link.stub.PushSession, request, again=True, seconds=PUSH_SECONDS)).session

    async def list_events(self, session_id: str, *, after_seq: int = 0, page_size: int = 0) -> AsyncIterator[Event]:
        """The session's log behind `after_seq`, as far as it is; asked for in pages as they are needed. `resume` is faster.

        Errors: SessionNotFound, SequenceAhead, SequenceBroken.
        """
        pages = EventPages(session_id, after_seq=after_seq, page_size=page_size)
        while not pages.done:
            for event in pages.take(await self._link.ask(self._link.stub.ListEvents, pages.request, again=True)):
                yield event

    # -- the session's history ------------------------------------------------------------------------------------------------

    async def list_snapshots(self, session_id: str, *, page_size: int = 0) -> AsyncIterator[Snapshot]:
        """Every commit of the session's history, newest first; asked for in pages as they are needed. Errors: SessionNotFound."""
        pages = SnapshotPages(session_id, page_size=page_size)
        while not pages.done:
            for snapshot in pages.take(await self._link.ask(self._link.stub.ListSnapshots, pages.request, again=True)):
                yield snapshot

    async def fork_session(self, session_id: str, *, at: str = "", title: str = "", branch: str = "", request_id: str = "") -> Session:
        """A new session that goes on from the end of a turn (its id), from a snapshot (its number), or from now. The same `request_id`
        again answers the same session.

        Errors: SessionNotFound, SnapshotNotFound, SnapshotUnavailable, SnapshotDamaged, RequestIdReused, InvalidRequest.
        """
        request = requests.fork(session_id, at=at, title=title, branch=branch, request_id=request_id)
        return (await self._link.ask(self._link.stub.ForkSession, request, again=True)).session

    async def restore_session(self, session_id: str, at: str, *, if_head: str = "") -> Session:
        """Bring the session back to the end of a turn (its id) or to a snapshot (its number), by a new commit; with `if_head` only if that
        is its newest commit.

        Errors: SessionNotFound, SnapshotNotFound, TurnActive, HeadMoved, SnapshotUnavailable, SnapshotDamaged.
        """
        request = pb.RestoreSessionRequest(session_id=session_id, at=at, if_head=if_head)
        return (await self._link.ask(self._link.stub.RestoreSession, request, again=False)).session

    # -- while an agent works -------------------------------------------------------------------------------------------------

    async def send_input(
        self, session_id: str, text: str, *, delivery: InputDelivery = INPUT_DELIVERY_QUEUE, request_id: str = ""
    ) -> Input:
        """Say something: it starts a turn (its `turn_id`), or waits as `delivery` says. The same `request_id` again says nothing twice.

        Errors: SessionNotFound, TooManyInputs, RequestIdReused, InvalidRequest.
        """
        request = requests.send(session_id, text, delivery=delivery, request_id=request_id)
        return (await self._link.ask(self._link.stub.SendInput, request, again=True)).input

    async def list_inputs(self, session_id: str, *, everything: bool = False, page_size: int = 0) -> AsyncIterator[Input]:
        """What waits in the session's queue, in order; with `everything` also what was delivered or cancelled. Errors: SessionNotFound."""
        pages = InputPages(session_id, everything=everything, page_size=page_size)
        while not pages.done:
            for each in pages.take(await self._link.ask(self._link.stub.ListInputs, pages.request, again=True)):
                yield each

    async def update_input(self, session_id: str, input_id: str, text: str, *, version: int = 0) -> Input:
        """Change what waits. With `version` (of an Input) only if nobody changed it since.

        Errors: SessionNotFound, InputNotFound, InputNotQueued, VersionConflict, InvalidRequest.
        """
        request = pb.UpdateInputRequest(session_id=session_id, input_id=input_id, text=text, version=version)
        return (await self._link.ask(self._link.stub.UpdateInput, request, again=False)).input

    async def cancel_input(self, session_id: str, input_id: str) -> Input:
        """Take it out of the queue. Errors: SessionNotFound, InputNotFound, InputNotQueued."""
        request = pb.CancelInputRequest(session_id=session_id, input_id=input_id)
        return (await self._link.ask(self._link.stub.CancelInput, request, again=True)).input

    async def resolve_request(
        self,
        session_id: str,
        request_id: str,
        *,
        option_id: str = "",
        answers: Sequence[Answer] = (),
        decline: bool = False,
        note: str = "",
    ) -> RequestResolved:
        """Answer what an agent asks: an approval with `option_id`, questions with `answers`, or neither with `decline`.

        Errors: SessionNotFound, RequestNotFound, AlreadyResolved, InvalidRequest.
        """
        request = requests.resolve(session_id, request_id, option_id=option_id, answers=answers, decline=decline, note=note)
        return (await self._link.ask(self._link.stub.ResolveRequest, request, again=True)).resolved

    def _follow(self, first: Request, on_synced: OnSynced | None) -> AsyncEventStream:
        stream = AsyncEventStream(self._link, Following(first, self._link.retry, self._on_connection, on_synced))
        self._link.add(stream)
        return stream
