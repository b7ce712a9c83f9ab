"""The spin before the sleep: when there is one, and that it is a selector like any other."""

from __future__ import annotations

import os
import selectors
import threading
from typing import TYPE_CHECKING

import pytest

from snex._eval import wait
from snex._eval.wait import SpinningSelector, new_selector, spin_pure

try:
    from snex._etf._native import spin
except ImportError:
    # The sources alone have no extension.
    spin = spin_pure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPIN = 100e-6
# Real seconds of a wait in which nothing comes.
NOTHING = 1e-4


class Clock:
    """A clock that goes on by a step whenever somebody looks, and counts the rounds of spins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.step = SPIN / 10
        self.rounds = 0
        monkeypatch.setattr(wait, "spin", wait.spin_pure)
        monkeypatch.setattr(wait, "perf_counter", self.read)
        monkeypatch.setattr(wait, "_yield", self.count)

    def read(self) -> float:
        self.now += self.step
        return self.now

    def count(self) -> None:
        self.rounds += 1

    def spins(self, selector: SpinningSelector) -> bool:
        before = self.rounds
        assert selector.select(NOTHING) == []
        return self.rounds > before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def selector() -> Iterator[SpinningSelector]:
    with SpinningSelector(SPIN) as selector:
        yield selector


@pytest.mark.parametrize("look", [spin, spin_pure])
def test_a_spin_ends_with_an_event_or_in_vain(look: Callable[[int, float], bool]) -> None:
    reader, writer = os.pipe()
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        assert not look(selector.fileno(), NOTHING)
        other = threading.Thread(target=os.write, args=(writer, b"x"))
        # Other threads run meanwhile: this one starts, writes and ends.
        other.start()
        assert look(selector.fileno(), 60.0)
        other.join()
        assert look(selector.fileno(), 60.0)
    os.close(reader)
    os.close(writer)


def test_a_spin_at_nothing_ends_at_once() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    assert spin(reader, 5.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_spin_takes_no_time_that_is_not_there(seconds: float) -> None:
    with selectors.DefaultSelector() as selector:
        assert not spin(selector.fileno(), seconds)


def test_the_first_wait_is_a_sleep_and_a_short_one_earns_a_spin(
    clock: Clock, selector: SpinningSelector
) -> None:
    assert [clock.spins(selector) for _ in range(2)] == [False, True]


def test_a_spin_in_vain_takes_ever_more_short_waits_to_earn_the_next(
    clock: Clock, selector: SpinningSelector
) -> None:
    seen = "".join("x" if clock.spins(selector) else "." for _ in range(45))
    assert seen.startswith(".x.x..x....x........x........x........x")


def test_long_waits_earn_nothing(clock: Clock, selector: SpinningSelector) -> None:
    clock.step = 1.0
    assert not any(clock.spins(selector) for _ in range(10))
    clock.step = SPIN / 10
    assert [clock.spins(selector) for _ in range(2)] == [False, True]


def test_one_that_sees_an_event_keeps_the_price_low(
    clock: Clock, selector: SpinningSelector, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    selector.register(reader, selectors.EVENT_READ)
    while not clock.spins(selector):
        pass
    while not clock.spins(selector):
        pass
    assert [clock.spins(selector) for _ in range(3)] == [False, False, True]
    for _ in range(4):
        selector.select(NOTHING)
    # In the middle of the spin.
    monkeypatch.setattr(wait, "_yield", lambda: os.write(writer, b"x"))
    for _ in range(3):
        [(key, events)] = selector.select(None)
        assert (key.fd, events) == (reader, selectors.EVENT_READ)
        os.read(reader, 100)
    monkeypatch.setattr(wait, "_yield", clock.count)
    assert [clock.spins(selector) for _ in range(3)] == [True, False, True]
    os.close(reader)
    os.close(writer)


def test_without_time_to_wait_it_polls_once(clock: Clock, selector: SpinningSelector) -> None:
    clock.spins(selector)
    now = clock.now
    assert selector.select(0) == []
    assert selector.select(-1) == []
    assert clock.now == now


def test_no_time_means_no_spin(clock: Clock) -> None:
    with SpinningSelector(0) as selector:
        assert not any(clock.spins(selector) for _ in range(5))


@pytest.mark.parametrize(
    ("value", "seconds"), [("", SPIN), ("0", 0.0), ("20", 20e-6), ("1000", 1e-3)]
)
def test_the_environment_says_how_long(
    monkeypatch: pytest.MonkeyPatch, value: str, seconds: float
) -> None:
    monkeypatch.setattr(wait, "_processors", lambda: 2)
    monkeypatch.setenv("SNEX_SPIN", value)
    with new_selector() as selector:
        assert vars(selector)["_time"] == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["fast", "-1", "1001", "nan", "1e9"])
def test_nonsense_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SNEX_SPIN", value)
    with pytest.raises(RuntimeError, match=f"SNEX_SPIN: expected .* got '{value}'"):
        new_selector()


def test_a_single_processor_is_left_to_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_processors", lambda: 1)
    with new_selector() as selector:
        assert vars(selector)["_time"] == 0
