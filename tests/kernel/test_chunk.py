import pytest

from server.api.event_codec import varint
from server.kernel.event import Chunk


def chunk(first: int, *bodies: bytes) -> Chunk:
    return Chunk(first, first + len(bodies) - 1, b"".join(b"\x0a" + varint(len(body)) + body for body in bodies))


def test_a_chunk_is_cut_behind_any_of_its_events() -> None:
    bodies = [b"a" * size for size in (0, 1, 127, 128, 300, 20_000)]
    whole = chunk(5, *bodies)
    for cut in range(len(bodies)):
        assert whole.after(4 + cut) == chunk(5 + cut, *bodies[cut:])
    assert whole.after(2) is whole


def test_a_chunk_is_cut_before_any_of_its_events() -> None:
    bodies = [b"a" * size for size in (1, 200, 3)]
    whole = chunk(1, *bodies)
    for keep in range(1, 4):
        assert whole.up_to(keep) == chunk(1, *bodies[:keep])
    assert whole.up_to(9) is whole


def test_damaged_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="well-formed"):
        Chunk(1, 2, b"\x0a\x01aXX").after(2)
