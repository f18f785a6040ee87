"""The command line: what there is to say. Each command's own file is imported only when it runs, so that help is instant."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from server.cli.arguments.files import add_files
from server.cli.arguments.hosts import add_hosts
from server.cli.arguments.operators import add_operators, add_serving
from server.cli.arguments.sessions import add_history, add_sessions
from server.cli.aside import aside
from server.cli.failure import CommandFailed, ExitCode
from server.cli.parser import CONNECTION_HELP, EXIT_CODES, Parser

STARTED = time.monotonic()
"""When this process began to run our code; `treadle up` tells how long it took from here."""

_OF_THIS_MACHINE = ("data_dir", "ca_file", "output", "source", "owner")
"""Names of files here, which may be any bytes. All else goes to a server, which takes text."""


_HINTS = {
    "server.cli.files.editing:put": "; its content comes from standard input: `< FILE`",
    "server.cli.files.reading:diff": "; a file or directory is named by --path",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = _parser()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        # By the command itself, whose usage helps.
        hint = "" if unknown[0].startswith("-") else _hint(options)
        getattr(options, "complain", parser.error)(f"unrecognized arguments: {' '.join(map(_shown, unknown))}{hint}")
    if options.runs is None:
        getattr(options, "show_help", parser.print_help)(sys.stderr)
        return ExitCode.REFUSED
    if not_text := _not_text(options):
        options.complain(f"no UTF-8, which names and texts on the server are: {not_text}")
    if "server" in options:
        # Read when grpc is imported. What it would say of a failed connection is in the command's own words.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        module, _, function = options.runs.partition(":")
        run = getattr(import_module(module), function)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            # So far it ended us at once (`__main__`); from here on a command ends in its own way.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return int(run(options))
    except CommandFailed as failure:
        aside(str(failure))
        return failure.exit_code
    except KeyboardInterrupt:
        return ExitCode.DETACHED
    except BrokenPipeError:
        # Whoever read our output has enough. What Python still holds back must not raise again at its exit.
        sys.stdout = None
        return ExitCode.TURN_FAILED


def _hint(options: argparse.Namespace) -> str:
    """For one word more than the command takes."""
    if "request" in options:
        return "; put the request in quotes"
    return _HINTS.get(options.runs, "")


def _parser() -> Parser:
    parser = Parser(
        prog="treadle",
        usage="treadle COMMAND ...",
        description="A self-hosted backend for AI coding sessions:\nname a Git repository, ask for a change, get a pushed branch.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_const", dest="runs", const="server.cli.version:run", help="print the version")
    parser.set_defaults(complain=parser.error)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND ...", prog="treadle")
    add_serving(commands)
    add_sessions(commands)
    add_files(commands)
    add_history(commands)
    add_hosts(commands)
    add_operators(commands)
    codes = "\n".join(f"  {code.value:<4} {words}" for code, words in EXIT_CODES.items())
    parser.epilog = f"{CONNECTION_HELP}\nexit codes:\n{codes}"
    return parser


def _not_text(options: argparse.Namespace) -> str:
    """The first of what would be sent that is no text; shown as bytes."""
    for name, value in vars(options).items():
        for each in value if isinstance(value, list) else [value]:
            if name not in _OF_THIS_MACHINE and isinstance(each, str) and _shown(each) != each:
                return _shown(each)
    return ""


def _shown(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
