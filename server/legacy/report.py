"""What became of each archive."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType


class Status(StrEnum):
    """How an archive ended."""

    IMPORTED = "IMPORTED"
    UNCHANGED = "UNCHANGED"
    SKIPPED = "SKIPPED"
    REFUSED = "REFUSED"


@dataclass(frozen=True)
class Outcome:
    """One archive. `reason` is a word for programs: of SKIPPED one of Reason (survey.py), of REFUSED one of the reader's (tar.py)."""

    key: str
    status: Status
    reason: str = ""
    detail: str = ""
    layout: str = ""
    session_id: str = ""
    owner: str = ""
    repository: str = ""
    branch: str = ""
    commit: str = ""
    conversation: bool = False
    """Whether the agent's next turn goes on with the old conversation."""
    skipped_paths: int = 0
    """How many paths of the tree could not be imported."""
    deleted_paths: int = 0
    """How many paths the commit takes away from what the remote's branch has; of a dry run it is not known."""
    size: int = 0
    sha256: str = ""


class Report:
    """Counts, and writes a line of JSON for each archive as soon as it is done."""

    def __init__(self, path: Path | None, *, dry_run: bool) -> None:
        self.counts: Counter[tuple[Status, str]] = Counter()
        self._file = path.open("w", encoding="utf-8") if path else None
        self._dry_run = dry_run

    def __enter__(self) -> Report:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    @property
    def imported(self) -> int:
        """How many were imported."""
        return self.counts[Status.IMPORTED, ""]

    @property
    def went_well(self) -> bool:
        """No archive was refused, and not all that there are were passed over."""
        ended = {status for status, _ in self.counts}
        return Status.REFUSED not in ended and ended != {Status.SKIPPED}

    def add(self, outcome: Outcome) -> None:
        """One archive is done."""
        self.counts[outcome.status, outcome.reason] += 1
        if self._file:
            self._file.write(json.dumps({**asdict(outcome), "dry_run": self._dry_run}) + "\n")
            self._file.flush()
