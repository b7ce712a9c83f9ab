from __future__ import annotations

import asyncio
import re
import sys
import warnings
import weakref
from typing import Any

import pytest
from support.garbage import collect_until, in_a_thread

from snex._eval import code
from snex._eval.code import compile_code
from snex._eval.envs import fresh_names
from snex._eval.sources import shown
from snex._pypy import detach


def run(source: str, env: dict[str, Any] | None = None) -> Any:
    program = compile_code(source, None, 1)
    function = program.bind(fresh_names() if env is None else env)
    return asyncio.run(function()) if program.is_async else function()


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("", None),
        ("# nothing", None),
        ("'only a docstring'", None),
        ("return", None),
        ("return 1\nraise ValueError", 1),
        ("for i in range(9):\n    if i == 3: return i", 3),
        ("while True:\n    return 1", 1),
        ("try:\n    return 1\nexcept:\n    return 2", 1),
        ("try:\n    return 1\nexcept BaseException:\n    return 2\nfinally:\n    x = 3", 1),
        ("import contextlib\nwith contextlib.suppress(BaseException):\n    return 1", 1),
        ("try:\n    1/0\nexcept ZeroDivisionError as e:\n    return str(e)", "division by zero"),
        ("def f():\n    return 5\nreturn f() + (lambda: 1)()", 6),
        ("x = 1\ndef f(): return x\nx = 2\nreturn f()", 2),
        ("def f():\n    global y\n    y = 7\nf()\nreturn y", 7),
        ("global z\nz = 1\nreturn z", 1),
        ("x = 5\n[x for x in range(3)]\nlocals()\nreturn x", 5),
        ("x = 5\nfs = [(lambda: x) for x in range(3)]\nlocals()\nreturn x, fs[0]()", (5, 2)),
        ("[y := i for i in range(3)]\nreturn y", 2),
        ("x = 5\n[locals() and 1 for x in range(3)]\nlocals()\nreturn x", 5),
        ("[1 for y in range(3)]\nlocals()\nreturn 'y' in globals()", False),
        ("exec('q = 1')\nreturn q", 1),
        ("return locals() is globals() is vars()", True),
        ("x = 1\nreturn eval('x'), 'x' in dir()", (1, True)),
        ("from os.path import *\nreturn join('a', 'b')", "a/b"),
        ("if True:\n    from os.path import *\nreturn basename('a/b')", "b"),
        ("x: int = 5\nreturn x", 5),
        ("x = 1\nif x:\n    x: int\n    y: int = 2\nreturn x + y", 3),
        ("class A:\n    b: int = 1\nreturn A.__annotations__", {"b": int}),
        ("match [1, 2, 3]:\n    case [a, *b]:\n        return a, b", (1, [2, 3])),
        ("x = 1\ndel x\nreturn 'x' in globals()", False),
        (
            "import os.path as p, sys\nfrom os import sep as s\nreturn p.join('a', s) and sys.byteorder and 1",
            1,
        ),
        ("class A:\n    def m(self): return __class__\nreturn A().m() is A", True),
        ("class A:\n    __p = 1\nreturn A._A__p", 1),
        (
            "class A:\n    x = 1\n    class B:\n        pass\nreturn A.B.__qualname__, A.__module__",
            ("A.B", "__main__"),
        ),
        (
            "def f():\n    def g(): pass\n    return g\nreturn f.__qualname__, f().__qualname__",
            ("f", "f.<locals>.g"),
        ),
        ("return (lambda: 0).__qualname__", "<lambda>"),
        ("return list((lambda: (yield 1))())", [1]),
        ("def g(): yield 1\nreturn list(g())", [1]),
        (
            "from __future__ import annotations\ndef f(x: nothing): pass\nreturn f.__annotations__",
            {"x": "nothing"},
        ),
        ("'doc'\nfrom __future__ import annotations\nreturn 1", 1),
        ("async def f(): return 1\nreturn await f()", 1),
        ("async def f():\n    yield 1\nreturn [x async for x in f()]", [1]),
        ("async def f():\n    yield 1\nasync for x in f():\n    return x", 1),
        ("async def f(): return 1\nreturn [await f() for _ in range(2)]", [1, 1]),
        (
            "import contextlib\n"
            "async with contextlib.AsyncExitStack() as stack:\n"
            "    try:\n        return 1\n    except BaseException:\n        return 2",
            1,
        ),
        ("async def f(): return 1\ndef g(x=await f()): return x\nreturn g()", 1),
    ],
)
def test_code_means_what_it_means_in_a_module(source: str, value: object) -> None:
    assert run(source) == value


def test_finally_blocks_run_after_return() -> None:
    env = fresh_names()
    assert run("try:\n    return 1\nfinally:\n    done = True", env) == 1
    assert env["done"] is True


def test_only_the_users_names_are_in_the_environment() -> None:
    env = fresh_names()
    before = set(env)
    run("import os\nx = 1\n[i for i in range(3)]\nlocals()\nfrom os.path import join as j", env)
    assert set(env) - before == {"os", "x", "j"}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of 3.12")
