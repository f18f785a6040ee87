"""docs/seal.md says what a run of the seal's tests found, and that run had every attack."""

from __future__ import annotations

import pytest
from support import seal
from support.attacks import ATTACKS, CONTROLS, OUTSIDE, SEEN_BY
from support.door_attacks import ATTACKS as DOOR_ATTACKS

ANEW = "run them and write it anew: cd tests && ../.venv/bin/python -m support.seal (with --page: from the record)"


def test_the_page_is_what_the_run_found() -> None:
    assert seal.PAGE.read_text() == seal.page(seal.recorded()), ANEW


@pytest.mark.parametrize("kind", seal.KINDS)
def test_the_run_had_every_attack_and_each_failed(kind: str) -> None:
    outcomes = seal.recorded()["workers"][kind]
    assert {*outcomes} == {*ATTACKS}, ANEW
    assert {attack: outcome for attack, outcome in outcomes.items() if outcome not in seal.expected(attack, kind)} == {}


@pytest.mark.parametrize("kind", seal.DOOR_KINDS)
def test_the_run_had_every_attack_on_the_door(kind: str) -> None:
    assert seal.recorded()["workers"][kind] == {attack: wanted for attack, (_, wanted) in DOOR_ATTACKS.items()}, ANEW


def test_every_test_that_it_names_passed_in_that_run() -> None:
    assert seal.missing() == []
    assert seal.recorded()["passed"] == sorted({f"{file}::{test}" for _, file, test in seal.ELSEWHERE.values()}), ANEW


def test_every_attack_that_looks_at_something_is_known_to_see() -> None:
    looks = {attack for attack, (_, *walls) in ATTACKS.items() if any("refused" in wall for wall in walls)}
    assert looks == {*SEEN_BY}
    assert {*SEEN_BY.values()} <= {*CONTROLS}
    assert {*OUTSIDE} <= {*ATTACKS}
