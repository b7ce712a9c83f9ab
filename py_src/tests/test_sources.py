from __future__ import annotations

import functools
import linecache
import pickle
import sys
import weakref
from typing import Any

import pytest
from support.garbage import collect_until, in_a_thread
from support.vm import VM, PythonError

from snex._eval import sources
from snex._eval.code import compile_code
from snex._eval.envs import fresh_names
from snex._eval.sources import ClassMark, Source, keep, name, recall, shown, split

ASK = "import inspect\n"


def defined(source: str, file: str | None = None, line: int = 1) -> dict[str, Any]:
    names = fresh_names()
    compile_code(source, file, line).bind(names)()
    return names


@pytest.mark.parametrize("place", [(None, 1), ("no/such.ex", 40), ("<Snex.Code>", 0)])
@pytest.mark.parametrize(
    ("source", "thing", "expected"),
    [
        ("x = 1\ndef f():\n    return 1  # here\ny = 2", "f", "def f():\n    return 1  # here\n"),
        ("@property\ndef f(): pass\nx = f.fget", "x", "@property\ndef f(): pass\n"),
        ("class C:\n    x = 1\n\ny = 1", "C", "class C:\n    x = 1\n"),
        (
            "import dataclasses\n@dataclasses.dataclass(slots=True)\nclass C:\n    x: int",
            "C",
            "@dataclasses.dataclass(slots=True)\nclass C:\n    x: int\n",
        ),
        ("import enum\nclass E(enum.Enum):\n    A = 1", "E", "class E(enum.Enum):\n    A = 1\n"),
        ("class C(Exception): pass", "C", "class C(Exception): pass\n"),
        ("class C:\n    def m(self):\n        return 1", "C().m", "    def m(self):\n        return 1\n"),
        ("class C:\n    class D:\n        x = 1", "C.D", "    class D:\n        x = 1\n"),
        ("def f():\n    class D:\n        x = 1\n    return D", "f()", "    class D:\n        x = 1\n"),
        ("f = lambda: 1", "f", "f = lambda: 1\n"),
        ("s = '\\x0c\\u2028'\n\x0c\ndef f(): return 1\rx = 1", "f", "def f(): return 1\n"),
        ("async def f():\n    await x", "f", "async def f():\n    await x\n"),
    ],
)  # fmt: skip
def test_inspect_finds_the_source(
    vm: VM, source: str, thing: str, expected: str, place: tuple[str | None, int]
) -> None:
    file, line = place
    vm.run(source, file=file, line=line)
    assert vm.run(ASK + f"return inspect.getsource({thing})").decode() == expected
    # Also when `linecache` knows it no more.
    vm.run("import linecache\nlinecache.clearcache()")
    assert vm.run(ASK + f"return inspect.getsource({thing})").decode() == expected
    vm.run(ASK + f"assert inspect.getsourcefile({thing}) == inspect.getfile({thing})")


def test_sources_are_never_mixed_up(vm: VM) -> None:
    for number in range(1, 4):
        vm.make_env(number, [], {})
        body = f"    x = {number}\n"
        vm.run(f"def f():\n{body}class C:\n{body}", number, file="same.ex", line=7)
        vm.run(f"def g():\n{body}class D:\n{body}", number)
    for number in range(1, 4):
        code = ASK + "return [inspect.getsource(x) for x in (f, C, g, D)]"
        assert all(f"x = {number}".encode() in source for source in vm.run(code, number))


def test_a_file_of_that_name_is_not_mistaken_for_the_source(vm: VM, tmp_path: Any) -> None:
    file = tmp_path / "file.ex"
    file.write_text("something\nelse\n")
    vm.run("def f():\n    return 1", file=str(file))
    assert vm.run(ASK + "return inspect.getsource(f)") == b"def f():\n    return 1\n"


def test_classes_of_libraries_are_found_as_always(vm: VM) -> None:
    code = (
        ASK + "import json\nreturn inspect.getsource(json.JSONDecoder)[:17], inspect.getfile(json)"
    )
    source, file = vm.run(code)
    import json

    assert (source, file.decode()) == (b"class JSONDecoder", json.__file__)
    with pytest.raises(PythonError, match="built-in"):
        vm.run(ASK + "inspect.getfile(int)")


def test_tracebacks_that_the_code_prints_have_lines(vm: VM) -> None:
    request = vm.eval(
        "import logging, traceback\ndef f():\n    raise ValueError  # the line\n"
        "try:\n    f()\nexcept ValueError:\n    traceback.print_exc()\n    logging.exception('logged')"
    )
    vm.reply(request)
    assert vm.printed(request, 2).count(b"raise ValueError  # the line") == 2


def test_warnings_show_the_line(vm: VM) -> None:
    request = vm.eval("import warnings\nwarnings.warn('careful')  # the line")
    vm.reply(request)
    assert b"# the line" in vm.printed(request, 2)


