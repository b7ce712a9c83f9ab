"""Promises about context variables, over real pipes."""

from __future__ import annotations

import weakref
from contextvars import ContextVar, copy_context

import pytest
from support.garbage import collect_until, in_a_thread, keep_collecting
from support.vm import EVAL, VM, PythonError, wait_until

from snex._eval.contexts import merge

VARIABLE = "import contextvars\nv = contextvars.ContextVar('v', default=0)\n"
THIRD = "import decimal\nreturn str(decimal.Decimal(1) / 3)"


def test_what_the_init_script_sets_is_set_in_every_call(vm: VM) -> None:
    vm.run(VARIABLE + "v.set(1)")
    vm.make_env(1, [], {})
    assert vm.run("return v.get()", 1) == 1
    assert vm.run("return v.get()", None) == 1
    assert vm.run("import asyncio\nawait asyncio.sleep(0)\nreturn v.get()", 1) == 1
    assert vm.run("import asyncio\nreturn await asyncio.to_thread(v.get)", 1) == 1


def test_the_decimal_context_of_the_init_script_counts_in_every_call(vm: VM) -> None:
    vm.run("import decimal\ndecimal.getcontext().prec = 5")
    vm.make_env(1, [], {})
    assert vm.run(THIRD, 1) == b"0.33333"
    assert vm.run(THIRD, None) == b"0.33333"
    assert vm.run("import asyncio\nawait asyncio.sleep(0)\n" + THIRD, 1) == b"0.33333"


@pytest.mark.parametrize("wait", ["", "import asyncio\nawait asyncio.sleep(0)\n"])
def test_what_a_call_sets_is_set_in_later_calls_of_that_environment_alone(
    vm: VM, wait: str
) -> None:
    vm.run(VARIABLE + "v.set(1)")
    vm.make_env(1, [], {})
    vm.make_env(2, [], {})
    assert vm.run(wait + "v.set(2)\n" + wait + "return v.get()", 1) == 2
    assert vm.run(wait + "return v.get()", 1) == 2
    assert vm.run(wait + "return v.get()", 2) == 1
    assert vm.run(wait + "v.set(3)\nreturn v.get()", None) == 3
    assert vm.run(wait + "return v.get()", None) == 1


def test_a_call_that_fails_leaves_what_it_has_set(vm: VM) -> None:
    vm.run(VARIABLE)
    for code in ("v.set(5)\n1/0", "import asyncio\nawait asyncio.sleep(0)\nv.set(6)\n1/0"):
        with pytest.raises(PythonError):
            vm.run(code)
        assert vm.run("return v.get()") == (5 if code.startswith("v") else 6)


def test_concurrent_calls_do_not_see_each_others_changes(vm: VM) -> None:
    vm.run(VARIABLE + "import asyncio, decimal\ngo = asyncio.Event()\nv.set(1)")
    slow = vm.eval("v.set(2)\ndecimal.getcontext().prec = 7\nawait go.wait()\n" + THIRD)
    assert vm.run("return v.get()") == 1
    assert vm.run("decimal.getcontext().prec = 3\n" + THIRD) == b"0.333"
    vm.run("v.set(3)\ngo.set()")
    assert vm.reply(slow) == b"0.3333333"


def test_of_concurrent_calls_the_last_one_to_end_wins(vm: VM) -> None:
    vm.run(VARIABLE + "w = contextvars.ContextVar('w', default=0)\nu = contextvars.ContextVar('u')")
    vm.run("import asyncio\ngo = asyncio.Event()")
    first = vm.eval("v.set('first')\nw.set('first')\nawait go.wait()")
    vm.run("v.set('second')\nu.set('second')\ngo.set()")
    vm.reply(first)
    assert vm.run("return v.get(), w.get(), u.get()") == (b"first", b"first", b"second")


def test_a_call_that_only_calculates_overwrites_no_decimal_context(vm: VM) -> None:
    vm.run("import asyncio, decimal\ngo = asyncio.Event()\ndecimal.getcontext().prec = 9")
    first = vm.eval("x = decimal.Decimal(1) / 3\nawait go.wait()\nx = decimal.Decimal(2) / 3")
    vm.run("decimal.getcontext().prec = 4\ngo.set()")
    vm.reply(first)
    assert vm.run(THIRD) == b"0.3333"


