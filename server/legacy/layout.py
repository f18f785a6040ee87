"""Where things are in an archive. The old system had five layouts (each is described in docs/operations.md):

T0  workspace/.session-metadata.json, workspace/<repository>/…, .claude/…
T1  the same, but workspace/workspace/<repository>/…
T2  .session-metadata.json, workspace/<repository>/…
T3  workspace/<path> and nothing else: files that were put into a session that did not exist, and no whole working tree
T4  any of these, and metadata.json and .collaboration/ at the root
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from server.legacy.metadata import Metadata
from server.legacy.tar import DIRECTORY, FILE

METADATA = (b".session-metadata.json", b"workspace/.session-metadata.json")
"""Where it may be; the first that is there counts."""
_COLLABORATION = (b"metadata.json", b".collaboration/operations.log")


@dataclass(frozen=True)
class Layout:
    """Which layout, and where the working tree is from the archive's root (empty for nowhere)."""

    name: str
    repository: bytes = b""
    partial: bool = False
    """Whether it is some files of a working tree, which say nothing of the others."""


def layout_of(kinds: Mapping[bytes, str], metadata: Metadata | None, clones: Collection[bytes]) -> Layout:
    """`kinds`: path -> kind of everything outside `.git`; `clones`: what `clone_of` found."""
    at_root = kinds.get(METADATA[0]) == FILE
    repository = _repository(kinds, metadata, clones)
    partial = False
    if not repository and metadata is None and kinds.get(b"workspace") == DIRECTORY:
        repository, partial = b"workspace", True
    if any(kinds.get(path) == FILE for path in _COLLABORATION):
        return Layout("T4", repository, partial)
    if partial or (metadata is None and not repository):
        return Layout("T3", repository, partial)
    if at_root:
        return Layout("T2", repository)
    # Without a repository it may be either; nothing that is read differs.
    return Layout("T1" if repository.startswith(b"workspace/workspace/") else "T0", repository)


def clone_of(path: tuple[bytes, ...]) -> bytes:
    """The directory that a `.git` makes a repository, for something in the `.git` of one at a layout's place; else empty."""
    above = path[: path.index(b".git")] if b".git" in path else ()
    at_its_place = len(above) == 2 or (len(above) == 3 and above[1] == b"workspace")
    return b"/".join(above) if at_its_place and above[0] == b"workspace" else b""


def _repository(kinds: Mapping[bytes, str], metadata: Metadata | None, clones: Collection[bytes]) -> bytes:
    """By the path that the metadata name, of which it is not known from where it counts, else by the repository's name, else the only
    one that has a `.git`."""
    for name in filter(None, [metadata.cloned_path, metadata.repository_name] if metadata else []):
        path = name.encode("utf-8", "replace").removesuffix(b"/")
        for candidate in (b"workspace/workspace/" + path, b"workspace/" + path, path):
            if kinds.get(candidate) == DIRECTORY:
                return candidate
    return next((path for path in clones if len(clones) == 1 and kinds.get(path) == DIRECTORY), b"")


def conversation_in(files: Mapping[bytes, float], metadata: Metadata | None) -> bytes:
    """The newest conversation with Claude. `files`: path -> time of all that is below `.claude/projects`. Where the metadata name one it is
    that or none, else it is the youngest file; those of sub-agents are conversations of their own."""
    found = {path: time for path, time in files.items() if _is_conversation(path)}
    if metadata and metadata.conversation_id:
        name = metadata.conversation_id.encode("utf-8", "replace") + b".jsonl"
        found = {path: time for path, time in found.items() if path.endswith(b"/" + name)}
    return max(found, key=lambda path: (found[path], path), default=b"")


def _is_conversation(path: bytes) -> bool:
    parts = path.split(b"/")
    return len(parts) == 4 and parts[3].endswith(b".jsonl") and not parts[3].startswith(b"agent-")
