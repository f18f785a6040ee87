"""Secrets at rest: bound to their place, readable under older keys, and under no other."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from server.config import Settings
from server.identity.vault import open_vault
from server.kernel.errors import SecretUnreadable
from server.kernel.ports.vault import Place, Vault
from server.refusal import SettingsUnfit

SECRET = b"ghp_canary"
PLACE = Place("acme", "credential", "7a1c2f7e-0000-4000-8000-000012345678", "alice", "github.com")


def key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def vault(*keys: str) -> Vault:
    return open_vault(Settings(vault_key=SecretStr(",".join(keys))))


def test_a_secret_opens_in_its_own_place_only() -> None:
    opened = vault(key())
    sealed = opened.seal(SECRET, PLACE)
    assert SECRET not in sealed
    assert opened.seal(SECRET, PLACE) != sealed
    assert opened.open(sealed, PLACE) == SECRET
    for elsewhere in (
        replace(PLACE, tenant_id="evil"),
        replace(PLACE, kind="webhook"),
        replace(PLACE, row_id="another"),
        replace(PLACE, owner_id="mallory"),
        replace(PLACE, about="github.com.evil.test"),
    ):
        with pytest.raises(SecretUnreadable):
            opened.open(sealed, elsewhere)


def test_a_changed_or_cut_secret_opens_nowhere() -> None:
    opened = vault(key())
    sealed = opened.seal(SECRET, PLACE)
    for at in range(len(sealed)):
        with pytest.raises(SecretUnreadable):
            opened.open(sealed[:at], PLACE)
        with pytest.raises(SecretUnreadable):
            opened.open(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], PLACE)


def test_older_keys_still_open_and_no_longer_seal() -> None:
    old, new = key(), key()
    sealed = vault(old).seal(SECRET, PLACE)
    rotated = vault(new, old)
    assert rotated.open(sealed, PLACE) == SECRET
    assert not rotated.current(sealed)
    again = rotated.seal(rotated.open(sealed, PLACE), PLACE)
    assert rotated.current(again)
    alone = vault(new)
    assert alone.open(again, PLACE) == SECRET
    with pytest.raises(SecretUnreadable):
        alone.open(sealed, PLACE)


def test_without_a_setting_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    sealed = open_vault(settings).seal(SECRET, PLACE)
    file = tmp_path / "data" / "vault-key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert open_vault(settings).open(sealed, PLACE) == SECRET
    # Rotation by hand: a new line before the old one.
    file.write_text(f"{key()}\n{file.read_text()}")
    assert open_vault(settings).open(sealed, PLACE) == SECRET
    assert not open_vault(settings).current(sealed)


@pytest.mark.parametrize(
    "text", ["no base64!", base64.b64encode(b"short").decode(), f"{key()},x"], ids=["no base64", "too short", "one of two"]
)
def test_a_key_that_is_none_stops_the_start_and_is_not_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsUnfit, match="TREADLE_VAULT_KEY: each key is 32 bytes") as refused:
        vault(text)
    assert text not in str(refused.value)
    (tmp_path / "vault-key").write_text(text)
    with pytest.raises(SettingsUnfit, match="vault-key: each key"):
        open_vault(Settings(data_dir=tmp_path))


def test_what_is_bound_to_neither_owner_nor_host_opens_nowhere() -> None:
    """Whoever has an old row and can write one would put it back with another host. A form of a development version, which sealed so."""
    with_key = key()
    raw = base64.b64decode(with_key)
    version = hashlib.sha256(b"treadle vault key" + raw).digest()[:8]
    bound = f"{PLACE.tenant_id}|{PLACE.kind}|{PLACE.row_id}|{version.hex()}".encode()

    def encrypted(under: bytes, plain: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + AESGCM(under).encrypt(nonce, plain, bound)

    own = os.urandom(32)
    sealed = b"\x01" + version + encrypted(raw, own) + encrypted(own, SECRET)
    opened = vault(with_key)
    for form in (b"\x01", b"\x02"):
        with pytest.raises(SecretUnreadable):
            opened.open(form + sealed[1:], PLACE)
