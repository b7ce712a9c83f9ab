"""Calls by name: where paths lead, and what is called with what."""

from __future__ import annotations

import math
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.vm import AUTO, INVOKE, OBJECT, THREAD, A, PythonError, Ref

from snex._eval import invocation
from snex._eval.invocation import Invocation, is_awaitable, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.vm import VM


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder for modules, which are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_first_name_is_looked_up_in_three_places() -> None:
    names = {"x": 1, "math": 2, "len": 3}
    assert resolve(None, "x", names) == 1
    assert resolve(None, "math", names) == 2
    assert resolve(None, "len", names) == 3
    assert resolve(None, "len", {}) is len
    assert resolve(None, "math.pi", {}) == resolve("math", "pi", names)


def test_builtins_are_those_of_the_environment() -> None:
    own = ModuleType("own")
    own.len = "own"  # type: ignore[attr-defined]
    assert resolve(None, "len", {"__builtins__": own}) == "own"
    assert resolve(None, "len", {"__builtins__": {"len": "of a dict"}}) == "of a dict"


def test_an_object_may_be_the_root() -> None:
    thing = SimpleNamespace(a=SimpleNamespace(b=[1]))
    assert resolve((thing,), "", {}) is thing
    assert resolve((thing,), "a.b.append", {}) == thing.a.b.append


def test_modules_in_packages_are_imported(folder: Path) -> None:
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text(
        "def __getattr__(name): raise AttributeError(name)"
    )
    (folder / "pack" / "sub.py").write_text("x = 1")
    assert resolve(None, "pack.sub.x", {}) == 1
    with pytest.raises(AttributeError, match="'pack.sbu' leads nowhere: sbu. Did you mean: 'sub'"):
        resolve(None, "pack.sbu", {})


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("import nothing_at_all", ModuleNotFoundError, "No module named 'nothing_at_all'"),
        ("raise ImportError('why')", ImportError, "why"),
        ("raise SystemExit(3)", SystemExit, "3"),
        ("x = = 1", SyntaxError, "invalid syntax"),
        ("import broken.inner", ModuleNotFoundError, "'broken' is not a package"),
    ],
)
def test_a_module_that_fails_is_its_own_error(
    folder: Path, text: str, kind: type[BaseException], message: str
) -> None:
    (folder / "broken.py").write_text(text)
    with pytest.raises(kind, match=message):
        resolve(None, "broken.x", {})
    with pytest.raises(kind, match=message):
        resolve("broken", "x", {})


def test_what_leads_nowhere_says_where_and_what_is_near() -> None:
    cases: list[tuple[Any, str, type[Exception], str]] = [
        (
            None,
            "frmae.x",
            NameError,
            "'frmae' is neither a name in the environment nor a module. Did you mean: 'frame'",
        ),
        (
            None,
            "frame.vlaues",
            AttributeError,
            "'frame.vlaues' leads nowhere: 'dict' object has no attribute 'vlaues'. Did you mean: 'values'?",
        ),
        ("mth", "x", ModuleNotFoundError, "No module named 'mth'. Did you mean: 'math'"),
        (
            ({},),
            "itms",
            AttributeError,
            "'dict' object has no attribute 'itms'. Did you mean: 'items'?",
        ),
        (
            ({},),
            "__class__.x",
            AttributeError,
            "'__class__.x' leads nowhere: type object 'dict' has no attribute 'x'",
        ),
        (None, "zzqqxx", NameError, "'zzqqxx' is neither a name in the environment nor a module"),
    ]
    for root, path, kind, message in cases:
        with pytest.raises(kind) as caught:
            resolve(root, path, {"frame": {}})
        assert str(caught.value).startswith(message)
    # Private names only for who asks for such.
    with pytest.raises(AttributeError) as caught:
        resolve(([],), "__leng__", {})
    assert "'__len__'" in str(caught.value)
    with pytest.raises(AttributeError) as caught:
        resolve((SimpleNamespace(_hidden=1),), "hidden", {})
    assert "_hidden" not in str(caught.value)


