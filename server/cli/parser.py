"""How commands are described: their help is short, options stand anywhere, and what all of them share is told once, by `treadle --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from server.cli.aside import aside
from server.cli.failure import ExitCode

SESSION_HELP = "the session's id, enough of its begin or end, or `last` for the newest"
EXIT_CODES: Mapping[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.TURN_FAILED: "the turn failed or was stopped; nothing was found; or the server's defect",
    ExitCode.REFUSED: "the request is wrong, nothing was made",
    ExitCode.UNREACHABLE: "the server cannot be reached, or cannot do it now",
    ExitCode.NOT_PUSHED: "the work is made and kept, but the remote refused the push",
    ExitCode.DETACHED: "Ctrl-C; a turn that was started goes on",
}
CONNECTION_HELP = """\
The server is found by --server, else TREADLE_ADDRESS, else <data dir>/address,
which `treadle up` writes; the API key by TREADLE_API_KEY or the file
TREADLE_API_KEY_FILE, else <data dir>/api-key.
"""


class Parser(argparse.ArgumentParser):
    """argparse's, with options between arguments, and errors in lines that fit."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """argparse takes an argument that may be left out for left out as soon as an option stands in its place: `ls S --at 3 PATH`."""
        options, rest = super().parse_known_args(args, namespace)
        return options, self._placed(options, rest) if rest else rest

    def error(self, message: str) -> NoReturn:
        """As it is, in lines that fit."""
        self.print_usage(sys.stderr)
        aside(f"error: {message}", speaker=self.prog)
        self.exit(ExitCode.REFUSED)

    def _placed(self, options: argparse.Namespace, rest: list[str]) -> list[str]:
        """What is left, after the arguments that were left out have taken of it."""
        words = rest[1:] if rest[0] == "--" else rest
        if words is rest and any(word.startswith("-") for word in words):
            return rest
        for action in self._get_positional_actions():
            if action.nargs == argparse.OPTIONAL and words and getattr(options, action.dest) == action.default:
                setattr(options, action.dest, self._get_value(action, words[0]))
                words = words[1:]
            elif action.nargs == argparse.ZERO_OR_MORE and not getattr(options, action.dest):
                setattr(options, action.dest, words)
                words = []
        return words


Commands = argparse._SubParsersAction
"""Where commands, or the actions of one, are added."""


def add_command(commands: Commands[Parser], name: str, words: str, *, runs: str, epilog: str = "") -> Parser:
    """A command that `runs` MODULE:FUNCTION."""
    command = _added(commands, name, words)
    command.epilog = epilog or None
    command.set_defaults(runs=runs, complain=command.error)
    return command


def add_group(commands: Commands[Parser], name: str, words: str, *, epilog: str = "") -> Commands[Parser]:
    """A command that has actions, each with a help of its own."""
    group = _added(commands, name, words)
    group.usage = f"{group.prog} ACTION ..."
    group.epilog = epilog or None
    group.set_defaults(show_help=group.print_help)
    return group.add_subparsers(title="actions", metavar="ACTION ...", prog=group.prog)


def add_session(command: Parser) -> None:
    """The session that it is about. Whoever uses `connected` has its whole id."""
    command.add_argument("session", metavar="SESSION", help=SESSION_HELP)


def add_connection(command: Parser) -> None:
    """Where the server is."""
    place = command.add_argument_group("server")
    place.add_argument("--server", metavar="ADDRESS", help="HOST:PORT, or https://HOST[:PORT] for one with TLS")
    place.add_argument("--ca-file", metavar="FILE", help="certificates (PEM) to trust instead of the public ones (TREADLE_CA_FILE)")
    add_data_dir(place)
    command.epilog = "\n\n".join(filter(None, (command.epilog, "How the server is found, and exit codes: treadle --help")))


def add_data_dir(command: Parser | argparse._ArgumentGroup) -> None:
    """Where `treadle up` keeps everything."""
    command.add_argument("--data-dir", metavar="DIR", help="where `treadle up` keeps everything (TREADLE_DATA_DIR)")


def add_json(command: Parser) -> None:
    """For scripts."""
    command.add_argument("--json", action="store_true", help="print JSON, one object per line")


def add_limit(command: Parser, default: int) -> None:
    """Of a list."""
    command.add_argument("--limit", metavar="N", type=count, default=default, help=f"how many at most (default {default})")


def count(text: str) -> int:
    """A number from 1. Errors: ArgumentTypeError."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def _added(commands: Commands[Parser], name: str, words: str) -> Parser:
    command = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    return command
