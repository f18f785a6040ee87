"""`treadle files find` and `grep`. As with grep, the exit code says whether something was found."""

from __future__ import annotations

import argparse
import asyncio

from server.cli.aside import aside
from server.cli.connection import connected
from server.cli.failure import CommandFailed, ExitCode
from server.cli.files.committed import say_if_live
from server.cli.files.entries import tell

_MOST = 1_000


def find(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    _check(options)
    return asyncio.run(_find(options))


def grep(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    _check(options)
    return asyncio.run(_grep(options))


async def _find(options: argparse.Namespace) -> ExitCode:
    async with connected(options) as connection:
        if not options.at:
            await say_if_live(connection, options.session)
        files = connection.treadle.files(options.session)
        found = await files.find(options.pattern, path=options.path, at=options.at, limit=options.limit)
    for file in found.files:
        tell(file, file.path, as_json=options.json)
    return _end(len(found.files), truncated=found.truncated)


async def _grep(options: argparse.Namespace) -> ExitCode:
    async with connected(options) as connection:
        if not options.at:
            await say_if_live(connection, options.session)
        found = await connection.treadle.files(options.session).search(
            options.pattern,
            regex=options.regex,
            ignore_case=options.ignore_case,
            path=options.path,
            at=options.at,
            limit=options.limit,
        )
    for match in found.matches:
        tell(match, f"{match.path}:{match.line}:{match.text}", as_json=options.json)
    return _end(len(found.matches), truncated=found.truncated)


def _check(options: argparse.Namespace) -> None:
    if options.limit > _MOST:
        raise CommandFailed(f"--limit is at most {_MOST}", ExitCode.REFUSED)


def _end(found: int, *, truncated: bool) -> ExitCode:
    if truncated:
        more = f"--limit N shows up to {_MOST}" if found < _MOST else "name a directory, or look for something narrower"
        aside(f"this is not all, only the first {found}: {more}")
    return ExitCode.DONE if found else ExitCode.NOTHING_FOUND
