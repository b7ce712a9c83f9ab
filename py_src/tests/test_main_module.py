"""Promises about `sys.modules["__main__"]`, in real interpreters."""

from __future__ import annotations

import pickle
import sys

import pytest
from support.vm import VM, PythonError

from snex._interpreter import _env_id

CLASS = "class P:\n    def __init__(self, x=0): self.x = x\n    def __eq__(self, o): return self.x == o.x\n"
COPY = CLASS + "import pickle\ndef copy(x): return pickle.loads(pickle.dumps(x))\n"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle\nclass P: pass\nreturn type(pickle.loads(pickle.dumps(P()))) is P",
        "import pickle\nclass P: pass\nreturn type(pickle._loads(pickle._dumps(P()))) is P",
        "import copy\nclass P: pass\nreturn type(copy.deepcopy(P())) is P",
        "import enum, pickle\nclass E(enum.Enum):\n    A = 1\nreturn pickle.loads(pickle.dumps(E.A)) is E.A",
        "import enum, pickle\nE = enum.Enum('E', 'A B')\nreturn pickle.loads(pickle.dumps(E.A)) is E.A",
        "import collections, pickle\nT = collections.namedtuple('T', 'a b')\n"
        "return pickle.loads(pickle.dumps(T(1, 2))) == T(1, 2)",
        "import pickle, typing\nclass T(typing.NamedTuple):\n    a: int\n"
        "return pickle.loads(pickle.dumps(T(1))) == T(1)",
        "import pickle\ndef f(): pass\nreturn pickle.loads(pickle.dumps(f)) is f",
        "import pickle\nclass A:\n    class B: pass\nreturn pickle.loads(pickle.dumps(A.B)) is A.B",
        "import dataclasses, pickle\n@dataclasses.dataclass\nclass D:\n    x: int\n"
        "return pickle.loads(pickle.dumps(D(1))) == D(1)",
        "import __main__\nx = 5\nreturn __main__.x == 5 and vars(__main__) is globals()",
        "import sys\nmain = sys.modules['__main__']\nmain.y = 7\nassert y == 7\ndel main.y\n"
        "return 'y' not in globals() and not hasattr(main, 'y')",
        "x = 1\nfrom __main__ import x as y\nreturn y == 1",
        "import __main__, types, inspect\n"
        "return isinstance(__main__, types.ModuleType) and repr(__main__).startswith(\"<module '__main__'\")",
        "import __main__\nx = 1\nreturn 'x' in dir(__main__) and __main__.__name__ == '__main__' == __name__",
        "import __main__\ndef __getattr__(name): return name * 2\nreturn __main__.ab == 'abab'",
        "import inspect, sys\ndef f(): pass\nclass C: pass\nmain = sys.modules['__main__']\n"
        "return inspect.getmodule(f) is main and inspect.getmodule(C) is main",
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertTrue(True)\n"
        "import io\nrunner = unittest.TextTestRunner(io.StringIO())\n"
        "return unittest.main(exit=False, argv=['x'], testRunner=runner).result.testsRun == 1",
        "import doctest\ndef f():\n    '''\n    >>> f()\n    1\n    '''\n    return 1\n"
        "return tuple(doctest.testmod()) == (0, 1)",
        "import timeit\ndef f(): return 1\nreturn timeit.timeit('f()', 'from __main__ import f', number=1) > 0",
    ],
)
def test_what_the_code_defines_is_found(vm: VM, code: str) -> None:
    vm.make_env(1, [], {})
    assert vm.run(code, 1) is True
    assert vm.run(code, None) is True
    assert vm.run("import asyncio\nawait asyncio.sleep(0)\n" + code, None) is True


def test_annotations_that_are_strings_mean_what_they_say(vm: VM) -> None:
    vm.make_env(1, [], {})
    code = (
        "from __future__ import annotations\nfrom dataclasses import *\nimport typing\n"
        "from typing import ClassVar\n@dataclass\nclass D:\n"
        "    a: ClassVar[int]\n    b: InitVar[int]\n    c: typing.ClassVar\n    d: int = 0\n"
        "    e: KW_ONLY\n    f: int = 0\n"
        "return [f.name for f in fields(D)]"
    )
    assert vm.run(code, 1) == [b"d", b"f"]


