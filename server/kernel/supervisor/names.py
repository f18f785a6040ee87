"""Names by a model where there is one, beside the turn's own work; names by rule in every other case.

A name by a model is as hostile as the text that it was made from: it goes through the rules of `naming` like a user's own words.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from server.kernel import naming
from server.kernel.errors import KernelError
from server.kernel.ports.namer import Names
from server.kernel.ports.repositories import Diff
from server.kernel.supervisor.drive import Drive, Limits
from server.kernel.turn import Turn

log = structlog.get_logger()

Wanted = Callable[[], Awaitable[Names | None]]


@asynccontextmanager
async def asking_for_names(drive: Drive) -> AsyncIterator[Wanted]:
    """Ask for a title and a branch name while something else is done; what is given waits for them. A turn whose agent reaches no model,
    one that will hardly get a worker, and a session that has its names, ask nobody."""
    asking = asyncio.create_task(_names(drive)) if _wants_names(drive) else None

    async def names() -> Names | None:
        return await asking if asking is not None else None

    try:
        yield names
    finally:
        if asking is not None:
            asking.cancel()
            await asyncio.wait({asking})


def _wants_names(drive: Drive) -> bool:
    ports, session = drive.ports, drive.session
    if not ports.launcher.available:
        return False
    return ports.namer is not None and ports.models.serves(drive.turn.provider) and not session.branch and not drive.turn.branch


async def _names(drive: Drive) -> Names | None:
    namer = drive.ports.namer
    if namer is None:
        return None
    try:
        return await namer.session(drive.shown_prompt, base_branch=drive.session.base_branch, bill=await drive.opened_bill())
    except KernelError as error:
        log.warning("naming.failed", error=error.message)
        return None


def title_of(drive: Drive, names: Names | None) -> str | None:
    """The session's new title; None to leave the one that it has. A title that a user chose is left."""
    by_rule = naming.title_from(drive.shown_prompt)
    if names is None or drive.session.title != by_rule:
        return None
    return drive.redactor.text(naming.title_from(names.title))


def branch_of(drive: Drive, names: Names | None) -> str:
    """The session's branch: as its user wanted it, or by a model, or by rule."""
    session, prefix = drive.session, drive.limits.branch_prefix
    words = drive.redactor.text(names.branch) if names else drive.shown_prompt
    return session.branch or session.branch_requested or naming.branch_from(prefix, words, session.id)


def commit_message(drive: Drive, words: str) -> str:
    """From words without secrets: they become the subject."""
    return message_of(drive.limits, drive.turn, words)


def message_of(limits: Limits, turn: Turn, words: str) -> str:
    """The same for a turn that is not driven."""
    message = naming.commit_message_from(words, turn.number)
    return limits.trailers.below(message, session_id=turn.session_id, provider=turn.provider)


async def commit_message_of(drive: Drive, diff: Diff) -> str | None:
    """A message for what the turn has done; None for the one by rule."""
    namer = drive.ports.namer
    if namer is None or not drive.ports.models.serves(drive.turn.provider):
        return None
    shown = "\n".join(f"{file.operation} {file.path}\n{file.patch}" for file in diff.files)
    try:
        subject = await namer.commit(drive.redactor.text(shown), bill=await drive.opened_bill())
    except KernelError as error:
        log.warning("naming.failed", error=error.message)
        return None
    return commit_message(drive, drive.redactor.text(subject)) if subject else None
