from datetime import UTC, datetime

import pytest

from server.api.event_codec import ProtobufEventCodec, varint
from server.kernel.event import Envelope
from treadle.session.v1 import event_pb2 as pb
from treadle.session.v1 import session_service_pb2
from treadle.worker.v1 import worker_event_pb2

CODEC = ProtobufEventCodec()
ENVELOPE = Envelope("session", "turn", 2, 7, "AGENT", "replay", on_behalf_of="user")
NOW = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)


def seal(*bodies: bytes) -> list[pb.Event]:
    chunk = CODEC.seal(ENVELOPE, bodies, first_seq=300, event_id_prefix="turn/2/", first_number=9, recorded_at=NOW)
    assert (chunk.first_seq, chunk.last_seq) == (300, 300 + len(bodies) - 1)
    return list(session_service_pb2.EventBatch.FromString(chunk.data).events)


def test_a_sealed_body_has_the_servers_envelope_and_the_workers_words() -> None:
    said = worker_event_pb2.WorkerEvent(item_id="m", message=pb.Message(role=pb.ROLE_ASSISTANT, parts=[pb.Part(text="hi")]))
    first, second = seal(said.SerializeToString(), said.SerializeToString())
    assert (first.seq, second.seq) == (300, 301)
    assert (first.event_id, second.event_id) == ("turn/2/9", "turn/2/10")
    assert (first.session_id, first.turn_id, first.attempt, first.epoch) == ("session", "turn", 2, 7)
    assert first.recorded_at.ToDatetime(tzinfo=UTC) == NOW
    assert (first.actor.kind, first.actor.id, first.actor.on_behalf_of) == (pb.ACTOR_KIND_AGENT, "replay", "user")
    assert first.item_id == "m"
    assert first.message.parts[0].text == "hi"


def test_what_the_server_vouches_for_wins_over_a_forged_body() -> None:
    forged = pb.Event(seq=1, session_id="other", turn_id="other", epoch=99, event_id="x", message=pb.Message(final=True))
    (event,) = seal(forged.SerializeToString())
    assert (event.seq, event.session_id, event.turn_id, event.epoch, event.event_id) == (300, "session", "turn", 7, "turn/2/9")


def test_worker_events_have_the_numbers_that_events_have() -> None:
    ours = {field.name: field.number for field in pb.Event.DESCRIPTOR.fields}
    for field in worker_event_pb2.WorkerEvent.DESCRIPTOR.fields:
        assert ours[field.name] == field.number


def test_execute_and_resume_frames_are_the_same_bytes() -> None:
    execute, resume = session_service_pb2.ExecuteSessionResponse.DESCRIPTOR, session_service_pb2.ResumeResponse.DESCRIPTOR
    assert {(f.name, f.number, f.message_type.full_name) for f in execute.fields} == {
        (f.name, f.number, f.message_type.full_name) for f in resume.fields
    }
    frame = CODEC.frame(CODEC.seal(ENVELOPE, [b""], first_seq=1, event_id_prefix="p", first_number=1, recorded_at=NOW).data)
    assert session_service_pb2.ResumeResponse.FromString(frame).events.events[0].seq == 1


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2**32, 2**63])
def test_varints_are_protobufs(value: int) -> None:
    assert pb.ContentDelta(offset=value).SerializeToString() == (b"" if value == 0 else b"\x18" + varint(value))
