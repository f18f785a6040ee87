"""What the trusted half and the reader say to each other.

Request (the reader's arguments): one JSON object (`Request`); the archive is its standard input. Answer (its standard output): one JSON
object, either `{"refused": REASON, "detail": ...}` or what `Found` holds. Paths are bytes: in JSON those that are no UTF-8 are surrogates.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Limits:
    """How much of an archive is read. Sizes in bytes."""

    archive_bytes: int = 4 * 1024 * 1024 * 1024
    unpacked_bytes: int = 8 * 1024 * 1024 * 1024
    ratio: int = 200
    """So many bytes at most come out of one, after the first `ratio_from` that came out."""
    ratio_from: int = 10 * 1024 * 1024
    members: int = 500_000
    depth: int = 132
    path_bytes: int = 3000
    names_bytes: int = 64 * 1024 * 1024
    """Of all paths and targets of links together."""
    header_bytes: int = 64 * 1024
    """Of one extended header."""
    metadata_bytes: int = 64 * 1024
    transcript_bytes: int = 32 * 1024 * 1024
    cpu_seconds: int = 600


@dataclass(frozen=True)
class Request:
    """What the reader shall do. Without `into` it looks, and writes nothing."""

    limits: Limits = field(default_factory=Limits)
    into: str = ""
    """An empty directory: gets `tree`, with what is below `repository`, and `transcript`, with that file, when it is not empty."""
    repository: str = ""
    transcript: str = ""

    def dump(self) -> str:
        """As an argument."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, argument: str) -> Request:
        """From an argument."""
        said = json.loads(argument)
        return cls(**{**said, "limits": Limits(**said["limits"])})


@dataclass(frozen=True)
class Found:
    """What an archive holds. Hostile: a reader that was taken over says what it likes, so everything is checked again where it is used."""

    layout: str
    """T0 to T4 (layout.py)."""
    repository: str
    """Where the working tree is, from the archive's root; empty for none."""
    partial: bool
    """Whether it is some files of a working tree, to be laid over the others."""
    metadata: str
    """`.session-metadata.json` as it is; empty for none."""
    transcript: str
    """Where the newest conversation with Claude is; empty for none."""
    members: int
    unpacked_bytes: int

    def dump(self) -> str:
        """As the reader's answer."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, said: dict[str, Any]) -> Found:
        """From the reader's answer. Errors: ValueError."""
        fields = cls.__dataclass_fields__
        if set(said) != set(fields) or any(type(value).__name__ != fields[name].type for name, value in said.items()):
            raise ValueError("the reader's answer is malformed")
        return cls(**said)
