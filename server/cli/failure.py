"""How a command ends."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a caller of the command can rely on."""

    DONE = 0
    TURN_FAILED = 1
    """The turn failed or was interrupted, something necessary is missing (doctor), the server had a defect, or archives were not brought
    in (legacy import)."""
    NOTHING_FOUND = 1
    """A search has found nothing, as grep says it."""
    REFUSED = 2
    """The request is wrong; nothing was created."""
    UNREACHABLE = 3
    """The server does not answer, or says that it cannot do it now; the same command may succeed later."""
    NOT_PUSHED = 4
    """The work is made and kept, but its remote refused it."""
    DETACHED = 130
    """Ctrl-C; a turn that was started goes on."""


class CommandFailed(Exception):
    """Ends the command with a message for a person and an exit code; no traceback."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code
