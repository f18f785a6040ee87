"""`treadle credential`: what the user has to get into code hosts. A secret is never an argument, which others on the machine could see."""

from __future__ import annotations

import argparse
import asyncio
import sys
from getpass import getpass

from google.protobuf.json_format import MessageToJson

from server.cli.aside import aside
from server.cli.clock import local_time
from server.cli.connection import connected, find_target
from server.cli.failure import CommandFailed, ExitCode
from server.cli.program import typed
from server.cli.screen import Screen
from treadle_client import AsyncCredentials, Credential, GithubApp


def run(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    secret = _secret(options.host, options.github_app) if options.action == "add" else ""
    found = asyncio.run(_run(options, secret))
    if options.json:
        for each in found:
            print(MessageToJson(each, indent=None))
        return ExitCode.DONE
    if options.action in ("add", "login"):
        _tell_stored(found[0])
    elif options.action == "list" and not found:
        aside(f"there is none; {typed('credential add HOST', find_target(options).data_dir)} stores a token for a host")
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
        if options.action == "login":
            return [await _logged_in(credentials, options.host)]
        if options.action == "add":
            return [await credentials.put(options.host, secret, username=options.username)]
        found = [each for each in await credentials.list() if options.host in ("", each.host, each.credential_id)]
        if options.action == "list":
            return found
        if not found:
            raise CommandFailed(f"there is no credential for {options.host}", ExitCode.REFUSED)
        await credentials.delete(found[0].credential_id)
        if not options.json:
            Screen().prose(f"removed; {found[0].host} still knows the token: revoke it there")
        return []


async def _logged_in(credentials: AsyncCredentials, host: str) -> Credential:
    login = await credentials.start_login(host)
    aside(f"open {login.verification_url} and enter {login.user_code}\nwaiting until {local_time(login.expires_at)}; Ctrl-C to stop")
    return await credentials.finish_login(login)


def _tell_stored(stored: Credential) -> None:
    before = "in place of the one that was there" if stored.version > 1 else "for your repositories there"
    Screen().prose(f"stored, {before}")


def _show(found: list[Credential]) -> None:
    screen = Screen()
    widths = [max(map(len, column), default=0) for column in zip(*((each.host, each.username, _used(each)) for each in found), strict=True)]
    for each in found:
        host, username, used = (text.ljust(width) for text, width in zip((each.host, each.username, _used(each)), widths, strict=True))
        screen.parts((host, "bold"), (f"  {username}  {used}  ", "dim"), (each.credential_id, "dim"), hang=2)


def _used(credential: Credential) -> str:
    return f"used {local_time(credential.last_used_at)}" if credential.HasField("last_used_at") else "never used"
