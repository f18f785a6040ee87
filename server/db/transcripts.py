"""Transcripts as they are kept: compressed, and never larger than they say, before or after."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from server.kernel.ports.launcher import MAX_TRANSCRIPT_BYTES

_LEVEL = 3
"""JSON lines: a fifth of the size at 100 MB/s; level 9 saves another tenth and takes four times as long."""


@dataclass(frozen=True)
class Packed:
    """What the columns hold."""

    data: bytes
    size: int


def pack(transcript: bytes) -> Packed:
    """Takes some 10 ms per MiB: for a thread, in which it does not hold the interpreter."""
    return Packed(zlib.compress(transcript, _LEVEL), len(transcript))


def unpack(packed: Packed) -> bytes:
    """The transcript. Errors: ValueError when the row is damaged."""
    unpacking = zlib.decompressobj()
    try:
        transcript = unpacking.decompress(packed.data, MAX_TRANSCRIPT_BYTES)
    except zlib.error as error:
        raise ValueError(f"the transcript is damaged: {error}") from error
    if len(transcript) != packed.size or not unpacking.eof:
        raise ValueError(f"the transcript is damaged: {len(transcript):,} of {packed.size:,} bytes")
    return transcript
