"""What commands about sessions and their turns take."""

from __future__ import annotations

from server.cli.arguments.places import point
from server.cli.parser import SESSION_HELP, Commands, Parser, add_command, add_connection, add_json, add_limit, add_session

_POINT = "a number of its `history`, a turn's id, 0 for before its first change, head for the newest, or a commit of its history"


def add_sessions(commands: Commands[Parser]) -> None:
    """From a request to its answer."""
    _add_run(commands)
    _add_resume(commands)
    _add_list(commands)
    _add_show(commands)
    _add_rename(commands)
    _add_delete(commands)
    _add_send(commands)
    _add_inputs(commands)
    _add_answer(commands)
    _add_interrupt(commands)


def add_history(commands: Commands[Parser]) -> None:
    """A session's past, and what becomes of it."""
    _add_history(commands)
    _add_fork(commands)
    _add_restore(commands)
    _add_push(commands)


def _add_run(commands: Commands[Parser]) -> None:
    run = add_command(commands, "run", "ask for a change, and watch it being made", runs="server.cli.run:run")
    run.add_argument("request", metavar="REQUEST", help="what shall be done, in quotes")
    run.add_argument("--repo", metavar="URL", default="", help="the Git repository; needed without --session")
    run.add_argument("--session", metavar="ID", default="", help=f"go on with this one: {SESSION_HELP}")
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
    add_json(run)
    add_connection(run)


def _add_resume(commands: Commands[Parser]) -> None:
    resume = add_command(commands, "resume", "show a session's events from any place, and follow it", runs="server.cli.resume:run")
    add_session(resume)
    resume.add_argument("--after", metavar="SEQ", type=int, default=0, help="the last event that you have (default 0: show all)")
    resume.add_argument("--no-follow", action="store_true", help="stop after what is there now")
    add_json(resume)
    add_connection(resume)


def _add_list(commands: Commands[Parser]) -> None:
    sessions = add_command(commands, "sessions", "list your sessions, newest first", runs="server.cli.sessions:run")
    add_limit(sessions, 20)
    add_json(sessions)
    add_connection(sessions)


def _add_show(commands: Commands[Parser]) -> None:
    show = add_command(commands, "show", "show what a session is and does now", runs="server.cli.sessions:show")
    add_session(show)
    add_json(show)
    add_connection(show)


def _add_rename(commands: Commands[Parser]) -> None:
    rename = add_command(commands, "rename", "give a session another title", runs="server.cli.sessions:rename")
    add_session(rename)
    rename.add_argument("title", metavar="TITLE", help="at most 200 characters, in quotes")
    add_connection(rename)


def _add_delete(commands: Commands[Parser]) -> None:
    words = "remove a session with its events and snapshots; its branch on the remote stays"
    delete = add_command(commands, "delete", words, runs="server.cli.sessions:delete")
    add_session(delete)
    delete.add_argument("--yes", action="store_true", help="do not ask; needed where nobody can be asked")
    add_connection(delete)


def _add_send(commands: Commands[Parser]) -> None:
    words = "say something to a session: it starts a turn, or waits for the one that runs"
    send = add_command(commands, "send", words, runs="server.cli.send:run")
    add_session(send)
    send.add_argument("text", metavar="TEXT", help="what is said, in quotes")
    how = send.add_mutually_exclusive_group()
    how.add_argument("--steer", action="store_true", help="for the agent that works now, at its next safe step")
    how.add_argument("--interrupt", action="store_true", help="stop the turn that runs; this is the next one")
    send.add_argument("--request-id", metavar="ID", default="", help="your own key for this; the same key again says nothing twice")
    add_json(send)
    add_connection(send)


def _add_inputs(commands: Commands[Parser]) -> None:
    inputs = add_command(commands, "inputs", "list what waits in a session's queue", runs="server.cli.inputs:run")
    add_session(inputs)
    inputs.add_argument("--all", action="store_true", help="also what was delivered or cancelled")
    change = inputs.add_mutually_exclusive_group()
    change.add_argument("--change", nargs=2, metavar=("INPUT", "TEXT"), help="give this one another text")
    change.add_argument("--cancel", metavar="INPUT", default="", help="take this one back")
    add_json(inputs)
    add_connection(inputs)


def _add_answer(commands: Commands[Parser]) -> None:
    answer = add_command(commands, "answer", "answer what a session's agent asks", runs="server.cli.answer:run")
    add_session(answer)
    answer.add_argument(
        "answer",
        metavar="ANSWER",
        nargs="*",
        help="yes, no, an option or its number, or text: one for each question; asked for on a terminal",
    )
    answer.add_argument("--request", metavar="ID", default="", help="which request, when several are open")
    answer.add_argument("--decline", action="store_true", help="refuse to answer; the agent has to do without")
    answer.add_argument("--note", metavar="TEXT", default="", help="a word for the agent")
    add_connection(answer)


def _add_interrupt(commands: Commands[Parser]) -> None:
    words = "stop a session's turn; its work so far is committed and pushed"
    interrupt = add_command(commands, "interrupt", words, runs="server.cli.interrupt:run")
    add_session(interrupt)
    add_connection(interrupt)


def _add_history(commands: Commands[Parser]) -> None:
    history = add_command(commands, "history", "list what turns and users made of a session, newest first", runs="server.cli.history:run")
    add_session(history)
    add_limit(history, 20)
    add_json(history)
    add_connection(history)


def _add_fork(commands: Commands[Parser]) -> None:
    words = "make a session that goes on from any point of another one, with its files and its conversation"
    fork = add_command(commands, "fork", words, runs="server.cli.history:fork")
    add_session(fork)
    fork.add_argument("--at", metavar="POINT", default="", type=point, help=f"{_POINT} (default: as it is now)")
    fork.add_argument("--title", metavar="TEXT", default="", help="title of the new session (default: the same, and that it is a fork)")
    fork.add_argument("--branch", metavar="NAME", default="", help="name for its branch (default: one is made)")
    add_connection(fork)


def _add_restore(commands: Commands[Parser]) -> None:
    words = "bring a session's files and conversation back to a past point, by a new commit: nothing is lost"
    restore = add_command(commands, "restore", words, runs="server.cli.history:restore")
    add_session(restore)
    restore.add_argument("--at", metavar="POINT", required=True, type=point, help=_POINT)
    add_connection(restore)


def _add_push(commands: Commands[Parser]) -> None:
    push = add_command(commands, "push", "push a session's work that is not on its remote yet", runs="server.cli.push:run")
    add_session(push)
    push.add_argument("--branch", metavar="NAME", default="", help="onto a new branch of this name, on which the session goes on")
    add_json(push)
    add_connection(push)
