"""A pull request's title and body, made by rules of what two branches differ in."""

from __future__ import annotations

from collections.abc import Iterable

from server.kernel.code_host import Comparison

TITLE_CHARS = 72
_LISTED = 50
_LINE_CHARS = 200


def title_of(request: str, *, head: str, base: str) -> str:
    """The first line of what was asked for, or what is merged."""
    first = next((line.strip() for line in request.splitlines() if line.strip()), f"Merge {head} into {base}")
    shown = "".join(letter if letter.isprintable() else " " for letter in first)
    return shown if len(shown) <= TITLE_CHARS else shown[: TITLE_CHARS - 3].rstrip() + "..."


def body_of(request: str, compared: Comparison, *, head: str, base: str) -> str:
    """Markdown. What comes from the repository (names, messages) is a stranger's, and stays text."""
    files = [*compared.added, *compared.modified, *compared.removed, *compared.renamed]
    parts = [
        f"## Summary\n\n{request.strip() or f'Merges {_code(head)} into {_code(base)}.'}",
        _section("## Commits", map(_plain, compared.commits)),
        f"## Changes\n\n{len(files)} files changed, {compared.additions} additions, {compared.deletions} deletions" if files else "",
        _section("### Added", map(_code, compared.added)),
        _section("### Modified", map(_code, compared.modified)),
        _section("### Renamed", (f"{_code(old)} → {_code(new)}" for old, new in compared.renamed)),
        _section("### Removed", map(_code, compared.removed)),
        "---\nMade with Treadle",
    ]
    return "\n\n".join(filter(None, parts))


def _section(heading: str, lines: Iterable[str]) -> str:
    listed = [*lines]
    if not listed:
        return ""
    more = [f"- … and {len(listed) - _LISTED} more"] if len(listed) > _LISTED else []
    return "\n".join([heading, "", *(f"- {line}" for line in listed[:_LISTED]), *more])


def _plain(text: str) -> str:
    """Without what Markdown or the host would act on: links, mentions, HTML."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[:_LINE_CHARS])
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#@!|~" else letter for letter in shown)


def _code(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in text[:_LINE_CHARS]).replace("`", "'")
    return f"`{shown}`"
