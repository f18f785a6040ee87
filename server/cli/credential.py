"""`treadle credential`: what the user has to get into code hosts. A secret is never an argument, which others on the machine could see."""

from __future__ import annotations

import argparse
import asyncio
import sys
from getpass import getpass

from google.protobuf.json_format import MessageToJson

from server.cli.aside import aside
from server.cli.clock import local_time
from server.cli.connection import connected
from server.cli.failure import CommandFailed, ExitCode
from server.cli.screen import Screen
from treadle_client import Credential, GithubApp


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if options.action != "list" and not options.host:
        raise CommandFailed(f"for which host? `treadle credential {options.action} github.com`", ExitCode.REFUSED)
    secret = _secret(options.host, options.github_app) if options.action == "add" else ""
    found = asyncio.run(_run(options, secret))
    if options.json:
        for each in found:
            print(MessageToJson(each, indent=None))
    else:
        _show(found)
    return ExitCode.DONE


def _secret(host: str, app: list[str] | None) -> str | GithubApp:
    """From a terminal without an echo, else the first line of standard input; an app's key is all of it."""
    if app:
        return GithubApp(app_id=app[0], installation_id=app[1], private_key=sys.stdin.read())
    token = getpass(f"token for {host}: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not token:
        raise CommandFailed("no token came from standard input", ExitCode.REFUSED)
    return token


async def _run(options: argparse.Namespace, secret: str | GithubApp) -> list[Credential]:
    async with connected(options) as connection:
        credentials = connection.treadle.credentials
        if options.action == "add":
            return [await credentials.put(options.host, secret, username=options.username)]
        found = [each for each in await credentials.list() if options.host in ("", each.host, each.credential_id)]
        if options.action == "list":
            return found
        if not found:
            raise CommandFailed(f"there is no credential for {options.host}", ExitCode.REFUSED)
        await credentials.delete(found[0].credential_id)
        aside(f"removed; {found[0].host} still knows the token: revoke it there")
        return []


def _show(found: list[Credential]) -> None:
    screen = Screen()
    for each in found:
        used = f"used {local_time(each.last_used_at)}" if each.HasField("last_used_at") else "never used"
        screen.parts((each.host, "bold"), (f"  {each.username}  {used}  ", "dim"), (each.credential_id, "dim"), hang=2)
