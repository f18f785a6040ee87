"""What a sandboxed program may see of this machine's files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Mount:
    """One file or directory of this machine, seen at `target` (absolute) inside; read-only unless `writable`."""

    source: Path
    target: PurePosixPath
    writable: bool = False


def same_place(path: Path) -> Mount:
    """A read-only mount of `path` at its own path."""
    return Mount(path, PurePosixPath(path))


def without_covered(mounts: Iterable[Mount]) -> list[Mount]:
    """The mounts, outermost first, without those that another one shows at the same place anyway."""
    kept: list[Mount] = []
    for mount in sorted(set(mounts), key=lambda m: (len(m.target.parts), str(m.target))):
        if not any(_covers(outer, mount) for outer in kept):
            kept.append(mount)
    return kept


def missing_parents(mounts: Iterable[Mount]) -> list[PurePosixPath]:
    """Directories above the targets that no mount provides, outermost first."""
    targets = {mount.target for mount in mounts}
    parents = {parent for target in targets for parent in target.parents if parent != PurePosixPath("/")}
    inside = {parent for parent in parents if any(target == parent or target in parent.parents for target in targets)}
    return sorted(parents - inside, key=lambda path: (len(path.parts), str(path)))


def _covers(outer: Mount, inner: Mount) -> bool:
    if outer.writable != inner.writable or not inner.target.is_relative_to(outer.target):
        return False
    return Path(outer.source / inner.target.relative_to(outer.target)) == inner.source