def test_doctest_and_pdb_find_the_source(vm: VM) -> None:
    code = (
        "import doctest, io, pdb\n"
        "def f():\n    '''\n    >>> f()\n    2\n    '''\n    return 1  # the line\n"
        "out = io.StringIO()\n"
        "test = doctest.DocTestFinder().find(f, 'f', globs=globals())[0]\n"
        "doctest.DocTestRunner(verbose=False).run(test, out=out.write)\n"
        "debugger = pdb.Pdb(stdin=io.StringIO('s\\ns\\nl\\nc\\n'), stdout=out, nosigint=True, readrc=False)\n"
        "debugger.runcall(f)\n"
        "return test.lineno, out.getvalue()"
    )
    line, out = vm.run(code)
    # The docstring's line, counted from 0.
    assert line == 2
    assert b"return 1  # the line" in out


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="not installed on others")
def test_joblib_caches_functions_of_code(vm: VM, tmp_path: Any) -> None:
    code = (
        "import joblib\nmemory = joblib.Memory(folder, verbose=0)\n"
        "calls = []\n@memory.cache\ndef f(x):\n    calls.append(x)\n    return x * 2\n"
        "return f(2), f(2), calls"
    )
    assert vm.run(code, variables={"folder": str(tmp_path)}) == (4, 4, [2])


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MAX_ENTRIES", 3)
    monkeypatch.setattr(sources, "_MAX_SIZE", 2000)
    monkeypatch.setattr(sources, "_kept", {})
    monkeypatch.setattr(sources, "_size", 0)
    kept = [Source(name(f"x{i}", None, 1), f"x{i}", 1) for i in range(5)]
    for source in kept:
        keep(source)
    assert [source.name in linecache.cache for source in kept] == [
        False,
        False,
        True,
        True,
        True,
    ]
    large = Source(name("y" * 2500, None, 1), "y" * 2500, 1)
    keep(large)
    assert list(sources._kept) == [large.name]
    keep(kept[0])
    assert list(sources._kept) == [kept[0].name]
    # Lines in front take room as well.
    late = Source(name("z", "f.ex", 1000), "z", 1000)
    keep(late)
    assert list(sources._kept) == [late.name]
    linecache.clearcache()
    keep(late)
    assert linecache.getline(late.name, 1000) == "z\n"
    assert sources._size == 8001


def test_what_was_forgotten_is_recalled() -> None:
    names = defined("def f(): return 1\nclass C:\n    def m(self): pass\n    x = 1")
    for thing in (names["f"], names["C"], names["C"]().m, names["f"].__code__):
        linecache.clearcache()
        source = recall(thing)
        assert source is not None
        assert source.name in linecache.cache
    assert recall(test_what_was_forgotten_is_recalled) is None
    assert recall(int) is recall(5) is recall(sys) is None


def test_a_class_is_not_kept_alive() -> None:
    def use() -> weakref.ref[Any]:
        names = defined("class C: pass")
        assert recall(names["C"]) is not None
        return weakref.ref(names["C"])

    reference = in_a_thread(use)
    collect_until(lambda: reference() is None)


def test_a_class_that_cannot_be_remembered_is_none_of_ours() -> None:
    code = "class M(type):\n    def __hash__(cls): raise ValueError\nclass C(metaclass=M): pass"
    assert defined(code)["C"].__name__ == "C"


def test_the_mark_of_classes_means_nothing_elsewhere() -> None:
    mark = ClassMark(Source("<x>", "", 1))
    copy = pickle.loads(pickle.dumps(mark))
    assert type(copy) is functools.partial
    assert copy(int) is int


def test_names_are_shown_as_the_user_knows_them() -> None:
    text = (
        f'  File "{name("a", "/x/my file.ex", 1)}", line 1\n  File "{name("a", None, 1)}", line 2\n'
    )
    assert shown(text) == '  File "/x/my file.ex", line 1\n  File "<Snex.Code>", line 2\n'
    assert shown("<stdin>") == "<stdin>"
    assert shown("lib/a.py") == "lib/a.py"
    assert name("\ud800", "f", 1) != name("\ud801", "f", 1)


def test_lines_are_those_of_python() -> None:
    assert split("a\x0cb\u2028c\r\nd\re") == ["a\x0cb\u2028c\n", "d\n", "e\n"]
    assert split("") == []


def test_what_has_any_attribute_or_raises_any_error_is_left_alone(vm: VM) -> None:
    # As torch.classes does, whose file is asked for when torch is imported.
    made = """
import inspect, sys, types
class Anything(types.ModuleType):
    __file__ = "anything.py"
    def __getattr__(self, name):
        if self.__name__ == "inner":
            raise RuntimeError(f"there is no {name}")
        return Anything("inner")
thing = sys.modules["anything"] = Anything("anything")
def f(): return 1
"""
    vm.run(made + "assert inspect.getfile(thing) == 'anything.py'")
    assert vm.run(made + "return inspect.getsource(f)") == b"def f(): return 1\n"
    vm.run(made + "assert inspect.getmodule(f) is sys.modules['__main__']")
