"""What Envoy reads, and who it runs as: as root, somebody who owns nothing."""

from __future__ import annotations

import os
import shutil
import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path

from gateway.config import Gateway, render, render_secret
from server.embedded.postgres_process import open_private
from server.embedded.postgres_runtime import ACCOUNTS, choose_account
from server.refusal import SettingsUnfit
from server.setting_forms import unreadable

ADMIN = Path("run/admin.sock")
EGRESS = Path("run/egress.sock")
CONFIGURATION = Path("envoy.yaml")
_DESCRIPTORS = Path("descriptors.binpb")
_TLS, _SECRET, _CERTIFICATE, _KEY = Path("tls"), Path("secret.yaml"), Path("certificate.pem"), Path("key.pem")
_CURRENT = "current"
LOG_LIMIT = 16 << 20


class GatewayHome:
    """The directory that Envoy works in:

    - envoy.yaml, descriptors.binpb: ours to write, Envoy's account's to read, nobody else's
    - tls/  secret.yaml, certificate.pem and key.pem, the same; the two are links by way of `current`, so that both change in one moment
    - run/  Envoy's own; holds the sockets of its control and of the way out of workers
    - envoy.log, envoy.log.1  what it says, and each call that failed, for us
    - address  where it listens

    All that Envoy needs is here; it needs no right to where it is installed, or to where a certificate is kept. Its account is not that of
    Postgres, if there are two: that one owns the database.
    """

    def __init__(self, root: Path) -> None:
        """Errors: PostgresUnusable as for `choose_account`."""
        self.root = root
        self.account = choose_account(tuple(reversed(ACCOUNTS)))
        # Of tls/: threads of the upkeep and of whoever starts Envoy write there, and one whose task was cancelled goes on.
        self._tls = threading.Lock()
        self._over = False

    @property
    def log(self) -> Path:
        """What Envoy says."""
        return self.root / "envoy.log"

    @property
    def address(self) -> Path:
        """Holds `host:port`."""
        return self.root / "address"

    def prepare(self) -> None:
        """Directories, and no log. Errors: SettingsUnfit when the account cannot come here."""
        self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.root.chmod(0o711 if self.account.uid is not None else 0o700)
        if not self.account.can_enter(self.root):
            raise SettingsUnfit(
                f"the gateway runs as an unprivileged user (Treadle runs as root) and cannot enter {self.root}; "
                "choose a data directory whose parents may be passed by all, such as /var/lib/treadle"
            )
        run = self.root / ADMIN.parent
        run.mkdir(mode=0o700, exist_ok=True)
        self.account.give(run)
        self.log.unlink(missing_ok=True)

    def furnish(self, gateway: Gateway) -> None:
        """Everything that Envoy reads, anew. Errors: SettingsUnfit."""
        if gateway.tls_certificate is not None:
            self.certify(gateway)
            gateway = replace(gateway, tls_certificate=_TLS / _CERTIFICATE, tls_key=_TLS / _KEY, tls_secret=_TLS / _SECRET)
            self._write(_TLS / _SECRET, render_secret(gateway).encode())
        self._write(_DESCRIPTORS, gateway.descriptors.read_bytes())
        egress = EGRESS if isinstance(gateway.egress, Path) else gateway.egress
        self._write(CONFIGURATION, render(replace(gateway, admin=ADMIN, egress=egress, descriptors=_DESCRIPTORS)).encode())

    def certify(self, gateway: Gateway) -> None:
        """Certificate and key as they are now; an Envoy that runs takes them up. After `clean` it does nothing.
        Errors: SettingsUnfit, and then nothing has changed."""
        with self._tls:
            if not self._over:
                self._copy_pair(gateway)

    def _copy_pair(self, gateway: Gateway) -> None:
        assert gateway.tls_certificate is not None and gateway.tls_key is not None  # noqa: S101 - settings have both or none
        place = _TLS / str(time.time_ns())
        for directory in (self.root / _TLS, self.root / place):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)
        try:
            for source, name in ((gateway.tls_certificate, _CERTIFICATE), (gateway.tls_key, _KEY)):
                self._write(place / name, _read(source))
            self._check_pair(place, gateway)
        except SettingsUnfit:
            shutil.rmtree(self.root / place)
            raise
        for name in (_CERTIFICATE, _KEY):
            self._link(_TLS / name, f"{_CURRENT}/{name}")
        self._link(_TLS / _CURRENT, place.name)
        for old in (self.root / _TLS).iterdir():
            if old.is_dir() and not old.is_symlink() and old.name != place.name:
                shutil.rmtree(old)

    def _check_pair(self, place: Path, gateway: Gateway) -> None:
        """Envoy would not start, or go on with what it had, and say so in its log only."""
        try:
            # A key with a password would ask for it on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.root / place / _CERTIFICATE, self.root / place / _KEY, password="")
        except (ssl.SSLError, ValueError) as error:
            raise SettingsUnfit(f"{gateway.tls_certificate} and {gateway.tls_key} are not a certificate and its key: {error}") from None

    def _link(self, name: Path, target: str) -> None:
        new = self.root / _TLS / "new"
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.rename(self.root / name)

    def trim(self) -> None:
        """Keep the log from growing without end, and of what it held the last 16 MiB: strangers fill it too. Errors: OSError."""
        size = self.log.stat().st_size if self.log.exists() else 0
        if size > LOG_LIMIT:
            with self.log.open("rb") as log, open_private(self.root / "envoy.log.1") as before:
                before.truncate(0)
                log.seek(size - LOG_LIMIT)
                # Not what is written meanwhile, which may not end.
                before.write(log.read(LOG_LIMIT))
            os.truncate(self.log, 0)

    def _write(self, name: Path, content: bytes) -> None:
        path = self.root / name
        path.unlink(missing_ok=True)
        with open_private(path) as file:
            file.write(content)
        self.account.give(path)

    def clean(self) -> None:
        """When Envoy is gone. The configuration stays, for people; the key does not."""
        for name in (self.address, self.root / ADMIN, self.root / EGRESS):
            name.unlink(missing_ok=True)
        with self._tls:
            self._over = True
            shutil.rmtree(self.root / _TLS, ignore_errors=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsUnfit(unreadable(path, error)) from None
