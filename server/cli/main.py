"""The command line: what there is to say. Each command's own file is imported only when it runs, so that help is instant."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from server.cli.aside import aside
from server.cli.failure import CommandFailed, ExitCode

STARTED = time.monotonic()
"""When this process began to run our code; `treadle up` tells how long it took from here."""

_CONNECTION_HELP = """\
the server is found by --server, else TREADLE_ADDRESS, else
<data dir>/address, which `treadle up` writes; the API key by TREADLE_API_KEY
or the file TREADLE_API_KEY_FILE, else <data dir>/api-key

exit codes:
"""
_MOST_DAYS = 36_500
_EXIT_CODES = {
    ExitCode.DONE: "done",
    ExitCode.TURN_FAILED: "the server had a defect",
    ExitCode.REFUSED: "the request is wrong, nothing was made",
    ExitCode.UNREACHABLE: "the server cannot be reached, or cannot do it now",
}
_EXIT_CODES_OF_A_TURN = _EXIT_CODES | {
    ExitCode.TURN_FAILED: "the turn failed or was interrupted, or the server had a defect",
    ExitCode.DETACHED: "detached by Ctrl-C, the turn goes on",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As it is, in lines that fit."""
        self.print_usage(sys.stderr)
        aside(f"error: {message}", speaker=self.prog)
        self.exit(ExitCode.REFUSED)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    parser = _parser()
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        # By the command itself, whose usage helps.
        hint = "; put the request in quotes" if "request" in options and not unknown[0].startswith("-") else ""
        getattr(options, "complain", parser.error)(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if options.runs is None:
        parser.print_help(sys.stderr)
        return ExitCode.REFUSED
    if "server" in options:
        # Read when grpc is imported. What it would say of a failed connection is in the command's own words.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    module, _, function = options.runs.partition(":")
    try:
        return int(getattr(import_module(module), function)(options))
    except CommandFailed as failure:
        aside(str(failure))
        return failure.exit_code
    except KeyboardInterrupt:
        return ExitCode.DETACHED
    except BrokenPipeError:
        # Whoever read our output has enough. What Python still holds back must not raise again at its exit.
        sys.stdout = None
        return ExitCode.TURN_FAILED


def _parser() -> _Parser:
    parser = _Parser(
        prog="treadle",
        usage="treadle COMMAND ...",
        description="A self-hosted backend for AI coding sessions: name a Git repository, ask for a change, get a pushed branch.",
    )
    parser.add_argument("--version", action="store_const", dest="runs", const="server.cli.version:run", help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND ...", prog="treadle")
    _add_up(commands)
    _add_demo(commands)
    _add_run(commands)
    _add_resume(commands)
    _add_sessions(commands)
    _add_send(commands)
    _add_inputs(commands)
    _add_answer(commands)
    _add_interrupt(commands)
    _add_files(commands)
    _add_credential(commands)
    _add_history(commands)
    _add_fork(commands)
    _add_restore(commands)
    _add_push(commands)
    _add_repos(commands)
    _add_pr(commands)
    _add_key(commands)
    _add_legacy(commands)
    _add_doctor(commands)
    _add_version(commands)
    return parser


def _add_up(commands: argparse._SubParsersAction[_Parser]) -> None:
    up = _command(commands, "up", "start Treadle with all it needs, and serve until Ctrl-C", runs="server.cli.up:run")
    _data_dir(up)
    up.add_argument("--listen", metavar="HOST:PORT", help="address of the gRPC API (TREADLE_LISTEN; default 127.0.0.1:7433)")
    up.add_argument("--demo", action="store_true", help="play the demo session, as the first start does")


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    demo = _command(commands, "demo", "play the demo session on a running `treadle up`", runs="server.cli.demo:run")
    _connection(demo, turn=True)


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    run = _command(commands, "run", "ask for a change, and watch it being made", runs="server.cli.run:run")
    run.add_argument("request", metavar="REQUEST", help="what shall be done, in quotes")
    run.add_argument("--repo", metavar="URL", default="", help="the Git repository; needed without --session")
    run.add_argument("--session", metavar="ID", default="", help="go on with this session")
    run.add_argument("--base", metavar="BRANCH", default="", help="the branch to grow from (default: the remote's default)")
    run.add_argument("--branch", metavar="NAME", default="", help="name for the session's branch (default: one is made)")
    run.add_argument("--provider", metavar="NAME", default="", help="the agent (default: the session's last, else the server's default)")
    run.add_argument(
        "--model",
        metavar="NAME",
        default="",
        help="the model; for `replay` the recording (default: first-session, or approvals with --ask)",
    )
    run.add_argument(
        "--ask",
        action="store_true",
        help="the agent asks before it changes or runs something (Claude: not for commands that it knows to only read)",
    )
    run.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a host that the workers of a new session may connect to, like index.example.org; may be given several times",
    )
    run.add_argument("--request-id", metavar="ID", default="", help="your own key for this request; the same key again starts nothing")
    _json(run)
    _connection(run, turn=True)


def _add_resume(commands: argparse._SubParsersAction[_Parser]) -> None:
    resume = _command(commands, "resume", "show a session's events from any place, and follow it", runs="server.cli.resume:run")
    resume.add_argument("session", help="the session's id")
    resume.add_argument("--after", metavar="SEQ", type=int, default=0, help="the last event that you have (default 0: show all)")
    resume.add_argument("--no-follow", action="store_true", help="stop after what is there now")
    _json(resume)
    _connection(resume, turn=True)


def _add_sessions(commands: argparse._SubParsersAction[_Parser]) -> None:
    sessions = _command(commands, "sessions", "list your sessions, newest first", runs="server.cli.sessions:run")
    sessions.add_argument("--limit", metavar="N", type=int, default=20, help="how many at most (default 20)")
    _json(sessions)
    _connection(sessions)


def _add_send(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = "say something to a session: it starts a turn, or waits for the one that runs"
    send = _command(commands, "send", words, runs="server.cli.send:run")
    send.add_argument("session", help="the session's id")
    send.add_argument("text", help="what is said")
    how = send.add_mutually_exclusive_group()
    how.add_argument("--steer", action="store_true", help="for the agent that works now, at its next safe step")
    how.add_argument("--interrupt", action="store_true", help="stop the turn that runs; this is the next one")
    send.add_argument("--request-id", metavar="ID", default="", help="your own key for this; the same key again says nothing twice")
    _json(send)
    _connection(send)


def _add_inputs(commands: argparse._SubParsersAction[_Parser]) -> None:
    inputs = _command(commands, "inputs", "list what waits in a session's queue", runs="server.cli.inputs:run")
    inputs.add_argument("session", help="the session's id")
    inputs.add_argument("--all", action="store_true", help="also what was delivered or cancelled")
    change = inputs.add_mutually_exclusive_group()
    change.add_argument("--change", nargs=2, metavar=("INPUT", "TEXT"), help="give this one another text")
    change.add_argument("--cancel", metavar="INPUT", default="", help="take this one back")
    _json(inputs)
    _connection(inputs)


def _add_answer(commands: argparse._SubParsersAction[_Parser]) -> None:
    answer = _command(commands, "answer", "answer what a session's agent asks", runs="server.cli.answer:run")
    answer.add_argument("session", help="the session's id")
    answer.add_argument("answer", nargs="*", help="an option or its number, or text: one for each question; asked for on a terminal")
    answer.add_argument("--request", metavar="ID", default="", help="which request, when several are open")
    answer.add_argument("--decline", action="store_true", help="refuse to answer; the agent has to do without")
    answer.add_argument("--note", metavar="TEXT", default="", help="a word for the agent")
    _connection(answer)


def _add_interrupt(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = "stop a session's turn; its work so far is committed and pushed"
    interrupt = _command(commands, "interrupt", words, runs="server.cli.interrupt:run")
    interrupt.add_argument("session", help="the session's id")
    _connection(interrupt)


def _add_files(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = "list, read, search, compare and edit a session's files"
    files = _command(commands, "files", words, runs="server.cli.files:run")
    files.add_argument(
        "action",
        choices=("ls", "cat", "get", "find", "grep", "diff", "put", "mv", "rm", "mkdir"),
        help="get: an archive, to standard output; diff: a patch, of two times as for --at; put: from standard input",
    )
    files.add_argument("session", help="the session's id")
    files.add_argument("path", nargs="*", help="paths; for find and grep what to look for, and where")
    files.add_argument("--at", metavar="WHEN", default="", help="a snapshot's number, a turn's id, or head (default: now)")
    files.add_argument("-r", "--recursive", action="store_true", help="ls: all files below; rm: a directory with all that it holds")
    files.add_argument("--etag", help="put, mv, rm: only of the file with this etag; an empty one: only where there is none")
    files.add_argument("--regex", action="store_true", help="grep: a regular expression")
    files.add_argument("-i", "--ignore-case", action="store_true", help="grep: upper and lower case alike")
    files.add_argument("--limit", metavar="N", type=int, default=0, help="find, grep: how many at most (default 100)")
    files.add_argument("--zip", action="store_true", help="get: a zip file in place of a tar.gz")
    _json(files)
    _connection(files)


def _add_credential(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = "store, list or remove what you have to get into code hosts"
    credential = _command(commands, "credential", words, runs="server.cli.credential:run")
    credential.add_argument("action", choices=("add", "list", "remove"), help="the token for `add` is read from standard input")
    credential.add_argument("host", nargs="?", default="", help="github.com, or a prefix that the server's operator allows")
    credential.add_argument(
        "--github-app", nargs=2, metavar=("APP", "INSTALLATION"), help="a GitHub App and the number of its installation; its key is read"
    )
    credential.add_argument("--username", metavar="NAME", default="", help="the name to show with it (default: x-access-token, for GitHub)")
    _json(credential)
    _connection(credential)


def _add_history(commands: argparse._SubParsersAction[_Parser]) -> None:
    history = _command(commands, "history", "list what turns and users made of a session, newest first", runs="server.cli.history:run")
    history.add_argument("session", help="the session's id")
    history.add_argument("--limit", metavar="N", type=int, default=20, help="how many at most (default 20)")
    _json(history)
    _connection(history)


def _add_fork(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = "make a session that goes on from any point of another one, with its files and its conversation"
    fork = _command(commands, "fork", words, runs="server.cli.history:fork")
    fork.add_argument("session", help="the session's id")
    fork.add_argument("--at", metavar="POINT", default="", help="a number of its `history`, or a turn's id (default: as it is now)")
    fork.add_argument("--title", default="", help="title of the new session (default: the same)")
    fork.add_argument("--branch", metavar="NAME", default="", help="name for its branch (default: one is made)")
    _connection(fork)


def _add_restore(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = "bring a session's files and conversation back to a past point, by a new commit: nothing is lost"
    restore = _command(commands, "restore", words, runs="server.cli.history:restore")
    restore.add_argument("session", help="the session's id")
    restore.add_argument("--at", metavar="POINT", required=True, help="a number of its `history`, or a turn's id")
    _connection(restore)


def _add_push(commands: argparse._SubParsersAction[_Parser]) -> None:
    push = _command(commands, "push", "push a session's work that its turns could not push", runs="server.cli.push:run")
    push.add_argument("session", help="the session's id")
    push.add_argument("--branch", metavar="NAME", default="", help="onto a new branch of this name, on which the session goes on")
    _json(push)
    _connection(push)


def _add_repos(commands: argparse._SubParsersAction[_Parser]) -> None:
    repos = _command(commands, "repos", "list the repositories that you can see on a code host", runs="server.cli.repos:run")
    repos.add_argument("host", nargs="?", default="", help="as credentials name it (default: github.com)")
    repos.add_argument("--limit", metavar="N", type=int, default=30, help="how many at most (default 30)")
    _json(repos)
    _connection(repos)


def _add_pr(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = "make a pull request of a session's branch, look at it, or merge it"
    pr = _command(commands, "pr", words, runs="server.cli.pr:run")
    pr.add_argument("action", choices=("create", "show", "merge", "auto"), help="auto: all of it, from the branch to its merge")
    pr.add_argument("session", help="the session's id")
    pr.add_argument("--title", metavar="TEXT", default="", help="of a new one (default: one is made)")
    pr.add_argument("--body", metavar="TEXT", default="", help="of a new one (default: one is made)")
    pr.add_argument("--base", metavar="BRANCH", default="", help="where it shall be merged (default: where the session grew from)")
    pr.add_argument("--draft", action="store_true", help="a new one that is not ready")
    pr.add_argument("--squash", action="store_true", help="merge it as one commit")
    pr.add_argument("--keep-branch", action="store_true", help="auto: do not delete the branch after the merge")
    _json(pr)
    _connection(pr)


def _add_key(commands: argparse._SubParsersAction[_Parser]) -> None:
    key = _command(commands, "key", "make an API key for a user, in the server's database", runs="server.cli.key:run")
    key.add_argument("user", nargs="?", default="", help="the user's id; one that is new is made")
    key.add_argument("--tenant", metavar="ID", default="", help="whose user it is (default local; of --list and --revoke: any)")
    key.add_argument("--name", metavar="NAME", default="", help="the name under which the user's commits are made (default: the id)")
    key.add_argument("--email", metavar="ADDRESS", default="", help="the same for the address")
    instead = key.add_mutually_exclusive_group()
    instead.add_argument("--days", metavar="N", type=_days, help="days for which the key works (default: until it is revoked)")
    instead.add_argument(
        "--revoke", metavar="KEY", default="", help="instead, end this key (its first 12 characters are enough), whosever it is"
    )
    instead.add_argument("--revoke-all", action="store_true", help="instead, end all keys of the user's")
    instead.add_argument(
        "--list", action="store_true", help="instead, list the keys that are not revoked: all, or those of the tenant or the user"
    )
    key.epilog = "It needs TREADLE_DATABASE_SYSTEM_URL, as the server has it. The key is printed this once."


def _add_legacy(commands: argparse._SubParsersAction[_Parser]) -> None:
    words = "bring in sessions of the system that Treadle replaces, in the server's database"
    legacy = _command(commands, "legacy", words, runs="server.cli.legacy:run")
    legacy.add_argument("action", choices=["import"], help="the same command again goes on where it stopped, and brings in what changed")
    legacy.add_argument("--from", metavar="PLACE", dest="source", required=True, help="s3://BUCKET, or a directory with a copy of it")
    legacy.add_argument(
        "--owner", metavar="USER|FILE", default="", help="whose sessions they are: a user's id, or a JSON file that says it"
    )
    legacy.add_argument("--tenant", metavar="ID", default="", help="whose users these are (default local)")
    legacy.add_argument("--dry-run", action="store_true", help="only say what would be done")
    legacy.add_argument("--limit", metavar="N", type=_count, default=-1, help="stop when so many were imported")
    legacy.add_argument("--report", metavar="FILE", type=Path, help="write a line of JSON for each archive")
    legacy.epilog = "It needs the server's settings, its data directory and the right to write there (docs/operations.md)."


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of archives")
    return int(text)


def _days(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 1 to {_MOST_DAYS}")
    return int(text)


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    doctor = _command(commands, "doctor", "say what this machine can and cannot do, and what to install", runs="server.cli.doctor:run")
    _data_dir(doctor)


def _add_version(commands: argparse._SubParsersAction[_Parser]) -> None:
    _command(commands, "version", "print the version", runs="server.cli.version:run")


def _command(commands: argparse._SubParsersAction[_Parser], name: str, words: str, *, runs: str) -> _Parser:
    command = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.set_defaults(runs=runs, complain=command.error)
    return command


def _connection(command: _Parser, *, turn: bool = False) -> None:
    """`turn`: the command follows one, and ends as it does."""
    command.add_argument("--server", metavar="ADDRESS", help="the server: HOST:PORT, or https://HOST[:PORT] for one with TLS")
    command.add_argument("--ca-file", metavar="FILE", help="certificates (PEM) to trust instead of the public ones (TREADLE_CA_FILE)")
    _data_dir(command)
    codes = _EXIT_CODES_OF_A_TURN if turn else _EXIT_CODES
    command.epilog = _CONNECTION_HELP + "\n".join(f"  {code.value:<3} {words}" for code, words in codes.items())


def _data_dir(command: _Parser) -> None:
    command.add_argument("--data-dir", metavar="DIR", help="where `treadle up` keeps everything (TREADLE_DATA_DIR)")


def _json(command: _Parser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, one object per line")