def test_generics_and_type_aliases() -> None:
    source = (
        "type X = int\ndef f[T](a: T) -> T: return a\nclass B[T]: pass\n"
        "return f(1), X.__value__, f.__qualname__, B.__qualname__"
    )
    assert run(source) == (1, int, "f", "B")


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("x = 1\nyield x", "^'yield' outside function: code that yields is for Snex.stream$", 11),
        ("x = [(yield 1)]", "'yield' outside function", 10),
        ("async def f(): pass\nawait f()\nyield from ()", "'yield' outside function", 12),
        ("nonlocal x", "nonlocal declaration not allowed at module level", 10),
        ("x = 1\ndef f():\n    nonlocal x", "no binding for nonlocal 'x' found", 12),
        ("x = 1\nglobal x", "assigned to before global", 11),
        ("class A:\n    return 1", "return'? outside function", 11),
        ("def f():\n    await x", "'await' outside async function", 11),
        ("x = (", "", 10),
        ("  x = 1", "unexpected indent", 10),
        ("break", "'break' (outside|not properly in) loop", 10),
        (
            "x = 1\nfrom __future__ import annotations",
            "must (occur at the|appear at) beginning",
            11,
        ),
    ],
)
def test_syntax_errors_carry_the_users_file_and_line(source: str, message: str, line: int) -> None:
    with pytest.raises(SyntaxError) as caught:
        compile_code(source, "lib/my.ex", 10)
    error = caught.value
    # PyPy has words of its own for some of them.
    assert re.search(message, error.msg)
    assert (error.filename, error.lineno) == ("lib/my.ex", line)
    assert error.text == source.splitlines()[line - 10]


def test_code_that_awaits_nothing_is_not_async() -> None:
    for source in (
        "async def f(): await g()",
        "x = lambda: (await_, async_)",
        "'await'",
        "x = (a async for a in b())",
        "class A:\n    async def f(self):\n        async with x: pass",
    ):
        assert not compile_code(source, None, 1).is_async


def test_warnings_of_the_compiler_come_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compile_code("x = 1\nx is 'a literal'", None, 1)
    assert [str(w.message)[:4] for w in caught] == ['"is"']


def test_the_cache_is_bounded_by_entries_and_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_cache", {})
    monkeypatch.setattr(code, "_characters", 0)
    monkeypatch.setattr(code, "_MAX_ENTRIES", 3)
    monkeypatch.setattr(code, "_MAX_CHARACTERS", 100)
    first = compile_code("a1", None, 1)
    compile_code("a2", None, 1)
    compile_code("a3", None, 1)
    assert compile_code("a1", None, 1) is first
    compile_code("a4", None, 1)
    assert [key[0] for key in code._cache] == ["a3", "a1", "a4"]
    compile_code("b" * 99, None, 1)
    assert [key[0] for key in code._cache] == ["b" * 99]
    compile_code("c" * 200, None, 1)
    assert code._characters == 200


def test_the_same_text_elsewhere_is_other_code() -> None:
    codes = [
        compile_code("x", *place).code
        for place in (("a.ex", 1), ("b.ex", 1), ("a.ex", 2), (None, 1))
    ]
    assert [each.co_firstlineno for each in codes] == [1, 1, 1, 1]
    assert len({each.co_filename for each in codes}) == 4
    assert [shown(each.co_filename) for each in codes] == ["a.ex", "b.ex", "a.ex", "<Snex.Code>"]


@pytest.mark.parametrize("line", [1_000_001, 2**31, 2**63 - 1])
def test_a_line_that_no_file_has_is_refused_at_once(line: int) -> None:
    compile_code("x", "a.ex", 1_000_000)
    with pytest.raises(ValueError, match=f"code cannot begin at line {line}"):
        compile_code("x", "a.ex", line)


def test_code_keeps_no_environment_alive() -> None:
    source = (
        "class Mark: pass\n"
        "mark, x = Mark(), 1\n"
        "def plain(): return x\n"
        "def arguments(a, /, b, *, c=2): return x\n"
        "def anything(*a, **k): return x\n"
        "def outer():\n    y = x\n    def inner(*a): return x, y\n    return inner()\n"
        "def generator(): yield x\n"
        "async def coroutine(*a): return x\n"
        "async def asynchronous(): yield x\n"
        "class Class:\n    y = x\n    def method(self): return x\n"
        "plain(), arguments(1, 2), anything(1, k=1), outer(), list(generator())\n"
        "(lambda *a: x)(), [x for _ in 'ab'], Class.method(0)\n"
        "await coroutine()\n"
        "async for _ in asynchronous(): pass\n"
    )
    # Kept, as by the cache.
    program = compile_code(source, None, 1)

    def use() -> weakref.ref[Any]:
        env = fresh_names()
        asyncio.run(program.bind(env)())
        mark = weakref.ref(env["mark"])
        assert mark() is not None
        return mark

    mark = in_a_thread(use)
    collect_until(lambda: mark() is None)


def test_code_that_is_detached_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    # On PyPy it is what `compile_code` does.
    source = (
        "print('top')\n"
        "def outer(a):\n    def inner(*b): print(a, b)\n    return inner\n"
        "async def coroutine(): print('coroutine')\n"
        "def generator():\n    print('generator')\n    yield\n"
    )
    tracing = sys.gettrace()
    detach(compile(source, "<test>", "exec"))
    assert sys.gettrace() is tracing
    assert capsys.readouterr().out == ""
