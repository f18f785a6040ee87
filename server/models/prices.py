"""What tokens cost, as far as this server knows. An estimate: the provider's invoice is the truth."""

from __future__ import annotations

from collections.abc import Mapping

from server.kernel.model_use import Tokens

Price = Mapping[str, float]
"""US dollars per million tokens, which is micros per token, by kind: input, output, cache_read, cache_write, cache_write_hour.

A run of the model whose input, caches included, is above `long` tokens has other prices for all of it: `long_input` and `long_output`, the
caches in proportion to input.
"""


def _anthropic(input_: float, output: float, *, cache_read: float | None = None, **long: float) -> Price:
    """Anthropic's caches: reading costs a tenth of input or less, keeping for five minutes a quarter more, for an hour twice as much."""
    return {
        "input": input_,
        "output": output,
        "cache_read": input_ / 10 if cache_read is None else cache_read,
        "cache_write": input_ * 1.25,
        "cache_write_hour": input_ * 2,
        **long,
    }


def _openai(input_: float, cached: float, output: float) -> Price:
    return {"input": input_, "output": output, "cache_read": cached}


_LONG_SONNET = {"long": 200_000, "long_input": 6, "long_output": 22.5}

KNOWN: Mapping[str, Price] = {
    "claude-fable-5-1": _anthropic(10, 50, cache_read=0.25),
    "claude-opus-5-5": _anthropic(4, 20, cache_read=0.2),
    "claude-opus-4-8": _anthropic(5, 25),
    "claude-opus-4-7": _anthropic(5, 25),
    "claude-opus-4-6": _anthropic(5, 25),
    "claude-opus-4-5": _anthropic(5, 25),
    "claude-opus-4-1": _anthropic(15, 75),
    "claude-opus-4-2025": _anthropic(15, 75),
    "claude-opus-4-0": _anthropic(15, 75),
    "claude-sonnet-5-5": _anthropic(2, 10, cache_read=0.1),
    "claude-sonnet-4-6": _anthropic(3, 15),
    "claude-sonnet-4-5": _anthropic(3, 15, **_LONG_SONNET),
    "claude-sonnet-4-2025": _anthropic(3, 15, **_LONG_SONNET),
    "claude-sonnet-4-0": _anthropic(3, 15, **_LONG_SONNET),
    "claude-3-7-sonnet": _anthropic(3, 15),
    "claude-3-5-sonnet": _anthropic(3, 15),
    "claude-haiku-5-5": _anthropic(0.1, 0.5, long=100_000, long_input=0.5, long_output=2.5),
    "claude-haiku-4-5": _anthropic(1, 5),
    "claude-3-5-haiku": _anthropic(0.8, 4),
    "claude-3-haiku": _anthropic(0.25, 1.25),
    "gpt-5-mini": _openai(0.25, 0.025, 2),
    "gpt-5-nano": _openai(0.05, 0.005, 0.4),
    "gpt-5-codex": _openai(1.25, 0.125, 10),
    "gpt-5-20": _openai(1.25, 0.125, 10),
    "gpt-4.1-mini": _openai(0.4, 0.1, 1.6),
    "gpt-4.1-nano": _openai(0.1, 0.025, 0.4),
    "gpt-4.1": _openai(2, 0.5, 8),
    "gpt-4o-mini": _openai(0.15, 0.075, 0.6),
    "gpt-4o": _openai(2.5, 1.25, 10),
    "o4-mini": _openai(1.1, 0.275, 4.4),
}
"""By the beginning of the model's name; the longest that fits counts. List prices: of Claude as they were public in November 2026
(platform.claude.com/docs/en/about-claude/pricing and the models' own pages), of others in late 2025. What is newer is not in it: a wrong
price is worse than none, and TREADLE_MODEL_PRICES adds what is missing."""

_EXACT: Mapping[str, Price] = {
    "claude-fable-5": _anthropic(10, 50),
    "claude-opus-5": _anthropic(5, 25),
    "claude-sonnet-5": _anthropic(2, 10),
    "gpt-5": _openai(1.25, 0.125, 10),
    "o3": _openai(2, 0.5, 8),
}
"""Names that are the beginning of others with other prices."""

_REMEMBERED = 256

_LONG = frozenset({"long", "long_input", "long_output"})
KINDS = frozenset({"input", "output", "cache_read", "cache_write", "cache_write_hour"}) | _LONG


class Prices:
    """A table of prices: the known ones, and over them the operator's. Errors: ValueError for a price that cannot be right."""

    def __init__(self, own: Mapping[str, Price]) -> None:
        for model, price in own.items():
            if not price.keys() <= KINDS or not {"input", "output"} <= price.keys() or min(price.values()) < 0:
                raise ValueError(f"the price of {model!r} needs input and output, may have {', '.join(sorted(KINDS))}, and nothing below 0")
            if _LONG & price.keys() and not (price.keys() >= _LONG and price["input"]):
                raise ValueError(f"the price of {model!r} needs {', '.join(sorted(_LONG))} together, and an input that is not free")
        self._own = own
        self._table = {**KNOWN, **own}
        self._names: dict[str, str] = {}

    def cost(self, model: str, *rounds: Tokens) -> int | None:
        """Micros (millionths of a US dollar) for a request in which the model was run so often, each run at the price of its own length;
        None when no price is known for the model."""
        name = self.name(model)
        if not name:
            return None
        price = self._table.get(name) or _EXACT[name]
        return round(sum(_micros(price, tokens) for tokens in rounds))

    def name(self, model: str) -> str:
        """The entry of the table that fits the model: the operator's before a known one, the longest of several; empty for none."""
        # Asked for every piece of an answer. Names are agents' words, so there may be no end of them.
        if (found := self._names.get(model)) is not None:
            return found
        found = self._find(model)
        if len(self._names) < _REMEMBERED:
            self._names[model] = found
        return found

    def _find(self, model: str) -> str:
        for table in (self._own, KNOWN):
            if fitting := [name for name in table if model.startswith(name)]:
                return max(fitting, key=len)
        return model if model in _EXACT else ""


def _micros(price: Price, tokens: Tokens) -> float:
    short = tokens.cache_write - tokens.cache_write_hour
    write = price.get("cache_write", price["input"])
    read = (
        tokens.input * price["input"]
        + tokens.cache_read * price.get("cache_read", price["input"])
        + short * write
        + tokens.cache_write_hour * price.get("cache_write_hour", write)
    )
    if "long" in price and tokens.total - tokens.output > price["long"]:
        return read * price["long_input"] / price["input"] + tokens.output * price["long_output"]
    return read + tokens.output * price["output"]
