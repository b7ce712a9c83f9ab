"""Promises about maps: a call for each element, and an answer after a slice of time."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from support.vm import AUTO, OBJECT, THREAD, VM, dumps, text

if TYPE_CHECKING:
    from collections.abc import Iterable

MAP = 0x0D
PLACES = [0, THREAD]


def slice_of(vm: VM, seconds: float) -> None:
    vm.run(f"from snex._eval import maps\nmaps._SLICE = {seconds}")


@pytest.fixture(autouse=True)
def all_at_once(vm: VM) -> None:
    """Have a machine that pauses not end a slice."""
    slice_of(vm, 60)


def send(  # noqa: PLR0913 - the fields of the frame
    vm: VM,
    function: str,
    elements: Iterable[Any],
    *,
    unpack: bool = False,
    flags: int = 0,
    root: Any = None,
    **keywords: Any,
) -> int:
    """Send a MAP; return the number of the request."""
    return vm.request(MAP, (0, root, function, (list(elements), unpack), keywords), flags)


def ask(vm: VM, function: str, elements: Iterable[Any], **more: Any) -> tuple[int, list[Any]]:
    """Return how many calls fit into a slice, and the results of those that have been made: values, and errors as dicts of text."""
    fit, runs = vm.reply(send(vm, function, elements, **more))
    results: list[Any] = []
    for run in runs:
        results += run if type(run) is list else [text(run)]
    return fit, results


def reasons(results: list[Any]) -> list[Any]:
    return [result["reason"] if type(result) is dict else result for result in results]


@pytest.mark.parametrize("place", PLACES)
def test_each_element_is_the_argument_of_a_call(vm: VM, place: int) -> None:
    assert ask(vm, "abs", [-1, 2, -3], flags=place)[1] == [1, 2, 3]
    assert ask(vm, "pow", [(2, 3), [2, 4]], unpack=True, flags=place)[1] == [8, 16]
    assert ask(vm, "int", ["ff", "10"], base=16, flags=place)[1] == [255, 16]
    assert ask(vm, "basename", ["a/b"], root="os.path", flags=place)[1] == [b"b"]


@pytest.mark.parametrize("place", PLACES)
def test_fast_calls_are_made_all_at_once(vm: VM, place: int) -> None:
    fit, results = ask(vm, "abs", range(300), flags=place)
    assert results == list(range(300))
    assert fit > 300


@pytest.mark.parametrize("place", PLACES)
def test_a_slow_call_ends_the_slice(vm: VM, place: int) -> None:
    slice_of(vm, 0.005)
    vm.run("import time\ndef slow(x):\n    time.sleep(0.02)\n    return x")
    fit, results = ask(vm, "slow", range(50), flags=place)
    assert (fit, results) == (1, [0])
    vm.run("import asyncio\nasync def later(x):\n    await asyncio.sleep(0.02)\n    return x")
    fit, results = ask(vm, "later", range(50), flags=place)
    assert (fit, results) == (1, [0])


def test_so_do_large_results(vm: VM) -> None:
    vm.run("def large(x): return bytes(100_000)")
    fit, results = ask(vm, "large", range(50))
    assert 1 <= len(results) <= 3
    assert fit == len(results)
    assert ask(vm, "bytes", [1_000_000, 1])[1] == [bytes(1_000_000)]


@pytest.mark.parametrize("place", PLACES)
def test_an_error_is_that_of_one_call(vm: VM, place: int) -> None:
    vm.run("def f(x):\n    if x % 2: raise ValueError(x)\n    return [x]")
    _, results = ask(vm, "f", range(6), flags=place)
    assert reasons(results) == [[0], "1", [2], "3", [4], "5"]
    assert results[1]["code"] == "python_runtime_error"
    assert results[1]["exception"]["type"] == "ValueError"
    assert [line for line in results[1]["traceback"] if "maps.py" in line] == []
    vm.run("async def g(x):\n    import asyncio\n    await asyncio.sleep(0)\n    return f(x)")
    _, results = ask(vm, "g", range(3), flags=place)
    assert reasons(results) == [[0], "1", [2]]


@pytest.mark.parametrize(
    "name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "snex.Cancelled"]
)
@pytest.mark.parametrize("place", PLACES)
def test_any_exception_is(vm: VM, name: str, place: int) -> None:
    vm.run(f"import snex\ndef f(x):\n    if x == 1: raise {name}\n    return x")
    assert reasons(ask(vm, "f", range(3), flags=place)[1]) == [0, "", 2]
    assert ask(vm, "abs", [1])[1] == [1]


def test_a_function_that_is_not_there_is_the_error_of_each_call(vm: VM) -> None:
    _, results = ask(vm, "math.sqr", range(3))
    assert len(results) == 3
    assert all("'math.sqr' leads nowhere" in reason for reason in reasons(results))


def test_a_result_is_encoded_before_the_next_call(vm: VM) -> None:
    vm.run("seen = []\ndef f(x):\n    seen.append(x)\n    return seen")
    assert ask(vm, "f", range(3))[1] == [[0], [0, 1], [0, 1, 2]]
    vm.run("import weakref\ndef g(x): return x if x % 2 else {x: [x]}")
    assert ask(vm, "g", range(4))[1] == [{0: [0]}, 1, {2: [2]}, 3]


def test_a_result_that_has_no_form_in_elixir_is_an_error(vm: VM) -> None:
    vm.run("def f(x): return object() if x == 2 else '\\ud800' if x == 4 else x")
    _, results = ask(vm, "f", range(6))
    assert [type(result) is dict for result in results] == [False, False, True, False, True, False]
    assert results[2]["reason"].startswith("Cannot serialize object of <class 'object'>")
    assert results[4]["exception"]["type"] == "UnicodeEncodeError"


def test_objects_have_their_places_in_one_table(vm: VM) -> None:
    vm.run("class C: pass\ndef f(x): return [C(), x, C()] if x % 2 else x")
    number = send(vm, "f", range(4), flags=AUTO)
    _, runs = vm.reply(number)
    handles = vm.handles(number)
    assert len(set(handles)) == 4
    values = [value for run in runs for value in run]
    assert [values[0], values[2]] == [0, 2]
    places = [values[n][index][1] for n in (1, 3) for index in (0, 2)]
    assert places == [0, 1, 2, 3]
    number = send(vm, "abs", range(3), flags=OBJECT)
    _, runs = vm.reply(number)
    assert [value[1] for run in runs for value in run] == [0, 1, 2]
    assert len(set(vm.handles(number))) == 3


def test_the_part_of_a_result_that_could_be_encoded_hands_out_nothing(vm: VM) -> None:
    vm.run("class C: pass\ndef f(x): return [C(), '\\ud800'] if x == 1 else [C()]")
    number = send(vm, "f", range(3), flags=AUTO)
    _, runs = vm.reply(number)
    places = [run[0][0][1] for run in runs if type(run) is list]
    assert places == [0, 1]
    assert len(vm.handles(number)) == 2


def test_a_body_that_cannot_be_loaded_calls_nothing(vm: VM) -> None:
    vm.run("calls = []")
    good = pickle.dumps((0, None, "calls.append", ([1, 2], False), {}), 4)
    # A memo that is not there.
    bad = good.replace(b"K\x02", b"h\x63")
    assert bad != good
    number = vm.next_id
    vm.next_id += 1
    vm.send(MAP, number, bad)
    fit, runs = vm.reply(number)
    assert fit == 0
    (error,) = runs
    assert text(error)["code"] == "python_runtime_error"
    assert vm.run("return calls") == []


def test_an_environment_that_is_gone_is_the_error_of_all(vm: VM) -> None:
    number = vm.request(MAP, (99, None, "abs", ([1], False), {}))
    with pytest.raises(Exception, match="99"):
        vm.reply(number)


@pytest.mark.parametrize("place", PLACES)
def test_what_can_be_awaited_is_awaited_before_the_next_call(vm: VM, place: int) -> None:
    vm.run(
        "import asyncio\n"
        "order = []\n"
        "async def f(x):\n"
        "    order.append(('in', x))\n"
        "    await asyncio.sleep(0)\n"
        "    order.append(('out', x))\n"
        "    return x\n"
        "def g(x): return f(x) if x % 2 else x"
    )
    _, results = ask(vm, "f", range(3), flags=place)
    assert results == [0, 1, 2]
    assert vm.run("return order") == [(way, n) for n in range(3) for way in (b"in", b"out")]
    assert ask(vm, "g", range(4), flags=place)[1] == [0, 1, 2, 3]


def test_a_map_that_is_cancelled_is_not_answered(vm: VM) -> None:
    vm.run(
        "import asyncio\ncalls = []\nasync def f(x):\n    calls.append(x)\n    await asyncio.Event().wait()"
    )
    number = send(vm, "f", range(3))
    while vm.run("return calls") != [0]:
        pass
    vm.cancel(number)
    assert vm.run("return calls") == [0]


def test_one_that_is_cancelled_before_it_has_begun_to_await_leaves_no_coroutine(vm: VM) -> None:
    vm.run(
        "import warnings, gc\nseen = []\n"
        "warnings.showwarning = lambda *args: seen.append(str(args[0]))\n"
        "async def f(x): pass"
    )
    body = dumps((0, None, "f", ([1, 2], False), {}))
    number = vm.next_id
    vm.next_id += 1
    # Both arrive at once.
    vm.send(MAP, number, body)
    vm.cancel(number)
    assert vm.run("gc.collect()\nreturn seen") == []


def test_context_variables_stay_for_later_calls(vm: VM) -> None:
    vm.run(
        "import contextvars\nv = contextvars.ContextVar('v', default=0)\n"
        "def f(x):\n    v.set(v.get() + 1)\n    return v.get()"
    )
    assert ask(vm, "f", range(2))[1] == [1, 2]
    assert ask(vm, "f", range(2), flags=THREAD)[1] == [3, 4]
    assert ask(vm, "f", range(1))[1] == [5]


@pytest.mark.parametrize("count", [1, 3])
def test_without_memory_the_interpreter_answers_and_ends(count: int) -> None:
    with VM(hello={"end_on_memory_error": True}) as vm:
        vm.run("def f(x):\n    if x == 1: raise MemoryError\n    return x")
        _, results = ask(vm, "f", range(1, 1 + count))
        assert len(results) == 1
        assert results[0]["exception"]["type"] == "MemoryError"
        assert vm.wait() == 79
