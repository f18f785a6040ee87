"""Counting while bytes pass, wherever they are cut."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from support.fake_upstream import CACHE_READ, CACHE_WRITE, INPUT, OUTPUT, anthropic_events, encoded, openai_events

from server.kernel.model_use import Tokens
from server.models import meter as metering
from server.models.formats import Format
from server.models.meter import Meter, meter_for
from server.models.namer import DEFAULT_MODELS
from server.models.prices import Prices
from server.models.rules import Expected
from worker.providers import anthropic, claude

STREAMS = {Format.ANTHROPIC: anthropic_events, Format.OPENAI: openai_events}
WHOLE = {
    Format.ANTHROPIC: Tokens(INPUT, OUTPUT, CACHE_READ, CACHE_WRITE),
    Format.OPENAI: Tokens(INPUT, OUTPUT, CACHE_READ, reasoning=5),
}


def meter(form: Format, *, streams: bool = True, hidden: bool = False) -> Meter:
    return meter_for(form, streams=streams, expected=Expected(77, 1000, hidden))


def total(rounds: Iterable[Tokens]) -> Tokens:
    return sum(rounds, Tokens())


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
def test_a_stream_in_pieces_of_any_size_is_counted_the_same(form: Format, size: int) -> None:
    data = b"".join(map(encoded, STREAMS[form](["hello ", "wörld"]))) + b": ping\n\n"
    counting = meter(form)
    changes = [counting.feed(data[start : start + size]) for start in range(0, len(data), size)]
    counting.finish()
    assert (total(counting.rounds), counting.complete, counting.broken) == (WHOLE[form], True, False)
    assert any(changes)


@pytest.mark.parametrize("form", Format)
def test_a_stream_that_ends_early_is_estimated(form: Format) -> None:
    counting = meter(form)
    assert total(counting.rounds) == Tokens(input=77), "before the first byte: what was expected"
    last_words = ("content_block_stop", "message_delta", "message_stop", "response.completed")
    for event in STREAMS[form](["x" * 40, "y" * 40]):
        if event["type"] not in last_words:
            counting.feed(encoded(event))
    assert not counting.complete
    assert total(counting.rounds).output == 20
    assert total(counting.rounds).input == (INPUT if form is Format.ANTHROPIC else 77)


@pytest.mark.parametrize("form", Format)
def test_what_cannot_be_seen_of_a_cut_answer_is_estimated(form: Format) -> None:
    whole = meter(form, streams=False)
    assert total(whole.owed(0.1)).output == 1000, "an answer that is no stream may have been all that was allowed"
    thinking = meter(form, hidden=True)
    for event in STREAMS[form](["x" * 40])[:2]:
        thinking.feed(encoded(event))
    assert [total(thinking.owed(seconds)).output for seconds in (0, 0.5, 60)] == [total(thinking.rounds).output, 50, 1000]
    assert total(meter(form).owed(60)) == total(meter(form).rounds), "nothing is hidden: what was seen is all"
    for event in STREAMS[form](["x" * 40]):
        thinking.feed(encoded(event))
    assert total(thinking.owed(60)) == total(thinking.rounds) == WHOLE[form], "what the provider told is right"


def test_hostile_streams_change_nothing() -> None:
    counting = meter(Format.ANTHROPIC)
    for line in (b"data: {", b"data: []", b"data: " + b"[" * 100_000, b'data: {"type": 7}', b"\xff\xfe", b'data: {"type":"message_start"}'):
        counting.feed(line + b"\n")
    usage = {"input_tokens": -5, "output_tokens": "many", "cache_read_input_tokens": True, "cache_creation": []}
    counting.feed(encoded({"type": "message_start", "message": {"usage": usage}}))
    assert total(counting.rounds) == Tokens(input=77)


def test_an_endless_line_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "_MAX_LINE_BYTES", 1000)
    counting = meter(Format.ANTHROPIC)
    for _ in range(100):
        counting.feed(b"x" * 100)
    assert len(counting._buffer) <= 1100
    for event in [{"type": "skipped with the line"}, *anthropic_events(["hello"])]:
        counting.feed(encoded(event))
    assert total(counting.rounds) == WHOLE[Format.ANTHROPIC]
    whole = meter(Format.ANTHROPIC, streams=False)
    for _ in range(100):
        whole.feed(b"x" * 100)
    whole.finish()
    assert len(whole._buffer) == 0


def test_caches_of_an_hour_and_thinking_are_counted_apart() -> None:
    usage = {
        "input_tokens": 1,
        "output_tokens": 10,
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60},
        "output_tokens_details": {"thinking_tokens": 4},
    }
    counting = meter(Format.ANTHROPIC, streams=False)
    counting.feed(json.dumps({"usage": usage}).encode())
    counting.finish()
    assert total(counting.rounds) == Tokens(1, 10, 0, 100, 60, 4)
    assert total(counting.rounds).total == 111
    assert Prices({}).cost("claude-sonnet-4-5-20250929", total(counting.rounds)) == round(3 + 150 + 40 * 3.75 + 60 * 6)


@pytest.mark.parametrize("streams", [True, False])
def test_a_summary_of_the_conversation_is_paid_for(streams: bool) -> None:
    """The example of Anthropic's documentation (compact_20260112): its tokens are in none of the sums."""
    answer, summary = {"input_tokens": 23_000, "output_tokens": 1_000}, {"input_tokens": 180_000, "output_tokens": 3_500}
    iterations = [{"type": "compaction", **summary}, {"type": "message", **answer}, "hostile", {"type": "compaction", "input_tokens": "x"}]
    usage = {**answer, "iterations": iterations}
    counting = meter(Format.ANTHROPIC, streams=streams)
    if streams:
        counting.feed(encoded({"type": "message_start", "message": {"usage": {"input_tokens": 23_000, "output_tokens": 1}}}))
        counting.feed(encoded({"type": "message_delta", "usage": usage}) + encoded({"type": "message_stop"}))
    else:
        counting.feed(json.dumps({"usage": usage}).encode())
    counting.finish()
    assert total(counting.rounds) == Tokens(input=203_000, output=4_500)
    assert counting.complete


