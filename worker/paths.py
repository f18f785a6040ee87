"""Paths that an agent names."""

from __future__ import annotations

from pathlib import Path

from worker.provider import ProviderFailed


class OutsideWorkspace(ProviderFailed):
    """The path leads out of the workspace."""


def within(workspace: Path, name: str) -> Path:
    """The path, if it stays in the workspace also through symbolic links. Errors: OutsideWorkspace."""
    path = (workspace / name).resolve()
    if not path.is_relative_to(workspace.resolve()):
        raise OutsideWorkspace(f"the path {name!r} is outside of the workspace")
    return path


def shown(workspace: Path, name: str) -> str:
    """The path as it is told: relative to the workspace where it is inside, else as it was named."""
    path = Path(name)
    for root in (workspace, workspace.resolve()):
        if path.is_absolute() and path.is_relative_to(root):
            return str(path.relative_to(root))
    return name
