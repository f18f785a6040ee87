"""A door with real Envoy behind it, real DNS and real TLS: what passes, what does not, and what the ledger hears of it."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address
from typing import Any

import pytest
from support.egress import PRIVATE, PUBLIC, Internet

from gateway import addresses
from server.egress import connection, door
from server.egress.own_address import is_own
from server.egress.proxy import NotDialled, Proxy
from server.kernel.egress import EgressReason
from server.pace import Pace


async def test_a_tunnel_to_a_host_that_is_allowed(net: Internet, doors: Any) -> None:
    host = await net.host("index.packages.test")
    async with doors.open(f"*.packages.test:{host.port}") as agent:
        reader, writer = await agent.tls("index.packages.test", host.port)
        writer.write(b"hello")
        assert await reader.readexactly(11) == b"heard hello"
        writer.close()
        ended = await agent.ledger.end()
    (opened,) = agent.ledger.opens
    assert (opened.host, opened.port, opened.method) == ("index.packages.test", host.port, "CONNECT")
    assert (opened.rule, opened.ended) == (f"*.packages.test:{host.port}", False)
    assert (ended.reason, ended.denied, ended.rule) == (None, False, opened.rule)
    assert ended.bytes_out > 300
    assert ended.bytes_in > 300
    assert 0 < ended.seconds < 20
    assert host.heard == [b"hello"], "nothing else is said to it"


async def test_plain_http_and_one_request_only(net: Internet, doors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.2)
    host = await net.host("plain.example.test", tls=False)
    async with doors.open(f"plain.example.test:{host.port}") as agent:
        url = f"http://Plain.Example.Test:{host.port}"
        headers = (
            "Host: elsewhere.test\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\nConnection: X-Hop\r\nX-Hop: 1"
        )
        reader, writer = await agent.connected()
        writer.write(f"POST {url}/a?b HTTP/1.1\r\n{headers}\r\nX-Kept: yes\r\nContent-Length: 4\r\n\r\nbody".encode())
        answer = await reader.readuntil(b"body")
        writer.close()
        ended = await agent.ledger.end()
    head = (
        f"POST /a?b HTTP/1.1\r\nhost: plain.example.test:{host.port}\r\nx-kept: yes\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody"
    )
    assert b"".join(host.heard).decode() == head
    assert answer.startswith(b"heard POST")
    assert (ended.method, ended.host, ended.reason) == ("POST", "plain.example.test", None)


@pytest.mark.parametrize(
    ("target", "reason", "says"),
    [
        ("evil.test:443", "HOST_NOT_ALLOWED", "403 evil.test is not in the allowed_hosts of this session"),
        ("packages.test:443", "HOST_NOT_ALLOWED", "403 packages.test is not in the allowed_hosts"),
        (
            "a.packages.test:8443",
            "PORT_NOT_ALLOWED",
            "403 port 8443 of a.packages.test is not in the allowed_hosts of this session (a.packages.test:8443)",
        ),
        ("a.packages.test.:8443", "PORT_NOT_ALLOWED", "403 port 8443 of a.packages.test "),
        ("a.packages.test@evil.test:443", "NOT_PROXYING", "400 "),
        ("xpackages.test:443", "HOST_NOT_ALLOWED", "403 "),
        ("127.0.0.9:443", "HOST_NOT_ALLOWED", "only names can be allowed"),
        ("2130706441:443", "HOST_NOT_ALLOWED", "403 "),
        ("0x7f000009:443", "HOST_NOT_ALLOWED", "403 "),
        ("[::1]:443", "HOST_NOT_ALLOWED", "403 "),
        ("[::ffff:127.0.0.9]:443", "HOST_NOT_ALLOWED", "403 "),
        ("169.254.169.254:80", "HOST_NOT_ALLOWED", "403 "),
        ("localhost:443", "HOST_NOT_ALLOWED", "403 "),
        ("plain.packages.test:80", "PORT_NOT_ALLOWED", "port 80 is for plain HTTP"),
    ],
)
async def test_a_host_that_is_not_allowed_is_told_so(net: Internet, doors: Any, target: str, reason: str, says: str) -> None:
    asked = [*net.names.asked]
    async with doors.open("*.packages.test", "plain.packages.test:80") as agent:
        answer = await agent.ask(f"CONNECT {target} HTTP/1.1\r\n\r\n")
        ended = await agent.ledger.end()
    assert says in answer.splitlines()[0]
    assert (str(ended.reason), ended.denied, agent.ledger.opens) == (reason, True, [])
    assert net.names.asked == asked, "not even its name was asked for"


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a.packages.test\r\n\r\n",
        b"GET https://a.packages.test/ HTTP/1.1\r\n\r\n",
        b"GET http://user:word@a.packages.test/ HTTP/1.1\r\n\r\n",
        b"GET http://a.packages.test:0/ HTTP/1.1\r\n\r\n",
        b"GET http://a.packages.test:80/ HTTP/1.1\r\nx: a\r\n folded\r\n\r\n",
        b"GET http://a.packages.test:80/ HTTP/1.1\r\nx : a\r\n\r\n",
        b"GET http://a.packages.test:80/ HTTP/1.1\r\nx: a\nhost: b\r\n\r\n",
        b"POST http://a.packages.test:80/ HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET http://a.packages.test/\r\nx: HTTP/1.1\r\n\r\n",
        b"CONNECT a.packages.test HTTP/1.1\r\n\r\n",
        b"CONNECT a.packages.test:99999 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"\x05\x01\x00\r\n\r\n",
        b"GET http://a.packages.test/ HTTP/1.1\r\nx: " + b"a" * 40_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_request_for_a_proxy_is_refused(doors: Any, request_: bytes) -> None:
    async with doors.open("a.packages.test", "a.packages.test:80") as agent:
        answer = await agent.ask(request_)
        ended = await agent.ledger.end()
    assert answer.startswith("HTTP/1.1 400 ")
    assert ended.reason is EgressReason.NOT_PROXYING


@pytest.mark.parametrize(
    "answer",
    [
        [PRIVATE],
        ["169.254.169.254"],
        ["fd00:ec2::254"],
        ["10.1.2.3"],
        ["100.100.100.200"],
        ["192.168.0.1", PUBLIC],
        [PUBLIC, "::ffff:127.0.0.9"],
        [PUBLIC, "::1"],
        ["64:ff9b::7f00:9"],
        ["2002:7f00:9::1"],
        ["168.63.129.16"],
        ["0.0.0.0"],
    ],
)
async def test_a_name_with_an_address_that_is_not_public_is_refused(net: Internet, doors: Any, answer: list[str]) -> None:
    net.names.say("inner.example.test", answer)
    async with doors.open("inner.example.test") as agent:
        first, _, writer = await agent.tunnel("inner.example.test:443")
        writer.close()
        ended = await agent.ledger.end()
    assert first == "HTTP/1.1 403 inner.example.test has an address that is not a public one"
    assert (ended.reason, agent.ledger.opens) == (EgressReason.ADDRESS_FORBIDDEN, []), "nothing was dialled"


async def test_a_name_that_nobody_chose_leads_to_no_network_of_the_operators(net: Internet, doors: Any) -> None:
    """Whoever owns a name, of those that `*` allows, could point it at any machine there."""
    mirror = await net.host("mirror.corp.test", address="127.77.0.8", tls=False)
    net.names.say("anything.attacker.test", ["127.77.0.8"])
    named = f"mirror.corp.test:{mirror.port}"
    async with doors.open("anything.attacker.test:80", named, ceiling=f"*,{named}") as agent:
        answer = await agent.ask("GET http://anything.attacker.test/ HTTP/1.1\r\n\r\n")
        assert " 403 anything.attacker.test has an address that is not a public one" in answer
        assert (agent.ledger.opens, mirror.connected) == ([], 0)
        reader, writer = await agent.connected()
        writer.write(f"GET http://{named}/ HTTP/1.1\r\n\r\n".encode())
        assert (await reader.readexactly(9)) == b"heard GET"
        writer.close()


async def test_a_public_address_that_is_this_machines_own_is_refused(net: Internet, doors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its firewall keeps others from what listens there, and not this machine."""
    monkeypatch.setattr(addresses, "_SPECIAL", ())
    net.names.say("own.test", ["127.0.0.1"])
    async with doors.open("own.test") as agent:
        assert " 403 own.test has an address of this server's own machine" in await agent.ask("CONNECT own.test:443 HTTP/1.1\r\n\r\n")
    assert agent.ledger.opens == []
    assert [is_own(ip_address(text)) for text in ("127.0.0.1", "203.0.113.7", "2001:db8::7")] == [True, False, False]


