from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from support.vm import EVAL, VM, PythonError

from snex._eval.overload import Durations, now, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW = "import time; time.sleep(0.05)"
SECOND = 1_000_000_000


@pytest.fixture
def vm() -> Iterator[VM]:
    with VM() as vm:
        vm.ready()
        yield vm


def run(vm: VM, source: str, left: float, timeout: float) -> object:
    """Evaluate for a caller that gives up in `left` seconds, of `timeout` that it had."""
    until = round((now() + left) * SECOND)
    fields = (0, source, None, 1, {"x": source}, (until, round(timeout * SECOND)))
    return vm.reply(vm.request(EVAL, fields))


def test_a_call_that_has_waited_too_long_is_refused_and_leaves_no_trace(vm: VM) -> None:
    run(vm, SLOW, 100, 100)
    with pytest.raises(PythonError) as caught:
        run(vm, SLOW, 0.01, 100)
    assert caught.value.fields["code"] == "overloaded"
    # It may have been on its way for longer than its last 10 ms.
    waited = re.search(r"has waited (\d+) of its 100000 ms", caught.value.fields["reason"])
    assert waited is not None
    assert int(waited[1]) >= 99_990
    run(vm, SLOW, 100, 100)
    with pytest.raises(PythonError):
        run(vm, f"y = 1; {SLOW}", 0.01, 100)
    assert vm.run("return (x, 'y' in globals())") == (SLOW.encode(), False)


def test_code_that_takes_long_does_not_speak_for_code_that_does_not(vm: VM) -> None:
    # What is left has to be less than that takes, and enough on a machine that is busy.
    slow = "import time; time.sleep(0.5)"
    assert run(vm, "return 1", 100, 100) == 1
    for _ in range(3):
        run(vm, slow, 100, 100)
    with pytest.raises(PythonError, match="has waited"):
        run(vm, slow, 0.4, 100)
    assert run(vm, "return 1", 0.4, 100) == 1


def test_a_call_whose_time_was_never_enough_is_begun(vm: VM) -> None:
    run(vm, SLOW, 100, 100)
    assert run(vm, SLOW, 0.01, 0.02) is None


def test_code_that_awaits_is_begun(vm: VM) -> None:
    source = f"{SLOW}; await __import__('asyncio').sleep(0)"
    run(vm, source, 100, 100)
    run(vm, SLOW, 100, 100)
    assert run(vm, source, 0.01, 100) is None


def test_without_a_deadline_nothing_is_refused(vm: VM) -> None:
    vm.run(SLOW)
    assert vm.run(SLOW) is None


def test_the_estimate_follows_what_calls_take() -> None:
    durations = Durations()
    assert not durations.likely
    for _ in range(50):
        durations.add(0.1)
    assert durations.likely == pytest.approx(0.1)
    durations.add_interrupted(0.05)
    assert durations.likely == pytest.approx(0.1)
    durations.add_interrupted(1.0)
    assert durations.likely > 0.2


@pytest.mark.parametrize("capacity", [0.1, 0.01])
@pytest.mark.parametrize("load", [1.2, 2.0, 10.0])
def test_goodput_under_overload_stays_near_capacity(capacity: float, load: float) -> None:
    # A model in simulated time: each call takes `capacity` seconds, give or take a tenth.
    durations = Durations()
    clock, answered, calls, timeout = 0.0, 0, 3000, 10 * capacity
    for number in range(calls):
        arrival = number * capacity / load
        clock = max(clock, arrival)
        until = arrival + timeout
        if refusal(int(until * SECOND), int(timeout * SECOND), durations.likely, clock):
            continue
        took = capacity * (0.9 + number * 7 % 11 / 50)
        if clock + took <= until:
            answered += 1
            clock += took
            durations.add(took)
        elif clock < until:
            durations.add_interrupted(until - clock)
            clock = until
    possible = min(calls, clock / capacity)
    assert answered >= 0.9 * possible


def test_the_clock_is_that_of_the_machine() -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert before <= now() <= time.clock_gettime(time.CLOCK_MONOTONIC)
