"""From the options to a server: its address, the key, the client, and what its errors mean for a command."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from server.cli.advice import advice
from server.cli.aside import aside
from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.cli.session_names import whole_id
from server.cli.tls import tls_problem
from server.data_dir import chosen_data_dir
from treadle_client import (
    AsyncTreadle,
    CallFailed,
    ConfigurationError,
    PushRefused,
    Retry,
    ServerDefect,
    TreadleError,
    Unavailable,
    Unreachable,
)

RETRY = Retry(first_seconds=0.2, unanswered_seconds=0, away_seconds=120)
"""A server that never answered is not there, which a person wants to know at once; one that did comes back."""


_OPTIONS = {
    "allowed_hosts": "--allow-host",
    "base_branch": "--base",
    "branch": "--branch",
    "onto_new_branch": "--branch",
    "recursive": "--recursive",
    "repository_url": "--repo",
    "request_id": "--request-id",
}
"""Fields of requests, as the command line has them."""


@dataclass(frozen=True)
class Target:
    """Where the server is and who calls."""

    address: str
    api_key: str
    data_dir: Path | None = None
    """Part of the hints that say what to type next; where the two came from, unless something else names them."""
    named_by: str = ""
    """What named the address; empty for the file that `treadle up` wrote."""
    ca_file: str | None = None
    """Certificates to trust; else those that TREADLE_CA_FILE names, else the public ones."""


class Notice:
    """Says a word beside the output, after `before` has brought that to a good place."""

    def __init__(self) -> None:
        self.before: Callable[[], None] = lambda: None
        self.connected: Callable[[], None] = lambda: None
        """Called after it was said that a lost connection is there again."""

    def __call__(self, text: str) -> None:
        """Say it."""
        self.before()
        aside(text)


@dataclass(frozen=True)
class Connection:
    """A client, and whose it is."""

    treadle: AsyncTreadle
    target: Target
    notice: Notice


def find_target(options: argparse.Namespace) -> Target:
    """The option first, then the environment, then what `treadle up` wrote. Errors: CommandFailed(UNREACHABLE, REFUSED)."""
    data_dir = chosen_data_dir(options.data_dir)
    named = {"--server": options.server, "TREADLE_ADDRESS": os.environ.get("TREADLE_ADDRESS"), "": _read(data_dir / "address")}
    named_by, address = next(((by, address) for by, address in named.items() if address), ("", ""))
    if not address:
        raise CommandFailed(
            f"no server runs here: {data_dir / 'address'} is not there\n"
            f"  start one with `{typed('up', data_dir)}`, or name one with --server or TREADLE_ADDRESS",
            ExitCode.UNREACHABLE,
        )
    key_file = Path(os.environ.get("TREADLE_API_KEY_FILE") or data_dir / "api-key")
    api_key = os.environ.get("TREADLE_API_KEY") or _read(key_file)
    if not api_key:
        raise CommandFailed(f"no API key: set TREADLE_API_KEY ({key_file} cannot be read)", ExitCode.REFUSED)
    return Target(address, api_key, data_dir, named_by, options.ca_file)


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[Connection]:
    """A client, closed at the end. Nothing is sent before the first call. Errors: CommandFailed, for whatever the client raises inside."""
    notice = Notice()

    def told(lost: Unavailable | None) -> None:
        notice("the connection is lost; trying to go on" if lost else "connected again")
        if lost is None:
            notice.connected()

    try:
        async with AsyncTreadle(target.address, target.api_key, ca_file=target.ca_file, retry=RETRY, on_connection=told) as treadle:
            yield Connection(treadle, target, notice)
    except TreadleError as error:
        raise explain(error, target) from None


@asynccontextmanager
async def connected(options: argparse.Namespace) -> AsyncIterator[Connection]:
    """As the options say. A session that they name in short is named by its whole id from here on. Errors: CommandFailed."""
    async with connect(find_target(options)) as connection:
        if getattr(options, "session", ""):
            options.session = await whole_id(connection.treadle, options.session)
        yield connection


def explain(error: TreadleError, target: Target) -> CommandFailed:
    """What it means for the command. The server's own words, its reason and the field at fault are kept."""
    if isinstance(error, Unavailable) and not isinstance(error, Unreachable):
        # It answers; what it stands on does not, for now.
        said = f"the server at {target.address} cannot do it now: {error.message}\n  reason {error.reason or error.code.name}"
        return CommandFailed(said, ExitCode.UNREACHABLE)
    if isinstance(error, Unavailable):
        # gRPC's own words tell every address and every layer that it tried.
        why = "nothing answers there" if "Connection refused" in error.message else error.message
        said = f"the server at {target.address} cannot be reached: {why}\n  {_why_not(target)}"
        return CommandFailed(said, ExitCode.UNREACHABLE)
    if isinstance(error, CallFailed):
        facts = [f"reason {error.reason}" if error.reason else error.code.name]
        facts += [f"field {violation.field}" for violation in error.violations]
        exit_code = ExitCode.TURN_FAILED if isinstance(error, ServerDefect) else ExitCode.REFUSED
        if isinstance(error, PushRefused):
            exit_code = ExitCode.NOT_PUSHED
        lines = [_as_options(error), *advice(error.reason, error.metadata, target.data_dir), ", ".join(facts)]
        return CommandFailed("\n  ".join(lines), exit_code)
    return CommandFailed(str(error), ExitCode.REFUSED if isinstance(error, ConfigurationError) else ExitCode.TURN_FAILED)


def _as_options(error: CallFailed) -> str:
    """What is wrong with a field, as the command line names it."""
    for violation in error.violations:
        if (option := _OPTIONS.get(violation.field)) and error.message.startswith(f"{violation.field}: "):
            return option + error.message.removeprefix(violation.field)
    return error.message


def _why_not(target: Target) -> str:
    if target.named_by:
        trusted = target.ca_file or os.environ.get("TREADLE_CA_FILE")
        return tls_problem(target.address, trusted) or f"{target.named_by} names it: does it run, and can it be reached from here?"
    return f"start it with `{typed('up', target.data_dir)}`, or name another with --server"


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8").strip()
    except OSError:
        return ""