async def test_an_address_that_the_operator_denies_is_reached_by_neither_wall(net: Internet, doors: Any) -> None:
    """Also where another setting would let it pass."""
    host = await net.host("denied.test", address="127.77.66.6", tls=False)
    async with doors.open(f"denied.test:{host.port}") as agent:
        answer = await agent.ask(f"CONNECT denied.test:{host.port} HTTP/1.1\r\n\r\n")
        assert " 403 denied.test has an address that this server's operator denies" in answer
        assert ((await agent.ledger.end()).reason, agent.ledger.opens) == (EgressReason.ADDRESS_FORBIDDEN, [])
    status, said = await asked_of_envoy(net, f"{host.address}:{host.port}")
    assert (status, "rbac_access_denied" in said, host.connected) == ("403", True, 0), said


async def test_the_address_that_was_looked_at_is_the_one_that_is_dialled(net: Internet, doors: Any) -> None:
    """DNS that changes its mind between two questions: there is only one question, and its answer is dialled."""
    host = await net.host("rebinding.test")
    inner = await net.host(address=PRIVATE, port=host.port, tls=False)
    net.names.say("rebinding.test", [PUBLIC], [PRIVATE])
    async with doors.open(f"rebinding.test:{host.port}") as agent:
        _, writer = await agent.tls("rebinding.test", host.port)
        writer.close()
        await agent.ledger.end()
        for number in (2, 3):
            with pytest.raises(ConnectionError, match=r"403 rebinding\.test has an address that is not a public one"):
                await agent.tls("rebinding.test", host.port)
            assert (await agent.ledger.end(number)).reason is EgressReason.ADDRESS_FORBIDDEN
    assert net.names.asked.count("rebinding.test") == 3, "each connection asks once, and anew"
    assert (host.connected, inner.connected) == (1, 0)


