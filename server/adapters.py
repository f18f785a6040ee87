"""What is installed, by the names of entry points: launchers, object stores, agents. Nothing of them is imported.

An entry point may name the extra that its packages are in; the installation's own metadata says what that extra is made of.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version

_REQUIREMENT = re.compile(r"""^([A-Za-z0-9._-]+)[^;]*;.*\bextra\s*==\s*['"]([A-Za-z0-9._-]+)['"]""")


@cache
def installed(port: str) -> tuple[str, ...]:
    """The names in the group `treadle.<port>` whose packages are there, sorted."""
    return tuple(sorted(entry.name for entry in entry_points(group=f"treadle.{port}") if not _missing(entry)))


@cache
def not_installed(port: str) -> dict[str, str]:
    """Those that are known but whose packages are not there: name and extra."""
    return {entry.name: ",".join(entry.extras) for entry in entry_points(group=f"treadle.{port}") if _missing(entry)}


def _missing(entry: EntryPoint) -> list[str]:
    """The packages that the entry point's extras ask for and that are not installed."""
    if entry.dist is None:
        return []
    return [name for extra in entry.extras for name in _packages(entry.dist, extra) if not _is_installed(name)]


def _packages(dist: Distribution, extra: str) -> list[str]:
    found = [_REQUIREMENT.match(requirement) for requirement in dist.requires or ()]
    return [match[1] for match in found if match and match[2] == extra]


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
