"""The directories of an embedded Postgres, and who may connect to it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from server.db.roles import APP, SYSTEM
from server.embedded.postgres_process import open_private
from server.embedded.postgres_runtime import Account, PostgresUnusable

OWNER = "treadle_owner"
DATABASE = "treadle"
_SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_LIMIT = 107 - len(f"/{_SOCKET}")
_LOG_LIMIT = 8 << 20


@dataclass(frozen=True)
class DatabaseUrls:
    """The three `TREADLE_DATABASE_*` URLs. They hold no secret."""

    app: str
    system: str
    owner: str


def running_database(data_dir: Path) -> DatabaseUrls | None:
    """Of the `treadle up` that serves there; None when its Postgres does not run."""
    home = PostgresHome((data_dir / "postgres").resolve(), Account(None, None))
    return home.urls if (home.socket / _SOCKET).is_socket() else None


@dataclass(frozen=True)
class PostgresHome:
    """What lies under `<data_dir>/postgres`:

    - cluster/  the database, owned by the account, 0700
    - socket/   its unix socket, owned by the account, 0700; under /tmp when the path would be too long for a socket
    - config/   who may connect; written anew with each start
    - log       what Postgres says
    - lock      held while a Treadle uses it
    """

    root: Path
    account: Account

    @classmethod
    def prepare(cls, data_dir: Path, account: Account) -> PostgresHome:
        """Make the directories. Errors: PostgresUnusable when the account cannot reach them."""
        home = cls((data_dir / "postgres").resolve(), account)
        for directory in (data_dir, home.root, home.config):
            # Search permission is all that the account needs, and only when it is somebody else.
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if account.uid is not None:
                directory.chmod(directory.stat().st_mode & 0o777 | 0o011)
        if not account.can_enter(home.root):
            raise PostgresUnusable(
                f"Postgres runs as an unprivileged user (Treadle runs as root) and cannot enter {home.root}; "
                "choose a data directory whose parents may be passed by all, such as /var/lib/treadle"
            )
        home._prepare_socket_directory()
        return home

    @property
    def cluster(self) -> Path:
        """PGDATA."""
        return self.root / "cluster"

    @property
    def config(self) -> Path:
        """Holds pg_hba.conf and pg_ident.conf."""
        return self.root / "config"

    @property
    def log(self) -> Path:
        """Postgres' messages."""
        return self.root / "log"

    @property
    def socket(self) -> Path:
        """The directory of the unix socket; the same for every start, so that a running Postgres is found again."""
        if len(os.fsencode(self.root / "socket")) <= _SOCKET_PATH_LIMIT:
            return self.root / "socket"
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"treadle-{os.geteuid()}-{name}"

    @property
    def urls(self) -> DatabaseUrls:
        """How to connect."""
        return DatabaseUrls(app=self.url(APP), system=self.url(SYSTEM), owner=self.url(OWNER))

    def url(self, role: str, database: str = DATABASE) -> str:
        """How to connect as `role`."""
        return f"postgresql://{role}@/{database}?host={quote(str(self.socket), safe='')}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Errors: PostgresUnusable when another Treadle uses the directory. The lock ends with the process, however it ends."""
        with open_private(self.root / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PostgresUnusable(f"another Treadle is running on {self.root.parent}") from None
            yield

    def write_access_rules(self) -> None:
        """Only our own user may connect, over the socket, as one of the three roles."""
        user = pwd.getpwuid(os.geteuid()).pw_name
        rules = {
            "pg_hba.conf": "local all all peer map=treadle\n",
            "pg_ident.conf": "".join(f'treadle "{user}" {role}\n' for role in (OWNER, APP, SYSTEM)),
        }
        for name, text in rules.items():
            (self.config / name).write_text(text)
            (self.config / name).chmod(0o644 if self.account.uid is not None else 0o600)

    def rotate_log(self) -> None:
        """Keep one old log of `_LOG_LIMIT`."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.rename(self.log.with_name("log.1"))

    def owned_directory(self, path: Path) -> Path:
        """Make an empty directory that only the account may use."""
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        self.account.give(path)
        return path

    def _prepare_socket_directory(self) -> None:
        """Under /tmp somebody else may have made it first: it is used only if it is the account's own and closed to others."""
        owner = os.geteuid() if self.account.uid is None else self.account.uid
        try:
            self.socket.mkdir(mode=0o700)
        except FileExistsError:
            found = self.socket.lstat()
            if found.st_uid != owner or found.st_mode & 0o170777 != 0o040700:
                raise PostgresUnusable(f"{self.socket} is not a directory of Postgres' own; remove it") from None
        else:
            self.account.give(self.socket)
