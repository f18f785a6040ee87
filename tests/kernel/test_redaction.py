import base64
import json
from urllib.parse import quote

import pytest

from server.kernel import redaction
from server.kernel.event import Fact, WorkerBatch
from server.kernel.redaction import Redactor
from treadle.session.v1 import event_pb2 as pb
from treadle.worker.v1 import worker_event_pb2

SECRET = 'sk-canary/7f3a"+Q9vL2x_Yw8=\\end'


def delta(text: str, offset: int = 0) -> worker_event_pb2.WorkerEvent:
    return worker_event_pb2.WorkerEvent(item_id="m1", content_delta=pb.ContentDelta(channel=pb.CHANNEL_TEXT, offset=offset, data=text))


def batch(*texts: str) -> WorkerBatch:
    bodies = [delta(text).SerializeToString() for text in texts]
    return WorkerBatch(1, ["content_delta"] * len(texts), bodies, {("m1", 1): [(i, text.encode()) for i, text in enumerate(texts)]})


def shown(*batches: WorkerBatch) -> str:
    events = [worker_event_pb2.WorkerEvent.FromString(body) for one in batches for body in one.bodies]
    return "".join(event.content_delta.data for event in events)


def test_a_secret_in_one_body_is_masked_and_the_body_stays_well_formed() -> None:
    text = f"the key is {SECRET}, keep it"
    event = pb.Event(item_id="x", message=pb.Message(role=pb.ROLE_ASSISTANT, parts=[pb.Part(text=text)], final=True))
    fact = Redactor([SECRET]).fact(Fact("message", event.SerializeToString()))
    parsed = pb.Event.FromString(fact.body)
    assert parsed.message.parts[0].text == f"the key is {'*' * len(SECRET)}, keep it"


@pytest.mark.parametrize("encode", [quote, lambda s: quote(s, safe=""), lambda s: s.replace("\\", "\\\\").replace('"', '\\"')])
def test_written_in_other_ways_it_is_masked_too(encode: object) -> None:
    written = encode(SECRET)  # type: ignore[operator]
    assert written not in Redactor([SECRET]).text(f"see {written}!")


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "abcd"])
@pytest.mark.parametrize("after", ["", "z", "zz", "zzz"])
def test_base64_is_masked_at_every_alignment(before: str, after: str) -> None:
    encoded = base64.b64encode((before + SECRET + after).encode()).decode()
    masked = Redactor([SECRET]).text(encoded)
    assert len(masked) == len(encoded)
    assert masked.count("*") >= len(base64.b64encode(SECRET.encode())) - 8


@pytest.mark.parametrize("split", range(1, len(SECRET)))
def test_a_secret_split_over_two_deltas_never_shows_whole(split: int) -> None:
    redactor = Redactor([SECRET])
    text = shown(redactor.batch(batch(f"key {SECRET[:split]}")), redactor.batch(batch(f"{SECRET[split:]} end")))
    assert SECRET not in text
    assert text.endswith(" end")
    assert len(text) == len(f"key {SECRET} end")
    # What is left of it is too little to guess the rest from.
    longest = max(len(part) for part in text.removeprefix("key ").removesuffix(" end").split("*"))
    assert longest < max(8, len(SECRET) // 3) + 1


def test_a_secret_split_over_many_deltas_of_one_batch_never_shows_whole() -> None:
    text = shown(Redactor([SECRET]).batch(batch(*SECRET)))
    assert SECRET not in text


def test_without_secrets_nothing_changes() -> None:
    one = batch("hello")
    assert Redactor([]).batch(one) is one
    assert Redactor(["short"]).text("short") == "short"


def test_a_secret_split_within_one_batch_is_masked_and_what_follows_is_not() -> None:
    redactor = Redactor([SECRET])
    one = batch("nothing here", f"key {SECRET[:12]}", SECRET[12:20], SECRET[20:], " end")
    assert shown(redactor.batch(one), redactor.batch(batch(" and on"))) == f"nothing herekey {'*' * len(SECRET)} end and on"


def test_masking_a_delta_brings_nothing_back_that_was_masked_before() -> None:
    event = delta(SECRET)
    event.item_id = SECRET
    bodies = [event.SerializeToString()]
    one = WorkerBatch(1, ["content_delta"], bodies, {(SECRET, 1): [(0, SECRET.encode())]})
    (body,) = Redactor([SECRET]).batch(one).bodies
    assert SECRET.encode() not in body


def test_a_secret_that_is_learned_later_is_masked_from_then_on_also_across_deltas() -> None:
    redactor = Redactor(["an old secret"])
    assert redactor.text("an old secret, a new secret") == "*************, a new secret"
    redactor.learn(["a new secret", "an old secret"])
    redactor.learn([])
    assert redactor.text("an old secret, a new secret") == "*************, ************"


def test_a_document_is_masked_at_every_place_also_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_LOOK_BYTES", 64)
    secret = "sk-0123456789abcdef"
    for at in range(0, 200):
        document = b"\xff" * at + secret.encode() + b"\0" * 70
        masked = Redactor([secret]).document(document)
        assert masked == b"\xff" * at + b"*" * len(secret) + b"\0" * 70
    assert Redactor([secret]).document(b"nothing") == b"nothing"
    assert Redactor([]).document(b"nothing") == b"nothing"


def test_a_masked_document_of_json_lines_stays_one() -> None:
    secret = 'pass"word\\1234'
    lines = json.dumps({"text": f"it is {secret}.", "more": base64.b64encode(f"user:{secret}".encode()).decode()})
    masked = Redactor([secret]).document(lines.encode())
    assert json.loads(masked).keys() == {"text", "more"}
    assert len(masked) == len(lines)
    assert b"word" not in masked