class Strict:
    __slots__ = ("slot",)

    @property
    def inner(self) -> Any:
        return None.missing  # type: ignore[attr-defined]

    @property
    def own(self) -> Any:
        raise AttributeError("of mine")

    @property
    def names_it(self) -> Any:
        raise AttributeError("told", name="names_it", obj=self)

    @classmethod
    def fail(cls) -> Any:
        raise KeyError("x")


class Broken:
    def __dir__(self) -> Any:
        raise KeyError("dir")


def test_errors_of_the_objects_own_code_stay_what_they_are() -> None:
    for name, message in [
        ("inner", "'NoneType' object has no attribute 'missing'"),
        ("own", "of mine"),
        ("names_it", "told"),
    ]:
        with pytest.raises(AttributeError) as caught:
            resolve((SimpleNamespace(a=Strict()),), f"a.{name}", {})
        assert str(caught.value) == message
    # Declared, but not set.
    with pytest.raises(AttributeError, match="slot"):
        resolve((Strict(),), "slot", {})
    with pytest.raises(AttributeError, match="has no attribute 'x'$"):
        resolve((Broken(),), "x", {})


def run(path: str, *args: Any, names: dict[str, Any], copies: bool = False, **keywords: Any) -> Any:
    return Invocation(None, path, args, keywords, copies=copies).bind(names)()


def test_functions_about_the_callers_variables_get_those_of_the_environment() -> None:
    names = {"x": 1}
    assert run("eval", "x + 1", names=names) == 2
    assert run("eval", "x", {"x": 5}, names=names) == 5
    assert run("exec", "y = x + 2", names=names) is None
    assert names["y"] == 3
    assert run("dir", names=names) == ["__builtins__", "x", "y"]
    assert run("dir", [], names=names) == dir([])
    assert run("vars", SimpleNamespace(a=1), names=names) == {"a": 1}
    for path in "globals", "locals", "vars":
        assert run(path, names=names) is names
    assert not hasattr(invocation, "y")


def test_a_root_environment_is_only_copied() -> None:
    names = {"x": 1}
    run("exec", "x = 2", names=names, copies=True)
    assert names == {"x": 1}
    assert run("globals", names=names, copies=True) == names
    assert run("globals", names=names, copies=True) is not names


def test_only_types_tell_what_can_be_awaited() -> None:
    class Future:
        def __await__(self) -> Any:
            yield

    class Instance:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError

    assert is_awaitable(Future())
    for value in None, 1, "x", [], {}, Instance(), Future, object():
        assert not is_awaitable(value)


def test_a_path_is_remembered_and_what_it_leads_to_is_not() -> None:
    names: dict[str, Any] = {"f": lambda: 1, "o": SimpleNamespace(f=lambda: 2)}
    assert (run("f", names=names), run("o.f", names=names)) == (1, 2)
    names["f"], names["o"].f = (lambda: 3), (lambda: 4)
    assert (run("f", names=names), run("o.f", names=names)) == (3, 4)
    # The same path from something else.
    assert run("f", names={"f": lambda: 5}) == 5
    one, other = SimpleNamespace(f=lambda: 7), SimpleNamespace(f=lambda: 8)
    calls = [Invocation((obj,), "f", (), None, copies=False) for obj in (one, other)]
    assert [call.bind(names)() for call in calls] == [7, 8]
    assert Invocation("math", "pi", None, None, copies=False).bind({"math": 1})() == math.pi


def test_a_long_path_is_not_remembered() -> None:
    long = "x" * 2000
    for root, path in (None, long), ("m", long), (long, "m"), ((1,), long):
        one, other = (Invocation(root, path, (), None, copies=False) for _ in range(2))
        assert one.durations is not other.durations


def test_functions_are_remembered_by_how_long_they_take_but_not_all_for_ever() -> None:
    one = Invocation(None, "f", (), None, copies=False).durations
    assert Invocation(None, "f", (), None, copies=False).durations is one
    for number in range(2000):
        Invocation("m", f"f{number}", (), None, copies=False)
    assert len(invocation._paths) <= invocation._MOST
    assert Invocation(None, "f", (), None, copies=False).durations is not one