def test_the_decimal_context_of_an_environment_is_its_own(vm: VM) -> None:
    vm.run("import decimal\ndecimal.getcontext().prec = 5")
    vm.make_env(1, [], {})
    vm.make_env(2, [], {})
    assert vm.run("decimal.getcontext().prec = 3\n" + THIRD, 1) == b"0.333"
    assert vm.run("decimal.getcontext().prec = 4\n" + THIRD, None) == b"0.3333"
    assert vm.run(THIRD, 1) == b"0.333"
    assert vm.run(THIRD, 2) == b"0.33333"
    assert vm.run(THIRD, 0) == b"0.33333"


def test_a_copied_environment_has_the_context_of_its_sources(vm: VM) -> None:
    vm.run(VARIABLE + "w = contextvars.ContextVar('w', default=0)\nv.set('root')")
    vm.make_env(1, [], {})
    vm.run("v.set('one')\nw.set('one')", 1)
    vm.make_env(2, [], {})
    vm.run("v.set('two')", 2)
    look = "return v.get(), w.get()"
    for number, sources, expected in (
        (3, [(1, 0, [])], (b"one", b"one")),
        (4, [(1, 2, ["x"])], (b"one", b"one")),
        (5, [(1, 1, ["v"])], (b"root", 0)),
        (6, [(1, 0, []), (2, 0, [])], (b"two", b"one")),
    ):
        vm.make_env(number, sources, {})
        assert vm.run(look, number) == expected
    # A copy, at that moment.
    vm.run("v.set('later')", 3)
    assert vm.run(look, 1) == (b"one", b"one")


def test_a_variable_of_the_users_keeps_no_environment_alive(vm: VM) -> None:
    vm.run(
        "import contextvars, weakref\n"
        "class Mark: pass\n"
        "v, gone = contextvars.ContextVar('v'), []\n"
        "import gc\ngc.disable()"
    )
    vm.make_env(1, [], {})
    vm.run("v.set(Mark())\nmark = Mark()\nweakref.finalize(mark, gone.append, 1)\nreturn 1", 1)
    vm.make_env(2, [(1, 1, [])], {})
    vm.drop_envs(1)
    if vm.run("import sys\nreturn sys.implementation.name") == b"pypy":
        keep_collecting(vm)
        wait_until(lambda: vm.run("return gone"))
    assert vm.run("return gone") == [1]


def test_merge_takes_what_differs_from_the_base() -> None:
    a, b = ContextVar[object]("a"), ContextVar[object]("b")
    base = copy_context()
    base.run(a.set, 1)
    base.run(b.set, 1)
    changed, latest = base.copy(), base.copy()
    changed.run(a.set, 2)
    latest.run(b.set, 3)
    merged = merge(latest, changed, base)
    assert (merged[a], merged[b]) == (2, 3)
    assert (latest[a], latest[b]) == (1, 3)
    merged = merge(latest, changed)
    assert (merged[a], merged[b]) == (2, 1)


def test_numbers_made_for_a_call_are_made_in_a_context_of_their_own(vm: VM) -> None:
    # As `Snex.Serde.object/3` does.
    vm.run(
        "import decimal, sys, types\n"
        "decimal.getcontext().prec = 5\n"
        "def change(prec): decimal.getcontext().prec = prec\n"
        "helper = sys.modules['helper'] = types.ModuleType('helper')\n"
        "helper.change = change"
    )
    body = b"\x80\x04(K\x00X\x08\x00\x00\x00return 1NK\x01}X\x01\x00\x00\x00xchelper\nchange\nK\x02\x85Rst."
    vm.send(EVAL, 900, body)
    assert vm.reply(900) == 1
    assert vm.run(THIRD) == b"0.33333"


def test_a_context_is_freed_with_its_environment() -> None:
    class Mark:
        pass

    variable: ContextVar[Mark] = ContextVar("mark")
    base = copy_context()

    def use() -> weakref.ref[Mark]:
        changed = base.copy()
        mark = Mark()
        changed.run(variable.set, mark)
        merged = merge(base, changed, base)
        assert merged[variable] is mark
        return weakref.ref(mark)

    reference = in_a_thread(use)
    collect_until(lambda: reference() is None)
