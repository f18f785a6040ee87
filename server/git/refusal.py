"""From what git and a host say about a push to the kind of its refusal.

Git's own words are read as they are (LC_ALL=C); a host's are known by its codes, where it has some (GitHub's GH001, GH006 ...,
Azure DevOps' TF...), else by what GitLab, Gitea, Forgejo and Bitbucket print. What is not known is OTHER, and is told all the same.
"""

from __future__ import annotations

import re

from server.git.command import GitFailed
from server.kernel.errors import PushRefused
from server.kernel.escapes import ESCAPE_SEQUENCE
from server.kernel.push_refusal import PushRefusal

_REASON_CHARS = 2000

_Rules = tuple[tuple[PushRefusal, re.Pattern[str]], ...]


def _rules(**patterns: str) -> _Rules:
    return tuple((PushRefusal(kind), re.compile(pattern, re.IGNORECASE)) for kind, pattern in patterns.items())


_BY_STATUS = _rules(
    NON_FAST_FORWARD=r"\((non-fast-forward|fetch first|stale info|needs force|incorrect old value provided|reference already exists)"
    r"|but expected",
    BRANCH_EXISTS=r"directory file conflict|exists; cannot create",
    NETWORK=r"\[remote failure\]",
)
"""In the line that says what became of the branch. Only git writes there, but for the words of a `[remote rejected]`."""

_BY_HOST = (
    # A push that is too large fails in the host's unpacking, and one with a secret by a rule: the more telling words come first.
    *_rules(
        BRANCH_EXISTS=r"exists; cannot create",
        TOO_LARGE=r"\bGH001\b|exceeds maximum allowed size|exceed(s|ing)?\b.{0,40}\blimit|larger than the (allowed|maximum)",
        HOOK_DECLINED=r"\bGH007\b|push protection|cannot contain secrets",
        PROTECTED_BRANCH=r"\bGH0(03|06|13)\b|\bTF402455\b|protected (branch|ref)|rule violations|permission denied to update branch",
        PERMISSION=r"refusing to allow|\bTF401027\b|not allowed to push|permission\b.{0,200}\bdenied|read-only|access denied",
    ),
    *_rules(HOOK_DECLINED=r"hook declined|push declined"),
)
"""In all that is said where the host has judged the push."""

_BY_TRANSPORT = _rules(
    TOO_LARGE=r"exceeds maximum allowed size|\b(error:|HTTP) 413\b",
    AUTHENTICATION=r"\b(error:|HTTP) 401\b|authentication failed|could not read (username|password)",
    PERMISSION=r"\b(error:|HTTP) 403\b",
    REPOSITORY_GONE=r"\b(error:|HTTP) (404|410|301|302|307|308)\b|repository\b.{0,1000}\bnot found",
    NETWORK=r"\b(error:|HTTP) (429|5\d\d)\b|\bcurl \d+|RPC failed|hung up|unexpected disconnect|early EOF|timed out|too slow"
    r"|no answer within|(could not|cannot be|was not) resolve|(failed to|couldn't) connect|connection|empty reply|transfer closed|SSL|TLS",
)
"""In what git says where no host has judged anything."""


def refused(error: GitFailed, *, secrets: tuple[str, ...] = ()) -> PushRefused:
    """What `git push --porcelain` failed with, as one type, with the remote's reason and without credentials."""
    statuses = [line.split("\t")[-1] for line in error.completed.text.splitlines() if line.startswith("!")]
    if not statuses:
        # The host had let the branches be read, with the same credentials: one that now knows no such repository hides it from them.
        kind = unreachable(error.reason)
        return PushRefused(_shown(error.reason, secrets), PushRefusal.PERMISSION if kind is PushRefusal.REPOSITORY_GONE else kind)
    said = [line.removeprefix("remote:").strip() for line in error.completed.stderr.splitlines() if line.startswith("remote:")]
    status, everything = "; ".join(statuses), "; ".join([*statuses, *filter(None, said)])
    kind = _first(_BY_STATUS, status) or _first(_BY_HOST, everything) or PushRefusal.OTHER
    return PushRefused(_shown(everything, secrets), kind)


def unreachable(reason: str) -> PushRefusal:
    """The kind of a failure of which git tells without a word about any branch."""
    return _first(_BY_TRANSPORT, reason) or PushRefusal.OTHER


def _first(rules: _Rules, text: str) -> PushRefusal | None:
    return next((kind for kind, pattern in rules if pattern.search(text)), None)


def _shown(reason: str, secrets: tuple[str, ...]) -> str:
    """A host's words are a stranger's: no orders to terminals, and no token that it sends back."""
    for secret in secrets:
        reason = reason.replace(secret, "***")
    cleaned = ESCAPE_SEQUENCE.sub("", reason)
    return "".join(character for character in cleaned if character.isprintable())[:_REASON_CHARS]
