"""The rules of who may be called."""

from __future__ import annotations

import pytest

from server.kernel.egress import HostRules, is_name, parse_ceiling, parse_rules


@pytest.mark.parametrize(
    ("rules", "host", "port", "found"),
    [
        ("index.test", "index.test", 443, "index.test"),
        ("index.test", "index.test", 80, None),
        ("index.test:80", "index.test", 80, "index.test:80"),
        ("index.test:80", "index.test", 443, None),
        ("index.test", "a.index.test", 443, None),
        ("index.test", "evilindex.test", 443, None),
        ("*.registry.test", "a.registry.test", 443, "*.registry.test"),
        ("*.registry.test", "a.b.registry.test", 443, "*.registry.test"),
        ("*.registry.test", "registry.test", 443, None),
        ("*.registry.test", "evilregistry.test", 443, None),
        ("*.registry.test", "registry.test.evil.test", 443, None),
        ("a.test,b.test:8443", "b.test", 8443, "b.test:8443"),
    ],
)
def test_what_a_rule_lets_pass(rules: str, host: str, port: int, found: str | None) -> None:
    rule = parse_rules(rules.split(",")).find(host, port)
    assert (str(rule) if rule else None) == found


@pytest.mark.parametrize(
    ("ceiling", "rule", "covered"),
    [
        ("*", "index.test", True),
        ("*", "*.index.test:80", True),
        ("*", "index.test:8443", False),
        ("*,index.test:8443", "index.test:8443", True),
        ("*.index.test", "*.index.test", True),
        ("*.index.test", "*.a.index.test", True),
        ("*.index.test", "a.index.test", True),
        ("*.index.test", "index.test", False),
        ("*.index.test", "*.org.test", False),
        ("a.index.test", "*.index.test", False),
        ("a.index.test", "*.a.index.test", False),
        ("index.test", "index.test:80", False),
        ("", "index.test", False),
    ],
)
def test_what_an_operator_covers(ceiling: str, rule: str, covered: bool) -> None:
    (asked,) = parse_rules([rule]).rules
    assert parse_ceiling(ceiling).covers(asked) is covered
    assert bool(parse_rules([rule]).within(parse_ceiling(ceiling))) is covered


def test_rules_have_one_form() -> None:
    assert str(parse_rules([" Index.test", "index.test:443", "*.Registry.test:0080"])) == "index.test, *.registry.test:80"
    assert str(parse_ceiling(" *, a.test ,")) == "*, a.test"
    assert not HostRules()


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "localhost", "*.org", "a..b", ".a.b", "a.b.", "-a.b", "a_b", "a.*.b", "*.*.b", "a b.c", "a.b\x00", "ä.b"),
        *("https://a.b", "a.b/c", "a.b:0", "a.b:65536", "a.b:x", "a.b:", "a.b:１", "a" * 64 + ".b", "a." * 130 + "b"),
        *("a.b:0000019999999", "a.b:1" + "0" * 5000, "\u212aernel.org"),
        *("127.0.0.1", "*.0.0.1", "0x7f.1", "1.0x", "[::1]", "::1"),
    ],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not the name of a host|has no port"):
        parse_rules([text])
    assert not is_name(text)
