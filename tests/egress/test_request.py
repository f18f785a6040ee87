"""The head of a request: what every kind of header costs, and what is kept of it."""

from __future__ import annotations

import time

import pytest

from server.egress.request import MAX_HEAD_BYTES, MAX_HEADERS, NotProxying, read_request

GET = b"GET http://a.test/ HTTP/1.1\r\n"


def read(lines: bytes) -> bytes:
    return read_request(GET + lines + b"\r\n\r\n").head


LONG = MAX_HEAD_BYTES - 64


@pytest.mark.parametrize(
    "line",
    [
        b"x:" + b" " * LONG + b"\0",
        b"x:" + b" \t" * (LONG // 2) + b"\0",
        b"x:a" + b" " * LONG + b"a",
        b"x:a" + b" a" * (LONG // 2) + b"\0",
        b"x" * LONG,
        b"x" * LONG + b" :",
        b":" * LONG,
        b"x:" + b":" * LONG + b"\x7f",
        b"connection:" + b"," * LONG,
        b"\r\n".join([b"connection: a,b,c,d,e,f"] * 90),
    ],
    ids=lambda line: repr(line[:8]),
)
def test_no_header_takes_longer_than_its_length_calls_for(line: bytes) -> None:
    """It is read in the loop that serves everybody. Where blanks were tried in all ways, a head full of them took an hour."""
    began = time.process_time()
    for _ in range(20):
        try:
            read(line)
        except NotProxying:
            continue
    assert time.process_time() - began < 5, "twenty of them; each takes well below a millisecond"


@pytest.mark.parametrize("line", [b"GET http://" + b"a" * LONG + b"/", b"GET http://a.test/" + b"?" * LONG, b"A" * LONG])
def test_no_request_line_does_either(line: bytes) -> None:
    began = time.process_time()
    for _ in range(20):
        with pytest.raises(NotProxying):
            read_request(line + b"\0 HTTP/1.1\r\n\r\n")
    assert time.process_time() - began < 5


def test_blanks_around_a_value_are_dropped_and_those_within_kept() -> None:
    assert b"\r\nx: a \t b\r\n" in read(b"X:\t a \t b \t ")
    assert b"\r\nx: \r\n" in read(b"x:")
    assert b"\r\nx: \xe4:\r\n" in read(b"x: \xe4:")


@pytest.mark.parametrize(
    "line", [b"x", b":", b": a", b"x : a", b" x: a", b"x: a\0", b"x: a\x7f", b"x: \x01", b"x: a\nb: c", b"x: a\rb", b"\xe4: a"]
)
def test_what_is_no_header_is_refused(line: bytes) -> None:
    with pytest.raises(NotProxying):
        read(line)


def test_headers_have_a_limit() -> None:
    assert read(b"\r\n".join([b"x: a"] * MAX_HEADERS)).count(b"x: a") == MAX_HEADERS
    with pytest.raises(NotProxying, match="more than 100 headers"):
        read(b"\r\n".join([b"x: a"] * (MAX_HEADERS + 1)))
