"""The workspace of a session's running turn, where this replica drives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from server.kernel.errors import KernelError, TurnActive, WorkerLost, WorkspaceElsewhere
from server.kernel.event import Fact
from server.kernel.identity import Principal
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.launcher import Launcher
from server.kernel.ports.live_files import LiveFiles
from server.kernel.ports.repositories import Diff, FileDiff
from server.kernel.ports.trees import Change, Content, Edit, Listing
from server.kernel.session import Session, SessionState
from server.kernel.supervisor import Supervisor
from server.kernel.supervisor.drive import Drive

_BEFORE_WORK = frozenset({SessionState.QUEUED, SessionState.PROVISIONING})

_TOLD_BYTES = 64 * 1024
_CHANGE_BYTES = 16


class Live:
    """Files as the agent sees them, while it works."""

    def __init__(self, supervisor: Supervisor, launcher: Launcher, files: LiveFiles, codec: EventCodec) -> None:
        self._supervisor = supervisor
        self._launcher = launcher
        self._files = files
        self._codec = codec

    async def workspace(self, session: Session) -> Path | None:
        """None when no agent works: there is no turn, or it is being prepared or published. Errors: WorkspaceElsewhere."""
        if not session.active_turn_id:
            return None
        drive = self._supervisor.driven(session.id)
        if drive is None and session.state not in _BEFORE_WORK:
            raise WorkspaceElsewhere(session.active_turn_id)
        return await self._of(drive) if drive is not None and drive.worker is not None else None

    async def listing(self, workspace: Path, path: str, *, after: str, limit: int) -> Listing:
        """See LiveFiles."""
        return await self._files.listing(workspace, path, after=after, limit=limit)

    async def read(self, workspace: Path, path: str, *, offset: int, length: int | None) -> Content:
        """See LiveFiles."""
        return await self._files.read(workspace, path, offset=offset, length=length)

    async def edit(self, principal: Principal, session: Session, edits: Sequence[Edit]) -> tuple[Change | None, ...]:
        """One by one, and told in the turn's log as the user's. Errors: TurnActive when no agent works (any more), WorkspaceElsewhere;
        those of LiveFiles, with how many edits were `done` before."""
        drive, workspace = await self._driven(session)
        changes: list[Change | None] = []
        failures: list[KernelError] = []

        async def change() -> list[Fact]:
            try:
                for edit in edits:
                    changes.append(await self._files.edit(workspace, edit))  # noqa: PERF401 - what was done stays when the next one fails
            except KernelError as error:
                error.metadata["done"] = str(len(changes))
                failures.append(error)
            made = told(changes)
            return [self._codec.file_changed(made, turn_total=False)] if made.files else []

        await drive.edit(change, user_id=principal.user_id)
        if failures:
            raise failures[0]
        return tuple(changes)

    async def check(self, session: Session, path: str, etag: str | None) -> None:
        """Whether a write to `path` would be refused. Errors: as `edit`."""
        _, workspace = await self._driven(session)
        await self._files.check(workspace, path, etag)

    async def _driven(self, session: Session) -> tuple[Drive, Path]:
        drive = self._supervisor.driven(session.id)
        if drive is None and session.state not in _BEFORE_WORK:
            raise WorkspaceElsewhere(session.active_turn_id)
        if drive is None or drive.worker is None:
            raise TurnActive(session.id, session.active_turn_id, edit=True)
        return drive, await self._of(drive)

    async def _of(self, drive: Drive) -> Path:
        try:
            return await self._launcher.live(drive.worker_id)
        except WorkerLost:
            raise WorkspaceElsewhere(drive.turn.id) from None


def told(changes: Sequence[Change | None]) -> Diff:
    """For the log: what happened to which file, as far as an event has room. Who wants to see the lines asks for the difference."""
    made = [FileDiff(change.path, change.operation, old_path=change.old_path) for change in changes if change is not None]
    return fitting(Diff(tuple(made), files_changed=len(made)))


def fitting(diff: Diff) -> Diff:
    """The same, with as many files as an event has room for."""
    files, room = [], _TOLD_BYTES
    for file in diff.files:
        room -= len(file.path.encode()) + len(file.old_path.encode()) + _CHANGE_BYTES
        if room < 0:
            break
        files.append(file)
    return replace(diff, files=tuple(files), truncated=len(files) < diff.files_changed)