async def test_when_an_address_does_not_answer_only_another_of_the_same_answer_is_dialled(net: Internet, doors: Any) -> None:
    """Where Envoy resolves names, its filters see the first address of an answer, and the next is dialled when that one is down."""
    host = await net.host("two.test", address="127.77.0.3")
    inner = await net.host(address=PRIVATE, port=host.port, tls=False)
    async with doors.open(f"two.test:{host.port}") as agent:
        net.names.say("two.test", ["127.77.0.4", "127.77.0.3"])
        _, writer = await agent.tls("two.test", host.port)
        writer.close()
        net.names.say("two.test", ["127.77.0.4", PRIVATE])
        with pytest.raises(ConnectionError, match="403 "):
            await agent.tls("two.test", host.port)
        net.names.say("two.test", ["127.77.0.4"])
        with pytest.raises(ConnectionError, match=f"502 two.test:{host.port}: the connection was refused"):
            await agent.tls("two.test", host.port)
        await agent.ledger.end(3)
    (last,) = [end for end in agent.ledger.ends if end.reason is EgressReason.UNREACHABLE]
    assert (last.reason, last.denied, last.rule) == (EgressReason.UNREACHABLE, False, f"two.test:{host.port}")
    assert (host.connected, inner.connected) == (1, 0)


