"""The two forms of the list of system calls say the same, on every machine."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from server.sandbox import calls
from server.sandbox.probe import Unavailable, probe

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS = "allow", "kill", 1, 38
RESULTS = {0x7FFF0000: ALLOW, 0x80000000: KILL, 0x00050000 | EPERM: EPERM, 0x00050000 | ENOSYS: ENOSYS}
MOVED = 0xC028660F
TRIED = (
    (), (1,), (2,), (10,), (16,), (16, 0, 9), (40,), (38,), (17,), (0x10000000,), (0x1200011,), (0xFFFFFFFF,), (0x40000,), (8,),
    (3, MOVED), (3, 0x5401),
)  # fmt: skip


def ran(program: bytes, machine: int, number: int, arguments: tuple[int, ...] = ()) -> object:
    """What the kernel would make of it: classic BPF over struct seccomp_data."""
    data = struct.pack("<IIQ6Q", number, machine, 0, *(*arguments, *[0] * 6)[:6])
    steps = list(struct.iter_unpack("=HBBI", program))
    at = held = 0
    while True:
        code, if_so, if_not, value = steps[at]
        at += 1
        if code == 0x20:
            (held,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            held &= value
        elif code == 0x06:
            return RESULTS[value]
        else:
            assert code in (0x15, 0x35)
            at += if_so if (held == value if code == 0x15 else held >= value) else if_not


def judged(profile: Mapping[str, Any], name: str, arguments: tuple[int, ...]) -> object:
    """What an engine would make of it."""
    given = (*arguments, *[0] * 6)

    def holds(rule: Mapping[str, Any]) -> bool:
        if rule["op"] == "SCMP_CMP_EQ":
            return bool(given[rule["index"]] == rule["value"])
        assert rule["op"] == "SCMP_CMP_MASKED_EQ"
        return bool(given[rule["index"]] & rule["value"] == rule["valueTwo"])

    for rule in profile["syscalls"]:
        if name in rule["names"] and all(map(holds, rule.get("args", ()))):
            return ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else rule["errnoRet"]
    return EPERM


def numbered(machine: str) -> Iterator[tuple[str, int]]:
    for name, x86, arm in calls._calls():
        number = x86 if machine == "x86_64" else arm
        if number is not None:
            yield name, number


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_and_the_profile_say_the_same(machine: str) -> None:
    program, profile = calls.program(machine), json.loads(calls.profile())
    for name, number in numbered(machine):
        for arguments in TRIED:
            assert ran(program, MACHINES[machine], number, arguments) == judged(profile, name, arguments), (name, arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_refused(machine: str) -> None:
    program, at = calls.program(machine), dict(numbered(machine))
    said = {name: ran(program, MACHINES[machine], number) for name, number in at.items()}
    assert (said["read"], said["execve"], said["clone"], said["clone3"], said["keyctl"]) == (ALLOW, ALLOW, ALLOW, ENOSYS, EPERM)
    families = [family for family in range(64) if ran(program, MACHINES[machine], at["socket"], (family,)) == ALLOW]
    assert families == [1, 2, 10, 16]
    assert ran(program, MACHINES[machine], at["socket"], (16, 3, 9)) == EPERM
    assert ran(program, MACHINES[machine], max(at.values()) + 1) == ENOSYS
    assert ran(program, MACHINES[machine], 0x40000000 | at["socket"], (40,)) == ENOSYS
    assert ran(program, 0x40000003, at["read"]) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_of_ioctls_one_is_refused_whatever_surrounds_its_number(machine: str) -> None:
    number = dict(numbered(machine))["ioctl"]
    program, tried = calls.program(machine), (*range(0x10000), MOVED, 1 << 32 | MOVED)
    said = {each: ran(program, MACHINES[machine], number, (3, each)) for each in tried}
    assert {each for each, result in said.items() if result != ALLOW} == {0x660F, MOVED, 1 << 32 | MOVED}
    assert {*said.values()} == {ALLOW, EPERM}


def test_every_refused_call_is_one() -> None:
    assert not {*calls._REFUSED, *calls._ABSENT, *calls._ONLY_IF} - {name for name, *_ in calls._calls()}


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        (0x06, r"system calls are allowed inside .* socket\(AF_VSOCK\), io_uring_setup", "none is known"),
        (0x63, "seccomp", "SECCOMP_FILTER"),
    ],
)
def test_a_sandbox_without_the_filter_is_not_believed(monkeypatch: pytest.MonkeyPatch, code: int, reason: str, remedy: str) -> None:
    """One that lets all pass, and one that the kernel does not take."""
    monkeypatch.setattr(calls, "program", lambda: struct.pack("=HBBI", code, 0, 0, 0x7FFF0000))
    verdict = probe.__wrapped__()
    assert isinstance(verdict, Unavailable)
    assert re.search(reason, verdict.reason, re.IGNORECASE)
    assert remedy in verdict.remedy


def test_a_machine_without_a_table_has_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "program", lambda: b"")
    verdict = probe.__wrapped__()
    assert isinstance(verdict, Unavailable)
    assert "no filter of system calls" in verdict.reason
