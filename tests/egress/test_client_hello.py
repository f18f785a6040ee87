"""The name in a ClientHello: those of a real client, in every possible piece, and bytes that are none."""

from __future__ import annotations

import contextlib
import random
import ssl
import time

import pytest

from server.egress.client_hello import MAX_HELLO_BYTES, MAX_RECORDS, HelloReader, NotTls


def hello(name: str | None) -> bytes:
    """What OpenSSL says."""
    context = ssl.create_default_context()
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def read_name(data: bytes) -> str | None:
    return HelloReader().add(data)


def in_records(data: bytes, size: int) -> bytes:
    """The same handshake message in records of `size` bytes."""
    message = data[5:]
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def test_the_name_of_a_real_client_is_read_once_it_is_whole() -> None:
    said = hello("Index.Example.org")
    assert [read_name(said[:end]) for end in range(len(said))] == [None] * len(said)
    assert read_name(said) == read_name(said + b"more") == "index.example.org"


@pytest.mark.parametrize("count", [2, 3, MAX_RECORDS])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_a_hello_in_some_records_is_put_together_as_it_comes(count: int, step: int) -> None:
    said = hello("index.example.org")
    data = in_records(said, -(-(len(said) - 5) // count))
    reader = HelloReader()
    names = [reader.add(data[start : start + step]) for start in range(0, len(data), step)]
    assert names == [None] * (len(names) - 1) + ["index.example.org"]
    assert reader.said == data


def test_a_hello_in_very_many_records_is_refused_at_the_first_one_too_many() -> None:
    data, reader = in_records(hello("index.example.org"), 1), HelloReader()
    assert reader.add(data[: 6 * MAX_RECORDS]) is None
    with pytest.raises(NotTls):
        reader.add(data[6 * MAX_RECORDS : 6 * MAX_RECORDS + 5])


def test_a_byte_costs_the_same_however_many_came_before() -> None:
    """Were all looked at anew for each, a turn's tunnels would hold up all others for seconds."""
    data = b"\x16\x03\x01\x40\x00\x01\x00\x7f\x00" + bytes(16 * 1024)
    began = time.process_time()
    for _ in range(20):
        reader = HelloReader()
        assert [reader.add(data[at : at + 1]) for at in range(16 * 1024)] == [None] * 16 * 1024
    assert time.process_time() - began < 10, "330,000 bytes, each for itself"


def test_a_client_that_names_nobody() -> None:
    assert read_name(hello(None)) == ""


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x02",
        b"\x17\x03\x03\x00\x05hello",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(MAX_HELLO_BYTES),
    ],
)
def test_what_is_no_hello_is_told_at_once(data: bytes) -> None:
    with pytest.raises(NotTls):
        read_name(data)


def test_damaged_hellos_are_refused_or_read_and_nothing_else() -> None:
    said, chance = hello("index.example.org"), random.Random(1)
    for _ in range(3000):
        damaged = bytearray(said)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with contextlib.suppress(NotTls):
            assert isinstance(read_name(bytes(damaged)), str | None)