@pytest.mark.parametrize(
    "authority", [PRIVATE, "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:7f00:9]", "[fd00:ec2::254]", "[64:ff9b::7f00:9]"]
)
async def test_envoy_looks_at_the_address_once_more(net: Internet, authority: str) -> None:
    """The second wall, without the first: as if the door had been talked into it."""
    status, said = await asked_of_envoy(net, f"{authority}:443")
    assert (status, "rbac_access_denied" in said) == ("403", True), said
    with pytest.raises(NotDialled, match="the gateway refuses its address: TREADLE_EGRESS_NETWORKS"):
        await Proxy(net.proxy, net.credential).dial(ip_address(authority.strip("[]")), 443)


async def test_envoy_answers_to_the_servers_credential_alone_and_resolves_no_name(net: Internet) -> None:
    host = await net.host("by-name.test", tls=False)
    assert (await asked_of_envoy(net, f"{PUBLIC}:{host.port}"))[0] == "200"
    for target, credential in (
        (f"{PUBLIC}:{host.port}", ""),
        (f"{PUBLIC}:{host.port}", "Bearer other"),
        (f"by-name.test:{host.port}", None),
    ):
        assert (await asked_of_envoy(net, target, credential))[0] == "407"
    assert (await asked_of_envoy(net, "/", method="GET"))[0] == "407"
    assert "by-name.test" not in net.names.asked


async def asked_of_envoy(net: Internet, target: str, credential: str | None = None, method: str = "CONNECT") -> tuple[str, str]:
    reader, writer = await asyncio.open_unix_connection(net.proxy)
    shown = f"Bearer {net.credential}" if credential is None else credential
    host = target if method == "CONNECT" else "by-name.test"
    writer.write(f"{method} {target} HTTP/1.1\r\nhost: {host}\r\nproxy-authorization: {shown}\r\n\r\n".encode())
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    return head.split(" ")[1], head


async def test_a_tunnel_is_for_tls_and_for_the_host_that_it_was_asked_for(net: Internet, doors: Any) -> None:
    host = await net.host("named.test", "other.test")
    async with doors.open(f"named.test:{host.port}") as agent:
        with pytest.raises((ssl.SSLError, OSError)):
            await agent.tls("named.test", host.port, name="other.test")
        assert (await agent.ledger.end(1)).reason is EgressReason.WRONG_NAME
        assert agent.ledger.ends[0].denied
        first, reader, writer = await agent.tunnel(f"named.test:{host.port}")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        assert (first, await reader.read()) == ("HTTP/1.1 200 Connection established", b"")
        writer.close()
        assert (await agent.ledger.end(2)).reason is EgressReason.NOT_TLS
        _, reader, writer = await agent.tunnel(f"named.test:{host.port}")
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert (await agent.ledger.end(3)).reason is EgressReason.NOT_TLS
    assert (host.heard, [end.bytes_out for end in agent.ledger.ends]) == ([], [0, 0, 0]), "not a byte of it came through"


async def test_a_connection_ends_with_its_turn(net: Internet, doors: Any) -> None:
    host = await net.host("lasting.test")
    async with doors.open(f"lasting.test:{host.port}") as agent:
        reader, writer = await agent.tls("lasting.test", host.port)
        writer.write(b"hello")
        await reader.readexactly(11)
    with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(10):
            await reader.readexactly(1)
    writer.close()
    (ended,) = agent.ledger.ends
    assert (ended.reason, ended.denied) == (EgressReason.TURN_ENDED, False)
    assert ended.bytes_in > 100
    with pytest.raises(OSError):
        await agent.connected()


