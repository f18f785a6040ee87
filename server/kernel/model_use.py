"""What requests to models use: tokens by kind, what they cost, and who pays."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Purpose(StrEnum):
    """What a request was for."""

    AGENT = "AGENT"
    NAMING = "NAMING"


@dataclass(frozen=True)
class Tokens:
    """Tokens of one or more requests, by kind. The kinds exclude each other, except that `output` holds those of reasoning and
    `cache_write` those that are kept for an hour."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_hour: int = 0
    reasoning: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.cache_write_hour + other.cache_write_hour,
            self.reasoning + other.reasoning,
        )

    @property
    def total(self) -> int:
        """All tokens, whatever they cost."""
        return self.input + self.output + self.cache_read + self.cache_write


@dataclass(frozen=True)
class ModelUse:
    """What one request used."""

    model: str
    tokens: Tokens
    cost_micros: int | None
    """Estimated, in millionths of a US dollar; None when no price is known for the model."""
    purpose: Purpose = Purpose.AGENT
    partial: bool = False
    """The answer was cut off, and what its provider had not told by then is estimated."""


@dataclass(frozen=True)
class Spent:
    """A sum over requests, in both measures that a budget can have."""

    tokens: int = 0
    micros: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.tokens + other.tokens, self.micros + other.micros)

    def largest(self, other: Spent) -> Spent:
        """The larger of each."""
        return Spent(max(self.tokens, other.tokens), max(self.micros, other.micros))

    @classmethod
    def of(cls, use: ModelUse) -> Spent:
        """What one request adds."""
        return cls(use.tokens.total, use.cost_micros or 0)


@dataclass(frozen=True)
class Budget:
    """The most that may be used; 0 for no limit."""

    tokens: int = 0
    micros: int = 0

    def __bool__(self) -> bool:
        return bool(self.tokens or self.micros)

    def crossed_by(self, spent: Spent) -> bool:
        """Whether nothing is left."""
        return bool((self.tokens and spent.tokens >= self.tokens) or (self.micros and spent.micros >= self.micros))
