"""Searches through the files of a commit, by `git grep`. Pattern and files are chosen by strangers: time and memory are limited."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from server.git.command import Git, GitFailed, GitTimeout
from server.git.manifest import printable
from server.git.objects import ObjectMissing
from server.git.refs import commit_id
from server.kernel.errors import InvalidField, SearchTooSlow
from server.kernel.ports.trees import Match

SECONDS = 20.0
_MEMORY_BYTES = 1024 * 1024 * 1024
"""For patterns like `((a{1,99}){1,99}){1,99}` whose machine has no end."""
_OUTPUT_BYTES = 4 * 1024 * 1024
_SHOWN = 1000


async def grep(
    git: Git, mirror: Path, commit: str, pattern: str, *, path: str, regex: bool, ignore_case: bool, limit: int
) -> tuple[list[Match], bool]:
    """See Trees.grep. Errors: ObjectMissing, GitFailed, InvalidField, SearchTooSlow."""
    options = ["-E" if regex else "-F", *(["-i"] if ignore_case else [])]
    try:
        found = await git.run(
            "grep", "-z", "-n", "-I", "--no-color", "--full-name", "--threads=1", *options, "-e", pattern,
            commit_id(commit), "--", *([path] if path else []),
            git_dir=mirror, environment={"GIT_LITERAL_PATHSPECS": "1"}, seconds=SECONDS, max_output=_OUTPUT_BYTES, accept=(0, 1),
            limits={resource.RLIMIT_DATA: _MEMORY_BYTES, resource.RLIMIT_CPU: int(SECONDS)},
        )  # fmt: skip
    except GitTimeout:
        raise SearchTooSlow(SECONDS) from None
    except GitFailed as error:
        raise _refusal(error) from error
    # Git only says so, and goes on without the file.
    if missing := ObjectMissing.told_in(found.stderr):
        raise missing
    matches = list(islice(_matches(found.stdout, len(commit) + 1), limit + 1))
    return matches[:limit], len(matches) > limit or found.truncated


def _matches(output: bytes, skipped: int) -> Iterator[Match]:
    """`<commit>:<path>NUL<line>NUL<text>LF` each; the text holds no line break."""
    at = 0
    while at < len(output):
        path_end = output.find(b"\0", at)
        line_end = output.find(b"\0", path_end + 1)
        if path_end < 0 or line_end < 0:
            return  # cut off
        end = output.find(b"\n", line_end)
        text = output[line_end + 1 : len(output) if end < 0 else end][: 4 * _SHOWN].decode("utf-8", "replace")
        yield Match(printable(output[at + skipped : path_end]), int(output[path_end + 1 : line_end]), text[:_SHOWN])
        at = len(output) if end < 0 else end + 1


def _refusal(error: GitFailed) -> Exception:
    if error.completed.code < 0 or "emory" in error.reason:
        return SearchTooSlow(SECONDS)
    return InvalidField("pattern", error.reason) if "-e option" in error.reason else error