@pytest.mark.parametrize("streams", [True, False])
def test_each_round_of_a_request_has_the_price_of_its_own_length(streams: bool) -> None:
    """Together a summary and the answer are longer than what costs more; neither is by itself."""
    answer = {"input_tokens": 60_000, "output_tokens": 1_000}
    summary = {"type": "compaction", "input_tokens": 90_000, "output_tokens": 1_000}
    usage = {**answer, "iterations": [summary, {"type": "message", **answer}]}
    counting = meter(Format.ANTHROPIC, streams=streams)
    counting.feed(encoded({"type": "message_delta", "usage": usage}) if streams else json.dumps({"usage": usage}).encode())
    counting.finish()
    assert sorted(counting.rounds, key=lambda each: each.input) == [Tokens(60_000, 1_000), Tokens(90_000, 1_000)]
    assert Prices({}).cost("claude-haiku-5-5", *counting.rounds) == 16_000
    long = Tokens(100_001, 1_000)
    assert Prices({}).cost("claude-haiku-5-5", Tokens(60_000, 1_000), long) == 6_500 + round(long.input * 0.5 + 2_500), "only the long one"


def test_until_more_is_known_every_round_is_expected_to_be_as_long() -> None:
    expected = Expected(60_000, 1_000, rounds=2)
    assert list(expected.most) == [Tokens(60_000, 1_000)] * 2
    assert list(meter_for(Format.ANTHROPIC, streams=False, expected=expected).owed(0)) == [Tokens(60_000, 1_000)] * 2
    assert list(meter_for(Format.ANTHROPIC, streams=True, expected=expected).owed(0)) == [Tokens(60_000)] * 2


def test_prices_go_by_the_longest_beginning_and_the_operators_win() -> None:
    prices = Prices({"claude-": {"input": 1, "output": 2}, "claude-haiku-4": {"input": 7, "output": 7}})
    million = Tokens(input=1_000_000)
    assert prices.cost("claude-haiku-4-5", million) == 7_000_000
    assert prices.cost("claude-opus-4-5", million) == 1_000_000
    assert Prices({}).cost("claude-opus-4-5", million) == 5_000_000
    assert Prices({}).cost("claude-opus-9", million) is None, "no price is better than a wrong one"
    assert Prices({}).cost("claude-sonnet-5-9", million) is None, "and no version has that of another"
    assert Prices({}).cost("gpt-5", million) == 1_250_000
    assert Prices({}).cost("gpt-5.6-sol", million) is None
    halves = {"input": 1, "output": 1, "long": 5}
    for wrong in (
        halves,
        {**halves, "input": 0, "long_input": 1, "long_output": 1},
        {"input": 1},
        {"input": 1, "output": -1},
        {"input": 1, "output": 1, "typo": 1},
    ):
        with pytest.raises(ValueError, match="price of 'x'"):
            Prices({"x": wrong})


@pytest.mark.parametrize("model", [claude.DEFAULT_MODEL, anthropic.DEFAULT_MODEL, *DEFAULT_MODELS.values()])
def test_what_is_used_by_default_has_a_price(model: str) -> None:
    assert Prices({}).cost(model, Tokens(input=1_000_000)) is not None


def test_above_a_length_all_of_a_request_costs_more() -> None:
    prices = Prices({"mine": {"input": 1, "output": 2, "long": 10, "long_input": 3, "long_output": 4}})
    assert prices.cost("mine", Tokens(input=5, output=100, cache_read=5)) == 210
    assert prices.cost("mine", Tokens(input=5, output=100, cache_read=6)) == 433
    assert Prices({}).cost("claude-sonnet-4-5", Tokens(input=500_000, output=1000)) == 500_000 * 6 + 22_500
    assert Prices({}).cost("claude-haiku-5-5", Tokens(0, 1000, 100_001)) == round(100_001 * 0.05 + 2500)
