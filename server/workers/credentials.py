"""What server and carrier of one turn know each other by: two certificates that are made for it and signed by nobody else."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID = timedelta(days=30)
_SKEW = timedelta(days=1)
"""Clocks of other machines may be wrong; what counts is that the certificate is exactly this one."""


@dataclass(frozen=True)
class Credentials:
    """Certificates and keys as PEM."""

    server: str
    server_key: str
    carrier: str
    carrier_key: str

    def kept(self) -> str:
        """As a slot keeps them."""
        return json.dumps(asdict(self))

    def told(self, *, port: int, orphan_seconds: float) -> bytes:
        """What the carrier gets (carrier/__main__.py)."""
        words = {"port": port, "certificate": self.carrier, "key": self.carrier_key, "server": self.server}
        return json.dumps(words | {"orphan_seconds": orphan_seconds}).encode()


def new_credentials() -> Credentials:
    """For one worker."""
    return Credentials(*_pair("server"), *_pair("carrier"))


def kept_credentials(kept: str) -> Credentials:
    """Those of a slot."""
    return Credentials(**json.loads(kept))


def _pair(whose: str) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"treadle-{whose}-{secrets.token_hex(8)}")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode()
