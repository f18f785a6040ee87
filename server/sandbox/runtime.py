"""This Python interpreter, and chosen packages, as mounts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from server.sandbox.mount import Mount, same_place


def python_mounts(*packages: str) -> list[Mount]:
    """Everything that `sys.executable` needs to run inside, with its installed packages, and the named packages.

    Naming is needed for packages that live outside the environment (an editable install): only they become visible, not the
    repository around them. Errors: ModuleNotFoundError.
    """
    roots = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_prefix).resolve(), *_interpreter_homes()]
    for package in packages:
        roots += _package_roots(package)
    return [same_place(root) for root in dict.fromkeys(roots) if not root.is_relative_to("/usr")]


def _interpreter_homes() -> list[Path]:
    """The installation behind each symlink from `sys.executable` to the real program."""
    homes, path = [], Path(sys.executable)
    while path.is_symlink():
        path = path.parent / path.readlink()
        homes.append(path.parent.parent)
    return [home for home in homes if home != Path("/")]


def _package_roots(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"no package {package!r}", name=package)
    places = spec.submodule_search_locations or [spec.origin or ""]
    return [Path(place) for place in places if place and Path(place).exists()]
