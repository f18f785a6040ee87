"""`treadle legacy import`: sessions of the old system, by the database itself; for operators, beside the server."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.aside import aside
from server.cli.beside import settings_beside
from server.cli.failure import CommandFailed, ExitCode
from server.kernel.errors import ObjectStoreUnavailable, StoreUnavailable
from server.refusal import SettingsUnfit, StartRefused

if TYPE_CHECKING:
    from server.config import Settings
    from server.legacy.importing import Importer
    from server.legacy.owners import Owners
    from server.legacy.report import Outcome, Report
    from server.legacy.source import Source

_TENANT = "local"
_BUCKET = "s3://"


def run(options: argparse.Namespace) -> ExitCode:
    """Print a line for each archive, and how many ended how. Errors: CommandFailed."""
    from pydantic import SecretStr

    from server.db.errors import with_cause
    from server.legacy.owners import Owners

    try:
        # Tables are the server's to bring up to date, and a dry run writes nothing.
        settings = settings_beside(options, database_owner_url=SecretStr(""))
        if not settings.database_url.get_secret_value():
            raise CommandFailed("TREADLE_DATABASE_URL is needed, too; run it where the server's settings are", ExitCode.REFUSED)
        owners = Owners.parse(options.owner) if options.owner else Owners({})
        return asyncio.run(bring_in(options, settings, owners))
    except (SettingsUnfit, StartRefused, ValueError) as error:
        raise CommandFailed(str(error), ExitCode.REFUSED) from None
    except StoreUnavailable as error:
        raise CommandFailed(f"{with_cause(error)}; the same command goes on where it stopped", ExitCode.UNREACHABLE) from None
    except ObjectStoreUnavailable as error:
        raise CommandFailed(error.message, ExitCode.UNREACHABLE) from None


async def bring_in(options: argparse.Namespace, settings: Settings, owners: Owners) -> ExitCode:
    """All archives, one after the other. Errors: CommandFailed, StartRefused, SettingsUnfit, StoreUnavailable, ObjectStoreUnavailable."""
    from server.legacy.report import Report
    from server.legacy.source import NAME

    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(_source(settings, options.source))
        importer = await stack.enter_async_context(_importer(settings, source, owners, options.tenant or _TENANT, dry_run=options.dry_run))
        try:
            report = stack.enter_context(Report(options.report, dry_run=options.dry_run))
        except OSError as error:
            raise CommandFailed(f"the report cannot be written: {error.strerror}", ExitCode.REFUSED) from None
        entries = await source.entries()
        aside(f"{len(entries)} archives" + ("; a dry run: nothing is written" if options.dry_run else ""))
        if not entries:
            aside(f"an archive is a file <session's id>/{NAME}, and {options.source} has none of this name")
        async with aclosing(importer.run(entries)) as outcomes:
            async for outcome in outcomes:
                report.add(outcome)
                print(_line(outcome), flush=True)
                if report.imported == options.limit:
                    break
    _summarise(report)
    return ExitCode.DONE if report.went_well else ExitCode.TURN_FAILED


@asynccontextmanager
async def _source(settings: Settings, place: str) -> AsyncIterator[Source]:
    from server.legacy.source import BucketSource, DirectorySource
    from server.storage.s3_shared import open_shared

    if place.startswith(_BUCKET):
        async with open_shared(settings, place.removeprefix(_BUCKET).rstrip("/")) as bucket:
            yield BucketSource(bucket)
    elif Path(place).is_dir():  # noqa: ASYNC240 - once, at the start
        yield DirectorySource(Path(place))
    else:
        raise CommandFailed(f"--from {place}: neither {_BUCKET}BUCKET nor a directory", ExitCode.REFUSED)


@asynccontextmanager
async def _importer(settings: Settings, source: Source, owners: Owners, tenant_id: str, *, dry_run: bool) -> AsyncIterator[Importer]:
    from server.api.event_codec import ProtobufEventCodec
    from server.codehosts.opened import open_githubs
    from server.db.stores import open_postgres
    from server.git.remote_url import RemoteUrls
    from server.git.repository import open_git
    from server.identity.vault import open_vault
    from server.kernel.credentials import Credentials
    from server.kernel.journal import Journal, Notes
    from server.legacy.importing import Importer, Target
    from server.legacy.isolation import Reader
    from server.legacy.scratch import sweep
    from server.legacy.survey import Survey
    from server.sandbox.probe import Unavailable, probe
    from server.secrets import known_secrets

    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_postgres(settings))
        hosts = RemoteUrls(hosts=settings.git_allowed_hosts, prefixes=settings.git_allowed_prefixes)
        githubs = await stack.enter_async_context(open_githubs(settings))
        credentials = Credentials(stores.credentials, stores.logins, open_vault(settings), hosts, githubs.tokens)
        stack.push_async_callback(credentials.finished)
        repositories = await stack.enter_async_context(open_git(settings, token=credentials.token_for))
        codec = ProtobufEventCodec()
        scratch = settings.data_dir / "scratch"
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(sweep, scratch)
        sandbox = await asyncio.to_thread(probe)
        if isinstance(sandbox, Unavailable):
            aside(f"no sandbox works here, so archives are read in a process with limits only: {sandbox.reason}")
        reader = Reader(None if isinstance(sandbox, Unavailable) else sandbox, seconds=settings.git_timeout_seconds)
        journal = Journal(stores.events, stores.turns, codec, mark=lambda _: None, heartbeat_seconds=settings.heartbeat_seconds)
        # What is recorded is pending: the server, which has the same mirrors, puts it into the object store.
        notes = Notes(stores.history, journal, codec, secrets=known_secrets(settings, os.environ), recorded=lambda _: None)
        survey = Survey(reader, repositories, stores.legacy, owners, tenant_id=tenant_id)
        target = Target(stores.sessions, stores.legacy, repositories, repositories.trees, codec, notes)
        yield Importer(source, survey, reader, target, scratch=scratch, dry_run=dry_run)


def _line(outcome: Outcome) -> str:
    told = [outcome.status, _visible(outcome.key)]
    if outcome.reason:
        told.append(f"{outcome.reason}: {_visible(outcome.detail)}")
    else:
        told += [part for part in (outcome.layout, outcome.repository, _visible(outcome.branch)) if part]
    return "  ".join(told)


def _visible(text: str) -> str:
    """Strangers' words, without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _summarise(report: Report) -> None:
    if report.counts:
        width = max(len(f"{status} {reason}") for status, reason in report.counts)
        for (status, reason), count in sorted(report.counts.items()):
            aside(f"{f'{status} {reason}'.strip():<{width}}  {count:>6}")