def test_type_hints_are_resolved_in_the_environment(vm: VM) -> None:
    vm.make_env(1, [], {})
    code = (
        "from __future__ import annotations\nimport typing\n"
        "class Node:\n    next: Node | None\n    other: 'Other'\n"
        "class Other: pass\n"
        "return typing.get_type_hints(Node) == {'next': Node | None, 'other': Other}"
    )
    assert vm.run(code, 1) is True


def test_each_environment_is_its_own_main(vm: VM) -> None:
    vm.run("import asyncio, sys, pickle, threading\nmain = sys.modules['__main__']")
    for number in (1, 2):
        vm.make_env(number, [], {"number": number})
        vm.run(CLASS, number)
    vm.run("go = [asyncio.Event(), asyncio.Event()]")
    for number in (3, 4):
        vm.make_env(number, [(number - 2, 0, [])], {})
    code = (
        "seen = []\nfor _ in range(20):\n    await asyncio.sleep(0)\n"
        "    seen.append(main.number)\n    pickle.loads(pickle.dumps(P()))\n"
        "    seen.append(await asyncio.to_thread(lambda: main.number))\n"
        "    seen.append(await asyncio.get_running_loop().run_in_executor(None, lambda: main.number))\n"
        "return set(seen)"
    )
    first, second = vm.eval(code, 1), vm.eval(code, 2)
    assert vm.reply(first).members == {1}
    assert vm.reply(second).members == {2}


def test_threads_have_the_environment_of_the_code_that_started_them(vm: VM) -> None:
    vm.make_env(1, [], {})
    code = COPY + (
        "import io, threading\n"
        "results, file = [], io.BytesIO()\n"
        "with_function = threading.Thread(target=lambda: results.append(copy(P(1)).x))\n"
        "of_library = threading.Thread(target=pickle.Pickler(file).dump, args=(P(3),))\n"
        "for t in (with_function, of_library):\n    t.start()\n    t.join()\n"
        "return results, pickle.loads(file.getvalue()).x"
    )
    assert vm.run(code, 1) == ([1], 3)


def test_a_helper_of_the_init_script_finds_what_the_environment_defines(vm: VM) -> None:
    vm.run("import pickle\ndef copy(x): return pickle.loads(pickle.dumps(x))")
    vm.make_env(1, [], {})
    assert vm.run(CLASS + "return copy(P(1)) == P(1)", 1) is True


def test_a_function_of_another_environment_finds_what_that_one_defines(vm: VM) -> None:
    vm.make_env(1, [], {})
    vm.run(COPY + "def make(): return copy(P(4)).x", 1)
    vm.make_env(2, [(1, 1, ["make"])], {})
    assert vm.run("return make()", 2) == 4
    with pytest.raises(PythonError, match="P"):
        vm.run("import __main__\nreturn __main__.P", 2)


def test_a_variable_may_be_an_object_of_a_class_of_the_environment(vm: VM) -> None:
    vm.make_env(1, [], {})
    vm.run(CLASS, 1)

    def request(env: object, number: int) -> None:
        # As `Snex.Serde.object("__main__", "P", [9])`.
        name = b"K\x01" if env else b"N"
        vm.send(2, number, b"\x80\x04(" + name + b"\x8c\x0areturn p.xNK\x01}\x8c\x01p"
                b"\x8c\x08__main__\x8c\x01P\x93K\x09\x85Rst.")  # fmt: skip

    request(1, 900)
    assert vm.reply(900) == 9
    request(None, 901)
    with pytest.raises(PythonError, match="P"):
        vm.reply(901)


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("env", [None, 0, 255, 256, 65_536, -1, 2**31, 2**63, 2**70])
def test_the_environment_of_a_request_is_known_before_it_is_loaded(
    env: int | None, protocol: int
) -> None:
    assert _env_id(pickle.dumps((env, "x", None, 1, {}), protocol)) == env


FORK = (
    COPY + "import multiprocessing\nfork = multiprocessing.get_context('fork')\n"
    "def double(p): return P(p.x * 2)\n"
)


