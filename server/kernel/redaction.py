"""Known secrets never reach an event or a log.

A secret is masked with as many `*` as it has bytes: the length of every field stays, so a serialised body stays well-formed without
being parsed. A secret that is split over several deltas of one text is found too: what the text ended with is remembered.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote

from server.kernel.event import Fact, TextId, WorkerBatch

MIN_SECRET_BYTES = 8
"""Shorter values are no secrets: masking them would mask words."""

MAX_STREAMS = 256

_LOOK_BYTES = 1024 * 1024


def forms_of(secret: str) -> set[bytes]:
    """The ways in which a secret is commonly written: as it is, URL-encoded, base64 (all three alignments), JSON-escaped."""
    raw = secret.encode()
    forms = {raw, quote(secret).encode(), quote(secret, safe="").encode(), secret.replace("\\", "\\\\").replace('"', '\\"').encode()}
    for shift in range(3):
        # Only the characters that do not depend on what stands before and after.
        encoded = base64.b64encode(b"\0" * shift + raw)
        inner = encoded[(0, 2, 3)[shift] : len(encoded) - (0, 3, 2)[(shift + len(raw)) % 3]]
        forms |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return {form for form in forms if len(form) >= MIN_SECRET_BYTES}


class Redactor:
    """Masks the known secrets of one turn. Holds the ends of the turn's texts, so one object per turn."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._tails: dict[TextId, bytes] = {}
        self._secrets: frozenset[str] = frozenset()
        self._know(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Mask these too from now on: a credential that was renewed."""
        if not self._secrets.issuperset(fresh := frozenset(secrets)):
            self._know(self._secrets | fresh)

    def _know(self, secrets: Iterable[str]) -> None:
        self._secrets = frozenset(secrets)
        forms = {form for secret in self._secrets if len(secret.encode()) >= MIN_SECRET_BYTES for form in forms_of(secret)}
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, ordered)) or b"(?!)")
        self._forms = ordered
        # Every secret, whole or begun, shows its head: where no head is, nothing is to be masked. This is asked for every text.
        self._heads = [form[: _head(form)] for form in ordered]
        self._keep = max(map(len, ordered), default=1) - 1

    def fact(self, fact: Fact) -> Fact:
        """The fact without secrets."""
        return replace(fact, body=self._mask(fact.body)) if self._forms else fact

    def batch(self, batch: WorkerBatch) -> WorkerBatch:
        """The batch without secrets, also those that began in an earlier delta of the same text."""
        if not self._forms:
            return batch
        bodies = [*batch.bodies]
        for text_id, deltas in batch.deltas.items():
            # One look at all that the batch adds to a text, for the same reason.
            text = self._tails.get(text_id, b"") + b"".join([data for _, data in deltas])
            if not self._shows_head(text):
                self._remember(text_id, text)
                continue
            for index, data in deltas:
                masked = self._continue(text_id, data)
                if masked != data:
                    bodies[index] = _swap(bodies[index], data, masked)
        # One fast look at all bodies: there is hardly ever anything to find.
        everything = b"\n".join(bodies)
        if any(form in everything for form in self._forms):
            bodies = [self._mask(body) for body in bodies]
        return replace(batch, bodies=bodies)

    def document(self, data: bytes) -> bytes:
        """The same for many bytes at once, of any format. Meant for a thread: the interpreter is never held for long."""
        masked = bytearray(data)
        for form in self._forms:
            for start in range(0, len(masked), _LOOK_BYTES):
                end = start + _LOOK_BYTES + len(form) - 1
                at = masked.find(form, start, end)
                while at >= 0:
                    masked[at : at + len(form)] = b"*" * len(form)
                    at = masked.find(form, at + len(form), end)
        return bytes(masked)

    def text(self, text: str) -> str:
        """The text without secrets, for logs."""
        return self._mask(text.encode()).decode(errors="replace") if self._forms else text

    def _mask(self, data: bytes) -> bytes:
        return self._pattern.sub(lambda match: b"*" * len(match[0]), data)

    def _continue(self, text_id: TextId, data: bytes) -> bytes:
        """What may be shown of a delta: secrets that end in it, and the beginning of one that it ends with, are masked."""
        tail = self._tails.get(text_id, b"")
        text = tail + data
        shown = bytearray(text)
        if self._shows_head(text):
            shown[:] = self._mask(text)
            begun = self._begun(text)
            shown[len(shown) - begun :] = b"*" * begun
        self._remember(text_id, text)
        return bytes(shown[len(tail) :])

    def _shows_head(self, text: bytes) -> bool:
        return any(head in text for head in self._heads)

    def _remember(self, text_id: TextId, text: bytes) -> None:
        """Keep the end of a text; of those that were not continued for longest, if there are too many, none."""
        self._tails.pop(text_id, None)
        while len(self._tails) >= MAX_STREAMS:
            del self._tails[next(iter(self._tails))]
        self._tails[text_id] = text[-self._keep :] if self._keep else b""

    def _begun(self, text: bytes) -> int:
        """How many of the last bytes are the beginning of a secret; few bytes are too likely to be something else."""
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), _head(form) - 1, -1):
                if text.endswith(form[:length]):
                    return length
        return 0


def _head(form: bytes) -> int:
    """How many bytes of a secret are enough to recognise its beginning."""
    return min(len(form), max(MIN_SECRET_BYTES, len(form) // 3))


def _swap(body: bytes, old: bytes, new: bytes) -> bytes:
    """Replace the text of a delta inside its body. It stands there once, as the last field (the data of a content_delta)."""
    at = body.rfind(old)
    if at < 0:
        raise ValueError("the delta's text does not stand in its body")
    return body[:at] + new + body[at + len(old) :]
