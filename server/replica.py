"""The replica's identity: it lives in the data directory, under an exclusive lock, so that a restart takes its own leases back."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.kernel.ids import new_id
from server.refusal import StartRefused


class DataDirectoryTaken(StartRefused):
    """Another server runs on the same data directory."""


class DataDirectoryUnusable(StartRefused):
    """The data directory cannot be made or written."""

    def __init__(self, data_dir: Path, error: OSError) -> None:
        file = next((step for step in (data_dir, *data_dir.parents) if step.exists() and not step.is_dir()), None)
        what = f"{file} is not a directory" if file else f"{data_dir} cannot be used: {(error.strerror or str(error)).lower()}"
        super().__init__(f"{what}; choose another with --data-dir or TREADLE_DATA_DIR")


@contextmanager
def held_replica(data_dir: Path) -> Iterator[str]:
    """The replica's id, held until the context ends. Errors: DataDirectoryTaken, DataDirectoryUnusable."""
    try:
        # As root the database runs as another user, who must pass through; nobody needs to see what there is.
        data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "replica", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirectoryUnusable(data_dir, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirectoryTaken(f"another server runs on {data_dir}; stop it, or set TREADLE_DATA_DIR") from None
        replica = os.read(descriptor, 64).decode().strip()
        if not replica:
            replica = new_id()
            os.write(descriptor, replica.encode())
            os.fsync(descriptor)
        yield replica
    finally:
        os.close(descriptor)
