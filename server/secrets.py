"""The secrets that this process knows, so that they can be kept out of events and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from server.config import Settings

_learned: dict[str, None] = {}
_SECRET_SUFFIXES = ("_API_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_SECRET_KEY")


def remember(*secrets: str) -> None:
    """Secrets that came to this process while it runs: everybody who asks from now on is told of them too. They are never forgotten."""
    _learned.update(dict.fromkeys(secrets))


def known_secrets(settings: Settings, environment: Mapping[str, str]) -> Callable[[], Sequence[str]]:
    """Secrets of the settings (of a URL: its password), of the environment by the usual names, the local API key, and whatever
    was remembered. Not the tokens of users: they go to git and to code hosts only, whose words are cleaned of the very token that was
    used; a token that one user chose must not be masked in what others write."""
    fixed = [value for name, value in environment.items() if name.upper().endswith(_SECRET_SUFFIXES) and value]
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and value.get_secret_value():
            fixed.append(_secret_part(value.get_secret_value()))
    key_file = settings.data_dir / "api-key"
    found: list[str] = []

    def secrets() -> Sequence[str]:
        # The file appears with the first start; it never changes after.
        if not found and key_file.exists():
            found.append(key_file.read_text().strip())
        return [*fixed, *found, *_learned]

    return secrets


def _secret_part(value: str) -> str:
    if "://" not in value:
        return value
    password = urlsplit(value).password
    return unquote(password) if password else ""
