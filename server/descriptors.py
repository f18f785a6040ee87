"""How many files and connections the server may have open at a time."""

from __future__ import annotations

import resource

from server.config import Settings
from server.refusal import StartRefused

_OWN = 256
"""Of no turn: the database, callers, the object store, logs."""
_PER_TURN = 8
"""The worker's connection, files on their way."""
_ENOUGH = 65_536
"""Not raised beyond: what the server starts inherits it, and some programs close all numbers up to there before they begin."""


class TooFewDescriptors(StartRefused):
    """As many turns as it may run could open more than it may have."""


def allow_enough(settings: Settings) -> None:
    """Raise the limit as far as this process may. Else connections of a few turns, which their agents make, could take all that there are
    from everybody. Errors: TooFewDescriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    each = _PER_TURN + _way_out(settings) + _carried(settings)
    needed = _OWN + settings.max_turns * each
    if soft != resource.RLIM_INFINITY and soft < needed:
        fitting = (soft - _OWN) // each
        lower = f", or set TREADLE_MAX_TURNS to {fitting}" if fitting > 0 else ""
        raise TooFewDescriptors(
            f"this process may open {soft:,} files and connections, and {settings.max_turns} turns at a time may need {needed:,}; "
            f"raise its hard limit (LimitNOFILE= of a service, ulimits of a container, `ulimit -Hn`){lower}"
        )


def _way_out(settings: Settings) -> int:
    if not settings.egress_hosts:
        return 0
    # Where nobody may get out, what lets them out need not be loaded.
    from server.egress.door import MAX_DESCRIPTORS

    return MAX_DESCRIPTORS


def _carried(settings: Settings) -> int:
    if settings.launcher != "swarm":
        return 0
    from server.workers.carriage import MAX_DESCRIPTORS

    return MAX_DESCRIPTORS