async def test_bytes_connections_and_silence_have_limits(net: Internet, doors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        except OSError:
            writer.close()

    monkeypatch.setattr(door, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.3)
    flooding = await net.host("flood.test", answer=flood)
    silent = await net.host("silent.test")
    async with doors.open(f"flood.test:{flooding.port}", f"silent.test:{silent.port}", egress_turn_mib=1) as agent:
        _, writer = await agent.tls("silent.test", silent.port)
        with pytest.raises(ConnectionError, match="429 this turn has too many connections open"):
            await agent.tls("silent.test", silent.port)
        assert (await agent.ledger.end(2)).reason is EgressReason.IDLE
        writer.close()
        reader, writer = await agent.tls("flood.test", flooding.port)
        with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
            await reader.readexactly(2 * 1024 * 1024)
        writer.close()
        cut = await agent.ledger.end(3)
        assert (cut.reason, cut.denied) == (EgressReason.TOO_MUCH, False)
        assert cut.bytes_in < 1.2 * 1024 * 1024
        with pytest.raises(ConnectionError, match="429 this turn has had all the bytes"):
            await agent.tls("silent.test", silent.port)


async def test_nothing_is_dialled_before_the_ledger_has_heard(net: Internet, doors: Any) -> None:
    host = await net.host("slow-ledger.test")
    async with doors.open(f"slow-ledger.test:{host.port}") as agent:
        told = asyncio.Event()
        agent.ledger.opened = lambda _: told.wait()
        tunnel = asyncio.create_task(agent.tls("slow-ledger.test", host.port))
        # Another one that is refused meanwhile shows that the door has come that far.
        with pytest.raises(ConnectionError):
            await agent.tls("elsewhere.test", 443)
        assert (host.connected, tunnel.done()) == (0, False)
        told.set()
        _, writer = await tunnel
        writer.close()


async def test_what_the_operator_does_not_allow_any_more_is_refused(net: Internet, doors: Any) -> None:
    async with doors.open("gone.test", "still.test", ceiling="still.test") as agent:
        answer = await agent.ask("CONNECT gone.test:443 HTTP/1.1\r\n\r\n")
        assert "403 gone.test is not allowed by this server any more (TREADLE_EGRESS_HOSTS)" in answer.splitlines()[0]
    async with doors.open("gone.test", egress_proxy="") as agent:
        assert " 403 " in await agent.ask("CONNECT gone.test:443 HTTP/1.1\r\n\r\n")


async def test_without_envoy_the_agent_hears_what_is_the_matter(net: Internet, doors: Any) -> None:
    host = await net.host("no-envoy.test")
    async with doors.open(f"no-envoy.test:{host.port}", egress_proxy="/nowhere/egress.sock") as agent:
        with pytest.raises(ConnectionError, match="this server's proxy"):
            await agent.tls("no-envoy.test", host.port)
    async with doors.open(f"no-envoy.test:{host.port}", egress_proxy_credential="wrong") as agent:
        with pytest.raises(ConnectionError, match="does not take TREADLE_EGRESS_PROXY_CREDENTIAL"):
            await agent.tls("no-envoy.test", host.port)
    async with doors.open("nameless.test") as agent:
        with pytest.raises(ConnectionError, match=r"502 nameless\.test has no address"):
            await agent.tls("nameless.test", 443)
        assert agent.ledger.ends[0].reason is EgressReason.NAME_UNKNOWN


async def test_what_was_only_begun_when_the_turn_ended_is_no_access(doors: Any) -> None:
    async with doors.open("a.packages.test") as agent:
        _, writer = await agent.connected()
        writer.write(b"CONNECT a.pack")
        with pytest.raises(ConnectionError):
            # By its answer the one before is there, too.
            await agent.tls("elsewhere.test", 443)
    writer.close()
    assert [each.host for each in agent.ledger.ends] == ["elsewhere.test"]


async def test_a_host_that_breaks_off_is_told_as_that(net: Internet, doors: Any) -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    host = await net.host("broken.test", answer=reset, tls=False)
    async with doors.open(f"broken.test:{host.port}") as agent:
        with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
            await agent.tls("broken.test", host.port)
        ended = await agent.ledger.end()
    assert (ended.denied, ended.reason) in [(False, None), (False, EgressReason.UNREACHABLE)]
    assert "defect" not in ended.message


async def test_an_agent_that_has_said_all_still_hears_the_answer(net: Internet, doors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said_all = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await said_all.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nanswer")
        await writer.drain()
        writer.close()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    host = await net.host("half.example.test", tls=False, answer=slow)
    quiet = await net.host("quiet.example.test", tls=False, answer=silent)
    async with doors.open(f"half.example.test:{host.port}", f"quiet.example.test:{quiet.port}") as agent:
        reader, writer = await agent.connected()
        writer.write(f"GET http://half.example.test:{host.port}/a HTTP/1.0\r\n\r\n".encode())
        writer.write_eof()
        # By its answer, the door has heard the end of the one before.
        with pytest.raises(ConnectionError):
            await agent.tls("elsewhere.test", 443)
        said_all.set()
        async with asyncio.timeout(20):
            assert (await reader.read()).endswith(b"answer")
        writer.close()
        ended = await agent.ledger.end(2)
        assert (ended.reason, ended.bytes_in > 40) == (None, True)
        # Nobody answers, and nobody knows whether anybody still waits.
        monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.2)
        reader, writer = await agent.connected()
        writer.write(f"GET http://quiet.example.test:{quiet.port}/a HTTP/1.0\r\n\r\n".encode())
        writer.write_eof()
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()
        assert (await agent.ledger.end(3)).reason is None


async def test_one_after_the_other_at_a_pace(doors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that knocks as fast as it can waits; what waits has not been taken, so nothing is kept from the ledger."""
    monkeypatch.setattr(door, "BURST", 3)
    monkeypatch.setattr(door, "PER_SECOND", 0.001)
    async with doors.open("a.packages.test") as agent:
        knocks = [await agent.connected() for _ in range(20)]
        for _, writer in knocks:
            writer.write(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
        for reader, _ in knocks[:3]:
            async with asyncio.timeout(20):
                assert b" 403 " in await reader.read()
    assert len(agent.ledger.ends) == 3
    for reader, writer in knocks[3:]:
        with pytest.raises(OSError):
            async with asyncio.timeout(20):
                assert await reader.read()
                raise AssertionError("it was answered")
        writer.close()
    for _, writer in knocks[:3]:
        writer.close()


def test_a_pace_is_so_many_at_once_and_so_many_a_second() -> None:
    now = 100.0
    pace = Pace(2, 10.0, lambda: now)
    pace.take()
    assert pace.seconds() == 0
    pace.take()
    assert pace.seconds() == pytest.approx(0.1)
    now += 0.15
    assert pace.seconds() == 0
    pace.take()
    assert pace.seconds() == pytest.approx(0.05)
    now += 1000
    for _ in range(2):
        assert pace.seconds() == 0
        pace.take()
    assert pace.seconds() == pytest.approx(0.1)


async def test_more_than_can_be_told_that_they_are_too_many_wait(net: Internet, doors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed without a word, they would be connections that nobody hears of."""
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(door, "_MAX_REFUSALS", 0)
    host = await net.host("one.test")
    async with doors.open(f"one.test:{host.port}") as agent:
        first, _, writer = await agent.tunnel(f"one.test:{host.port}")
        assert " 200 " in first
        waiting = asyncio.create_task(agent.ask("CONNECT elsewhere.test:443 HTTP/1.1\r\n\r\n"))
        # It has connected and asked by now, or will: either way it is answered when the first has gone, and not before.
        while not waiting.done() and not agent.ledger.ends:
            await asyncio.sleep(0)
            writer.close()
        assert " 403 " in await waiting
        assert [end.host for end in agent.ledger.ends] == ["one.test", "elsewhere.test"]
