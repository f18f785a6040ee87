"""Short names of sessions, for people: a part of the id that says which, and `last`."""

from __future__ import annotations

import re

from server.cli.failure import CommandFailed, ExitCode
from treadle_client import AsyncTreadle

_LAST = "last"
_PART = re.compile(r"[0-9a-f-]{4,35}")
_LOOKED_AT = 1_000
"""Nobody who types a part means one that is older than so many others."""
_PAGE = 200
_SHOWN = 5


def is_short(given: str) -> bool:
    """Whether it may mean another session tomorrow."""
    return given == _LAST or _PART.fullmatch(given) is not None


async def whole_id(treadle: AsyncTreadle, given: str) -> str:
    """Of the session that is meant; what is no short name is given back as it is. Errors: CommandFailed, TreadleError."""
    if given == _LAST:
        async for session in treadle.list_sessions(page_size=1):
            return session.session_id
        raise CommandFailed("you have no session yet", ExitCode.REFUSED)
    if not is_short(given):
        return given
    found = []
    looked_at = 0
    async for session in treadle.list_sessions(page_size=_PAGE):
        looked_at += 1
        if session.session_id.startswith(given) or session.session_id.endswith(given):
            found.append(session.session_id)
        if looked_at == _LOOKED_AT:
            break
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandFailed(f"none of your sessions begins or ends with {given!r}; `treadle sessions` lists them", ExitCode.REFUSED)
    listed = "\n  ".join([*found[:_SHOWN], *(["..."] if len(found) > _SHOWN else [])])
    raise CommandFailed(f"{given!r} could be any of {len(found)} sessions; their ends differ:\n  {listed}", ExitCode.REFUSED)
