"""`treadle files cat`, `get` and `diff`: bytes to standard output, or into a file."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from server.cli.aside import aside
from server.cli.connection import connected
from server.cli.failure import CommandFailed, ExitCode
from server.cli.files.committed import say_if_live
from server.cli.files.entries import tell
from server.cli.screen import Screen
from server.cli.summary import counts, diff_style
from treadle.file.v1 import file_service_pb2 as pb
from treadle_client import AsyncFiles, NotAFile


def cat(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    asyncio.run(_cat(options))
    return ExitCode.DONE


def get(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    asyncio.run(_get(options))
    return ExitCode.DONE


def diff(options: argparse.Namespace) -> ExitCode:
    """Errors: CommandFailed."""
    if options.at and options.since:
        raise CommandFailed(f"from when? {options.since} and --at {options.at} both say it", ExitCode.REFUSED)
    asyncio.run(_diff(options))
    return ExitCode.DONE


async def _cat(options: argparse.Namespace) -> None:
    async with connected(options) as connection:
        await _out(connection.treadle.files(options.session).read(options.path, at=options.at))


async def _diff(options: argparse.Namespace) -> None:
    async with connected(options) as connection:
        if not options.until:
            await say_if_live(connection, options.session)
        files, base = connection.treadle.files(options.session), options.since or options.at
        if options.stat or options.json:
            _show_files(await files.diff(base, options.until, path=options.path), as_json=options.json)
            return
        patch = files.patch(base, options.until, path=options.path)
        await (_show_patch(patch) if sys.stdout.isatty() else _out(patch))


def _show_files(found: pb.DiffFilesResponse, *, as_json: bool) -> None:
    for file in found.files:
        moved = f"{file.old_path} → " if file.old_path else ""
        much = "binary" if file.binary else f"+{file.additions} -{file.deletions}"
        tell(file, f"{file.operation[:1]} {much:>14}  {moved}{file.path}", as_json=as_json)
    if found.truncated:
        aside(f"this is not all, only the first {len(found.files)}: --path shows one directory")
    if not as_json:
        print(counts(found.files_changed, found.additions, found.deletions))


async def _get(options: argparse.Namespace) -> None:
    async with connected(options) as connection:
        files = connection.treadle.files(options.session)
        if options.path and not options.zip and await _is_file(files, options):
            content, archive = files.read(options.path, at=options.at), ""
        else:
            if not options.output and sys.stdout.isatty():
                raise CommandFailed("an archive is nothing for a terminal: name a file with `-o FILE`, or use `> FILE`", ExitCode.REFUSED)
            if not options.at:
                await say_if_live(connection, options.session)
            packed = pb.ARCHIVE_FORMAT_ZIP if options.zip else pb.ARCHIVE_FORMAT_TAR_GZ
            content, archive = files.archive(options.path, at=options.at, format=packed), ".zip" if options.zip else ".tar.gz"
        if not options.output:
            await _out(content)
            return
        place = _place(options, archive=archive)
        with _whole_or_not(place) as file:
            async for chunk in content:
                file.write(chunk)
        if place != Path(options.output):
            aside(f"written to {place}")


def _place(options: argparse.Namespace, *, archive: str) -> Path:
    """Into a directory it goes by its own name, as `cp` does it."""
    output = Path(options.output)
    if not output.is_dir():
        return output
    name = PurePosixPath(options.path).name or options.session
    return output / f"{name}{archive}"


async def _is_file(files: AsyncFiles, options: argparse.Namespace) -> bool:
    try:
        await files.stat(options.path, at=options.at)
    except NotAFile:
        return False
    return True


@contextmanager
def _whole_or_not(path: Path) -> Iterator[BinaryIO]:
    """A file that is there once all of it is; what is no file, such as /dev/null, is written to as it is. Errors: CommandFailed."""
    partial = path if path.exists() and not path.is_file() else path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with partial.open("wb" if partial == path else "xb") as file:
                yield file
            # Closed by now: a full disk may say so only then.
            partial.replace(path)
        except BaseException:
            if partial != path:
                partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror}", ExitCode.REFUSED) from None


async def _show_patch(chunks: AsyncIterator[bytes]) -> None:
    """For a person: with styles, and without anything that a terminal would obey."""
    screen, rest = Screen(), b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            screen.line(text, diff_style(text))


async def _out(chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.flush()