# ---- On the wire -------------------------------------------------------------------------


def test_calls_and_looks(vm: VM) -> None:
    assert vm.reply(vm.invoke("math.sqrt", 16)) == 4.0
    assert vm.reply(vm.invoke("sqrt", 16, root="math")) == 4.0
    assert vm.reply(vm.invoke("int", "11", base=2)) == 3
    assert vm.reply(vm.request(INVOKE, (None, None, "os.sep", None, {}), AUTO)) == b"/"
    vm.run("async def later(x): return x")
    for flags in 0, AUTO, THREAD, AUTO | THREAD:
        assert vm.reply(vm.invoke("later", [1], flags=flags)) == [1]


def test_objects_are_roots_and_arguments(vm: VM) -> None:
    vm.run(
        "class Thing:\n  def same(self, *others): return [self is o for o in others]\nt = Thing()"
    )
    first = vm.invoke("eval", "t", flags=OBJECT)
    vm.reply(first)
    (number,) = vm.handles(first)
    thing = Ref(number)
    assert vm.reply(vm.invoke("same", thing, thing, root=(thing,))) == [True, True]
    assert (
        vm.reply(vm.request(INVOKE, (0, (thing,), "__class__.__name__", None, {}), AUTO))
        == b"Thing"
    )
    # An object that is not there is an error before anything is called.
    with pytest.raises(PythonError) as caught:
        vm.reply(vm.invoke("print", "never", Ref(99)))
    assert caught.value.fields["code"] == "object_not_found"
    with pytest.raises(PythonError) as caught:
        vm.reply(vm.invoke("same", root=(Ref(99),)))
    assert caught.value.fields["code"] == "object_not_found"


def test_an_environment_that_is_not_there(vm: VM) -> None:
    with pytest.raises(PythonError) as caught:
        vm.reply(vm.invoke("len", "x", env=77))
    assert caught.value.fields["code"] == "env_not_found"


@pytest.mark.parametrize(
    "fields",
    [(), (0,), (0, None), (0, None, "len"), (0, None, 7, [], {}), (0, 7, "len", [], {}), 7, None,
     (0, None, "len", 7, {}), (0, None, "len", [[]], 7), (0, (), "len", [], {})],
    ids=repr,
)  # fmt: skip
def test_fields_that_are_none_are_the_error_of_the_one_request(vm: VM, fields: Any) -> None:
    with pytest.raises(PythonError):
        vm.reply(vm.request(INVOKE, fields))
    assert vm.reply(vm.invoke("len", "abc")) == 3


def test_no_frame_of_ours_is_in_a_traceback(vm: VM) -> None:
    vm.run("def f(x): return 1 / x")
    with pytest.raises(PythonError) as caught:
        vm.reply(vm.invoke("f"))
    (line,) = caught.value.fields["traceback"]
    assert line.startswith("TypeError: f() missing 1 required positional argument")
    with pytest.raises(PythonError) as caught:
        vm.reply(vm.invoke("f", 0))
    files = [line for line in caught.value.fields["traceback"] if "File" in line]
    assert len(files) == 1
    assert "in f" in files[0]


@pytest.mark.interrupts
@pytest.mark.parametrize("flags", [AUTO, AUTO | THREAD])
def test_a_function_in_c_is_interrupted(vm: VM, flags: int) -> None:
    request = vm.invoke("time.sleep", 1000 if flags == AUTO else 0.2, flags=flags)
    vm.cancel(request)
    assert vm.reply(vm.invoke("len", "x")) == 1
    assert vm.answers(request) == []


def test_a_call_and_its_answer_name_it_as_their_cause(vm: VM) -> None:
    vm.run("async def tell(): await snex.send(snex.Atom('x'), 1)")
    request = vm.invoke("tell")
    number, _ = vm.expect(0x87)
    assert vm.frames.causes[0x87, number] == request
    vm.answer(number)
    assert vm.reply(request) == A("nil") or vm.run("return 1") == 1
