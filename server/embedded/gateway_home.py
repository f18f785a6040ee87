"""What Envoy reads, and who it runs as: as root, somebody who owns nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from gateway.config import Gateway, render
from server.embedded.postgres_process import open_private
from server.embedded.postgres_runtime import ACCOUNTS, choose_account
from server.embedded.settings import SettingsUnfit

ADMIN = Path("run/admin.sock")
CONFIGURATION = Path("envoy.yaml")
_DESCRIPTORS, _CERTIFICATE, _KEY = Path("descriptors.binpb"), Path("certificate.pem"), Path("key.pem")


class GatewayHome:
    """The directory that Envoy works in:

    - envoy.yaml, descriptors.binpb, certificate.pem, key.pem: ours to write, Envoy's account's to read, nobody else's
    - run/  Envoy's own; holds the socket of its control
    - envoy.log  what it says, for us
    - address  where it listens

    All that Envoy needs is here; it needs no right to where it is installed, or to where a certificate is kept. Its account is not that of
    Postgres, if there are two: that one owns the database.
    """

    def __init__(self, root: Path) -> None:
        """Errors: PostgresUnusable as for `choose_account`."""
        self.root = root
        self.account = choose_account(tuple(reversed(ACCOUNTS)))

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
        """Everything that Envoy reads, anew: a certificate may have been renewed. Errors: SettingsUnfit."""
        if gateway.tls_certificate is not None and gateway.tls_key is not None:
            for source, name in ((gateway.tls_certificate, _CERTIFICATE), (gateway.tls_key, _KEY)):
                self._write(name, _read(source))
            gateway = replace(gateway, tls_certificate=_CERTIFICATE, tls_key=_KEY)
        self._write(_DESCRIPTORS, gateway.descriptors.read_bytes())
        self._write(CONFIGURATION, render(replace(gateway, admin=ADMIN, descriptors=_DESCRIPTORS)).encode())

    def _write(self, name: Path, content: bytes) -> None:
        path = self.root / name
        path.unlink(missing_ok=True)
        with open_private(path) as file:
            file.write(content)
        self.account.give(path)

    def clean(self) -> None:
        """When Envoy is gone. The configuration stays, for people; the key does not."""
        for name in (self.address, self.root / ADMIN, self.root / _KEY):
            name.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsUnfit(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
