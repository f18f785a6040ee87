"""What a turn used of models, for a person: tokens, and what they cost as far as that is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.cli.screen import Screen
from treadle.session.v1 import event_pb2 as pb

_CENT_MICROS = 10_000


@dataclass
class Usage:
    """The sum of what model calls used."""

    input_tokens: int = 0
    cached_tokens: int = 0
    """Those of the input that came from the provider's cache."""
    output_tokens: int = 0
    calls: int = 0
    cut_off: int = 0
    """Calls of which the provider had not told everything: the rest is estimated."""
    cost_micros: int = 0
    estimated: bool = False
    models: dict[str, None] = field(default_factory=dict)
    unpriced: dict[str, None] = field(default_factory=dict)

    def add(self, used: pb.UsageUpdated) -> None:
        """One more call."""
        self.calls += 1
        self.cut_off += used.partial
        self.input_tokens += used.input_tokens + used.cache_read_tokens + used.cache_write_tokens
        self.cached_tokens += used.cache_read_tokens
        self.output_tokens += used.output_tokens
        self.cost_micros += used.cost_micros
        self.models[used.model] = None
        if used.cost_source == pb.COST_SOURCE_UNSPECIFIED:
            self.unpriced[used.model] = None
        else:
            self.estimated |= used.cost_source == pb.COST_SOURCE_ESTIMATE or used.partial


def show_usage(screen: Screen, usage: Usage, *, recorded: bool) -> None:
    """Print it. `recorded`: nothing was used now."""
    if not usage.input_tokens and not usage.output_tokens:
        return
    cached = f" ({usage.cached_tokens:,} of them cached)" if usage.cached_tokens else ""
    tokens = f"{usage.input_tokens:,} in{cached}, {usage.output_tokens:,} out"
    if recorded:
        screen.label("tokens", f"{tokens} (as recorded; none were used now)")
        return
    if models := _names(usage.models):
        screen.label("model", models)
    screen.label("tokens", tokens + _certainty(usage))
    screen.label("cost", _cost(usage))


def _certainty(usage: Usage) -> str:
    """Of the tokens: an answer that was cut off, or never came, was not counted by the model's provider."""
    if not usage.cut_off:
        return ""
    return " (estimate)" if usage.cut_off == usage.calls else " (in part an estimate)"


def _cost(usage: Usage) -> str:
    unpriced = f"no price is known for {_names(usage.unpriced) or 'its model'}"
    if usage.unpriced.keys() == usage.models.keys():
        return f"unknown: {unpriced}"
    estimate = " (estimate)" if usage.estimated else ""
    return _dollars(usage.cost_micros) + estimate + (f", and more: {unpriced}" if usage.unpriced else "")


def _dollars(micros: int) -> str:
    return f"${micros / 1e6:.2f}" if micros >= _CENT_MICROS or not micros else f"${micros / 1e6:.4f}"


def _names(models: dict[str, None]) -> str:
    return ", ".join(model for model in models if model)