@pytest.mark.parametrize(
    "code",
    [
        "with fork.Pool(2) as pool:\n    return [p.x for p in pool.map(double, [P(1), P(2)])]",
        "from concurrent.futures import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(2, fork) as pool:\n"
        "    return [p.x for p in pool.map(double, [P(1), P(2)])]",
        "q = fork.Queue()\ndef child():\n    for i in 1, 2: q.put(double(P(i)))\n"
        "child = fork.Process(target=child)\nchild.start()\nresult = [q.get().x, q.get().x]\n"
        "child.join()\nreturn result",
        "import asyncio\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "loop = asyncio.get_running_loop()\n"
        "with ProcessPoolExecutor(2, fork) as pool:\n"
        "    a, b = await asyncio.gather(*(loop.run_in_executor(pool, double, P(i)) for i in (1, 2)))\n"
        "return [a.x, b.x]",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_forked_children_have_the_environment_of_the_code_that_forked(vm: VM, code: str) -> None:
    vm.make_env(1, [], {})
    assert vm.run(FORK + code, 1) == [2, 4]


def test_a_thread_keeps_no_dropped_environment_in_the_table(vm: VM) -> None:
    vm.make_env(1, [], {})
    vm.run("import threading\ngo = threading.Event()\nt = threading.Thread(target=go.wait)", 1)
    vm.run("t.start()\nimport sys\nsys.go = go, t", 1)
    vm.drop_envs(1)
    assert vm.run("import sys\nsys.go[0].set()\nsys.go[1].join()\nreturn 1") == 1


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="not installed on others")
@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib_runs_functions_of_the_environment(vm: VM, backend: str) -> None:
    vm.make_env(1, [], {})
    code = COPY + (
        "import joblib, multiprocessing\nmultiprocessing.set_start_method('fork', force=True)\n"
        "def double(p): return P(p.x * 2)\n"
        "with joblib.parallel_config(backend=backend, n_jobs=2):\n"
        "    results = joblib.Parallel()(joblib.delayed(double)(P(i)) for i in range(3))\n"
        # Its workers would outlive a Python that is killed.
        "from joblib.externals.loky import get_reusable_executor\n"
        "if backend == 'loky': get_reusable_executor().shutdown(wait=True)\n"
        "return [copy(p).x for p in results], type(results[0]) is P"
    )
    assert vm.run(code, 1, {"backend": backend}) == ([0, 2, 4], True)


def test_attrs_resolves_annotations(vm: VM) -> None:
    vm.make_env(1, [], {})
    code = (
        "from __future__ import annotations\nimport attr\nfrom typing import ClassVar\n"
        "@attr.define\nclass Node:\n    count: ClassVar[int]\n    next: Node | None = None\n"
        "attr.resolve_types(Node)\n"
        "return [(f.name, f.type == Node | None) for f in attr.fields(Node)]"
    )
    assert vm.run(code, 1) == [(b"next", True)]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="not installed on others")
def test_pydantic_resolves_annotations(vm: VM) -> None:
    vm.make_env(1, [], {})
    code = (
        "from __future__ import annotations\nimport pydantic\nfrom typing import ClassVar\n"
        "class Node(pydantic.BaseModel):\n    count: ClassVar[int] = 0\n"
        "    next: Node | None = None\n    leaf: Leaf | None = None\n"
        "class Leaf(pydantic.BaseModel):\n    x: int\n"
        "node = Node.model_validate({'next': {'leaf': {'x': '5'}}})\n"
        "@pydantic.validate_call\ndef f(leaf: Leaf) -> int: return leaf.x\n"
        "return node.next.leaf.x, f({'x': 3}), sorted(Node.model_fields)"
    )
    assert vm.run(code, 1) == (5, 3, [b"leaf", b"next"])


@pytest.mark.parametrize("name", ["typing", "inspect"])
def test_the_annotations_of_the_module(vm: VM, name: str) -> None:
    ask = {"typing": "typing.get_type_hints(main)", "inspect": "inspect.get_annotations(main)"}
    vm.make_env(1, [], {})
    vm.run("x: int = 3", 1)
    code = f"import {name}, __main__ as main\nreturn {ask[name]} == {{'x': int}}"
    assert vm.run(code, 1) is True


def test_annotations_of_a_copy_are_its_own(vm: VM) -> None:
    vm.run("x: int = 3")
    vm.make_env(1, [], {})
    vm.run("y: str = ''", 1)
    code = "import __main__\nreturn sorted(__main__.__annotations__)"
    # From 3.14 on, a module has those of the code that ran last.
    both = sys.version_info < (3, 14)
    assert vm.run(code, 1) == ([b"x", b"y"] if both else [b"y"])
    assert vm.run(code, 0) == [b"x"]
