"""The one user of an embedded server, with a generated key in a file that only it can read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

from server.identity.keys import ApiKey, create_key
from server.kernel.identity import Principal
from server.kernel.ports.key_store import KeyStore

TENANT = USER = "local"
_GIT_SECONDS = 5.0


async def ensure_local_user(keys: KeyStore, data_dir: Path) -> Path:
    """Make the user and its key when they are missing; the file `<data_dir>/api-key`. Errors: StoreUnavailable, OSError."""
    path = data_dir / "api-key"
    if path.exists() and await _works(keys, path.read_text().strip()):
        return path
    user = Principal(
        TENANT, USER, await _git_config("user.name") or "Local User", await _git_config("user.email") or "local@treadle.invalid"
    )
    await keys.ensure_user(user)
    _write_private(path, await create_key(keys, user) + "\n")
    return path


async def _works(keys: KeyStore, text: str) -> bool:
    """A key of another database does not, and one that ends will not."""
    key = ApiKey.parse(text)
    record = await keys.find(key.prefix) if key is not None else None
    return key is not None and record is not None and key.matches(record.secret_sha256) and record.expires_at is None


async def _git_config(name: str) -> str:
    """The user's own setting, not that of whatever repository we were started in; empty when there is none."""
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            "config",
            "--global",
            "--get",
            name,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return ""
    try:
        async with asyncio.timeout(_GIT_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return output.decode(errors="replace").strip()


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, and readable by its owner only from the first moment."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    Path(name).replace(path)
