"""What commands of those who run a server take."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.cli.parser import Commands, Parser, add_command, add_connection, add_data_dir, count

_MOST_DAYS = 36_500


def add_serving(commands: Commands[Parser]) -> None:
    """A server to try."""
    up = add_command(commands, "up", "start Treadle with all it needs, and serve until Ctrl-C", runs="server.cli.up:run")
    add_data_dir(up)
    up.add_argument("--listen", metavar="HOST:PORT", help="address of the gRPC API (TREADLE_LISTEN; default 127.0.0.1:7433)")
    up.add_argument("--demo", action="store_true", help="play the demo session, as the first start does")
    demo = add_command(commands, "demo", "play the demo session on a running `treadle up`", runs="server.cli.demo:run")
    add_connection(demo)


def add_operators(commands: Commands[Parser]) -> None:
    """What needs the server's own database or machine."""
    _add_key(commands)
    _add_legacy(commands)
    doctor = add_command(commands, "doctor", "say what this machine can and cannot do, and what to install", runs="server.cli.doctor:run")
    add_data_dir(doctor)
    add_command(commands, "version", "print the version", runs="server.cli.version:run")


def _add_key(commands: Commands[Parser]) -> None:
    key = add_command(commands, "key", "make an API key for a user, in the server's database", runs="server.cli.key:run")
    key.add_argument("user", metavar="USER", nargs="?", default="", help="the user's id; one that is new is made")
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
    add_data_dir(key)
    key.epilog = "It needs TREADLE_DATABASE_SYSTEM_URL, as the server has it, or a `treadle up` that runs. The key is printed this once."


def _add_legacy(commands: Commands[Parser]) -> None:
    words = "bring in sessions of the system that Treadle replaces, in the server's database"
    legacy = add_command(commands, "legacy", words, runs="server.cli.legacy:run")
    legacy.add_argument("action", choices=["import"], help="the same command again goes on where it stopped, and brings in what changed")
    legacy.add_argument("--from", metavar="PLACE", dest="source", required=True, help="s3://BUCKET, or a directory with a copy of it")
    legacy.add_argument(
        "--owner", metavar="USER|FILE", default="", help="whose sessions they are: a user's id, or a JSON file that says it"
    )
    legacy.add_argument("--tenant", metavar="ID", default="", help="whose users these are (default local)")
    legacy.add_argument("--dry-run", action="store_true", help="only say what would be done")
    legacy.add_argument("--limit", metavar="N", type=count, default=-1, help="stop when so many were imported")
    legacy.add_argument("--report", metavar="FILE", type=Path, help="write a line of JSON for each archive")
    add_data_dir(legacy)
    legacy.usage = "treadle legacy import --from PLACE [--owner USER|FILE] [--dry-run] ..."
    legacy.epilog = (
        "It needs the server's settings (docs/operations.md) or a `treadle up` that runs, and the right to write in its data directory. "
        "Exit code 1: an archive was refused, or all were skipped."
    )


def _days(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 1 to {_MOST_DAYS}")
    return int(text)
