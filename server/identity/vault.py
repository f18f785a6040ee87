"""The vault: AES-256-GCM envelopes.

A secret is encrypted under a key of its own, and that key under the server's. Both are bound to tenant, kind, row, owner, what it is for
and the key's version, so no row can be read in the place of another, nor its token be led to another host. A sealed secret is: 1 byte form,
8 bytes version of the server's key, then the wrapped key (12 bytes nonce, 32 key, 16 tag), then the secret (12 bytes nonce, the bytes, 16
tag). The version of a key is made of the key itself, so whoever has the right key has the right version.

Where the key comes from: TREADLE_VAULT_KEY, else the file `vault-key` in the data directory, which is made when it is missing. Either may
hold several keys: the first one seals, all open. A server seals everything anew under its first key when it starts, so a new key comes
second, on all servers, before it comes first on any.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.config import Settings
from server.kernel.errors import SecretUnreadable
from server.kernel.ports.vault import Place, Vault
from server.refusal import SettingsUnfit
from server.secrets import remember
from server.setting_forms import parts

_FORM = b"\x02"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION_BYTES = 8
_HEAD_BYTES = len(_FORM) + _VERSION_BYTES
_WRAPPED_BYTES = _NONCE_BYTES + _KEY_BYTES + 16


class AesVault:
    """Implements the port `Vault`."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """The first key seals, all open."""
        self._keys = {_version(key): key for key in keys}
        self._current = _version(keys[0])

    def seal(self, secret: bytes, place: Place) -> bytes:
        """See Vault."""
        bound = _bound(place, self._current)
        key = AESGCM.generate_key(8 * _KEY_BYTES)
        return _FORM + self._current + _encrypted(self._keys[self._current], key, bound) + _encrypted(key, secret, bound)

    def open(self, sealed: bytes, place: Place) -> bytes:
        """See Vault."""
        form, version = sealed[: len(_FORM)], sealed[len(_FORM) : _HEAD_BYTES]
        if form != _FORM or version not in self._keys:
            raise SecretUnreadable
        bound, wrapped_end = _bound(place, version), _HEAD_BYTES + _WRAPPED_BYTES
        try:
            key = _decrypted(self._keys[version], sealed[_HEAD_BYTES:wrapped_end], bound)
            return _decrypted(key, sealed[wrapped_end:], bound)
        except (InvalidTag, ValueError):  # ValueError: it was cut
            raise SecretUnreadable from None

    def current(self, sealed: bytes) -> bool:
        """See Vault."""
        return sealed.startswith(_FORM + self._current)


def open_vault(settings: Settings) -> Vault:
    """With the keys that the settings give, or those of this data directory. Errors: SettingsUnfit."""
    if given := settings.vault_key.get_secret_value():
        texts, source = parts(given), "TREADLE_VAULT_KEY"
    else:
        path = settings.data_dir / "vault-key"
        texts, source = _kept(path), str(path)
    try:
        keys = [_parsed(text) for text in texts]
    except ValueError:
        keys = []
    if not keys:
        raise SettingsUnfit(f"{source}: each key is 32 bytes in base64, as `openssl rand -base64 32` makes them")
    remember(*texts)
    return AesVault(keys)


def _kept(path: Path) -> tuple[str, ...]:
    """The keys of a file, which is made with a new one when it is missing: whole or not at all, and readable by its owner only."""
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                # Never over one that another process made meanwhile.
                with suppress(FileExistsError):
                    path.hardlink_to(draft)
            finally:
                draft.unlink()
        return tuple(path.read_text(encoding="ascii").split())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsUnfit(f"{path} cannot be used: {error}") from error


def _parsed(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if len(key) != _KEY_BYTES:
        raise ValueError
    return key


def _version(key: bytes) -> bytes:
    return hashlib.sha256(b"treadle vault key" + key).digest()[:_VERSION_BYTES]


def _bound(place: Place, version: bytes) -> bytes:
    return json.dumps([place.tenant_id, place.kind, place.row_id, place.owner_id, place.about, version.hex()]).encode()


def _encrypted(key: bytes, plain: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def _decrypted(key: bytes, data: bytes, bound: bytes) -> bytes:
    return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound)
