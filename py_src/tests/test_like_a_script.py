"""Code means what it means in a file: each piece runs both as code of a request and as `python file.py`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.vm import VM, PythonError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANNOTATIONS = (
    "import sys, inspect\ndef hints(): return inspect.get_annotations(sys.modules['__main__'])\n"
)

PIECES = [
    # Annotations and docstrings.
    "'''A\n      docstring\n    of lines'''\nprint(repr(__doc__))",
    "'doc'\nfrom __future__ import annotations\nprint(__doc__)",
    "print(__doc__)",
    "1\n'no doc'\nprint(__doc__)",
    "f'no {1} doc'\nprint(__doc__)",
    "x: int = 3\ny: 'str'\nimport inspect, sys\nprint(x, inspect.get_annotations(sys.modules['__main__']))",
    ANNOTATIONS
    + "if 1:\n    x: int\nelse:\n    y: str\nfor z in 1,:\n    w: list[int] = []\nprint(hints())",
    ANNOTATIONS + "try:\n    x: int\nfinally:\n    y: str\nprint(hints())",
    ANNOTATIONS + "with open(__import__('os').devnull):\n    x: int\nprint(hints())",
    ANNOTATIONS + "match 1:\n    case 1:\n        x: int\nprint(hints())",
    ANNOTATIONS + "x: int\nx: str\nprint(hints())",
    ANNOTATIONS
    + "(x): int = 3\nclass A: pass\nA.b: int = 4\nl = [0]\nl[0]: int = 5\nprint(hints(), x, A.b, l)",
    ANNOTATIONS + "x: int\ntry:\n    x\nexcept NameError as e:\n    print(e, hints())",
    "def f(n):\n    print('called', n)\n    return n\nx: f(1) = f(2)\n(y): f(3) = f(4)\nf(5)",
    "class A: pass\ndef f(x):\n    print('f', x)\n    return A\nf(1).b: f(2) = f(3)\nf(4).c: f(5)",
    "x: undefined",
    "x: undefined = 1",
    "try:\n    x: undefined = 1\nexcept NameError as e:\n    print(e)\nprint(x)",
    "x: int = 3\ntry:\n    print(__annotations__)\nexcept NameError as e:\n    print(e)",
    "x: int\nprint('__annotations__' in globals(), '__annotate__' in globals())",
    "from __future__ import annotations\nx: undefined[1:2, ...] = 3\ny: 'str'\n"
    "z: lambda a, *b: (a, b)\nw: f'{x!r:>{5}}'\nprint(__annotations__)",
    "from __future__ import annotations\n(x): undefined = 3\nclass A: pass\nA.b: undefined = 2\nprint(x, A.b)",
    "from __future__ import annotations\nimport typing, sys\nclass A:\n    a: A\n    b: list[B]\nclass B: pass\n"
    "print(typing.get_type_hints(A))\nx: A\nprint(typing.get_type_hints(sys.modules['__main__']))",
    "class A:\n    x: int = 1\n    y: 'A'\nimport typing\nprint(typing.get_type_hints(A))",
    "def f():\n    x: undefined = 1\n    return x\nprint(f(), f.__annotations__)",
    # Names.
    "x = 1\ndel x\ntry:\n    x\nexcept NameError as e:\n    print(e)",
    "try:\n    print(x)\nexcept NameError as e:\n    print(type(e).__name__, e)\nx = 1",
    "global x\nx = 1\nprint(x, globals()['x'])",
    "def f():\n    global y\n    y = 2\nf()\nprint(y)",
    "print(len)\nlen = 3\nprint(len)\ndel len\nprint(len)",
    "x = 5\nprint([x for x in range(3)], {x for x in 'a'}, {x: 1 for x in 'a'}, list(x for x in 'b'), x)",
    "print([y := i for i in range(3)], y, any((z := j) > 1 for j in range(5)), z)",
    "print([[a for a in range(b)] for b in range(3)], [(lambda: c)() for c in 'xy'])",
    "fs = [lambda: i for i in range(3)]\nprint([f() for f in fs])\ni = 9\nprint([f() for f in fs])",
    "try:\n    1/0\nexcept ZeroDivisionError as e:\n    pass\nprint('e' in globals())",
    "for i, *j in [(1, 2, 3)]: pass\nprint(i, j)",
    "import os.path as p, collections.abc\nfrom os import sep as s\nprint(p.__name__, collections.abc, s)",
    "from os.path import *\nprint(join('a', 'b'))",
    "if True:\n    from string import *\nprint(digits)",
    "from no_such_module import *",
    "from os import nothing",
    "with open(__import__('os').devnull) as (f): pass\nprint(f.closed)",
    "x = 1\nclass A:\n    x = x + 1\n    y = [x for _ in range(1)]\n    def m(self): return x\nprint(A.x, A.y, A().m())",
    "class A:\n    def m(self): return __class__, super().__repr__()[:10]\nprint(A().m())",
    "class A:\n    __x = 1\n    def m(self): return __y\n_A__y = 2\nprint(A._A__x, A().m())",
    "def f(): return locals()\nprint(f(), locals() is globals(), vars() is globals())",
    "exec('a = 1')\nprint(a, eval('a'), 'a' in dir())",
    "exec('b = 1', {})\nprint('b' in globals())",
    "def f():\n    exec('q = 1')\n    return 'q' in globals()\nprint(f())",
    "import sys\nf = sys._getframe()\nprint(f.f_locals is globals(), f.f_code.co_name, f.f_lineno)",
    "import sys\nprint(sys._getframe().f_code.co_varnames, sys._getframe().f_code.co_freevars)",
    "print(__name__, __package__, __spec__, __builtins__)",
    "if __name__ == '__main__':\n    print('main')",
    "import sys, __main__\nx = 1\nprint(__main__.x, sys.modules['__main__'] is __main__, vars(__main__) is globals())",
    "print((lambda: 0).__qualname__, [(lambda: 0).__qualname__ for _ in range(1)])",
    "def f():\n    class B:\n        def m(self): pass\n    return B\nprint(f.__qualname__, f().__qualname__, f().m.__qualname__)",
    "print((i for i in 'a').__qualname__, (lambda: (i for i in 'a'))().__qualname__)",
    "async def f(): pass\nc = f()\nprint(c.__qualname__, f.__module__)\nc.close()",
    # Errors.
    "1/0",
    "def f():\n    raise KeyError('k')\nf()",
    "try:\n    1/0\nexcept ZeroDivisionError:\n    raise ValueError('v')",
    "x = 1\nx +",
    "nonlocal x",
    "def f():\n    nonlocal x",
    "x = 1\nglobal x",
    "break",
    "class A:\n    return 1",
    "def f():\n    await x",
    "from __future__ import nothing_such",
    "x = 1\nfrom __future__ import annotations",
    "assert 1 == 2, 'no'",
    # Statements of newer versions, and of the others that a function treats in another way.
    "match {'a': [1, 2, 3]}:\n    case {'a': [x, *y], **z}:\n        print(x, y, z)",
    "def g():\n    x = yield 1\n    print(x)\n    return 5\nit = g()\nprint(next(it))\ntry:\n    it.send(2)\nexcept StopIteration as e:\n    print(e.value)",
    "import warnings\nwarnings.simplefilter('always')\nwith warnings.catch_warnings(record=True) as w:\n"
    "    warnings.warn('here')\nprint(w[0].lineno, w[0].category.__name__)",
    "import dataclasses, pickle\n@dataclasses.dataclass(slots=True)\nclass D:\n    x: int\nprint(pickle.loads(pickle.dumps(D(1))))",
    "import typing\nclass T(typing.TypedDict):\n    a: int\nclass N(typing.NamedTuple):\n    b: int = 1\nprint(T(a=1), N())",
    "import typing\n@typing.runtime_checkable\nclass P(typing.Protocol):\n    def m(self): ...\nclass A:\n    def m(self): pass\n"
    "print(isinstance(A(), P), isinstance(1, P))",
    "import enum\nclass E(enum.Enum):\n    A = 1\nclass F(enum.Flag):\n    B = enum.auto()\n    C = enum.auto()\nprint(list(E), F.B | F.C)",
    "import functools\n@functools.singledispatch\ndef f(x): return 'any'\n@f.register\ndef _(x: int): return 'int'\nprint(f(1), f(''))",
    "class M(type):\n    def __new__(m, n, b, d): return super().__new__(m, n, b, {k: v for k, v in d.items() if k != 'x'})\n"
    "class A(metaclass=M):\n    x = 1\nprint(hasattr(A, 'x'), sorted(k for k in vars(A) if k[0] != '_'))",
    "def deco(c): return 'decorated'\n@deco\nclass A: pass\nprint(A)",
    "class A:\n    pass\nprint(sorted(vars(A)))",
    "import inspect\ndef f(): pass\nprint(inspect.getmodule(f).__name__, f.__globals__ is globals())",
    "import sys\nif sys.version_info >= (3, 11):\n    exec('try:\\n    raise ExceptionGroup(\"g\", [KeyError()])\\nexcept* KeyError as e:\\n    print(repr(e))')",
    "x = 10\nif x > 5:\n    def f(): return 'big'\nelse:\n    def f(): return 'small'\nprint(f())",
    "print(type(__builtins__).__name__, __import__('builtins') is __builtins__)",
    "def __getattr__(name): return name\nfrom __main__ import anything\nprint(anything)",
    "a = b = []\na += [1]\nprint(b)\n(c, d), e = (1, 2), 3\nprint(c, d, e)",
    "while True:\n    break\nelse:\n    print('no')\nfor _ in ():\n    pass\nelse:\n    print('else')",
    "print(f'{1+1=} {\"a\"!r:>5}')",
    "lambda: (yield)\nprint(list((lambda: (yield 1))()))",
]
if sys.implementation.name != "pypy":
    # There it is a KeyError for a name that is declared global.
    PIECES += ["try:\n    del x\nexcept NameError as e:\n    print(e)"]
if sys.version_info >= (3, 11):
    PIECES += [
        "try:\n    raise ExceptionGroup('g', [KeyError('k'), ValueError()])\nexcept* KeyError as e:\n    print(repr(e))\n"
        "except* ValueError as f:\n    print(repr(f))\nprint('e' in globals())",
    ]
if sys.version_info >= (3, 12):
    PIECES += [
        "type X = int\ntype L[T] = list[T]\nprint(X, X.__value__, L[int], X.__module__)",
        "type R = list[R]\nprint(R.__value__)",
        "class A[T]:\n    def m[U](self, x: T, y: U) -> T: return x\nprint(A.__type_params__, A[int], A().m(1, 2))",
        "def f[T: int](x: T) -> T: return x\nprint(f.__type_params__, f.__annotations__, f.__qualname__)",
        "print(f'{'nested'}')",
    ]
if sys.version_info >= (3, 14):
    PIECES += [
        "x: undefined\nimport annotationlib, __main__ as m\n"
        "for f in annotationlib.Format.STRING, annotationlib.Format.FORWARDREF:\n"
        "    x = annotationlib.get_annotations(m, format=f)['x']\n    print(getattr(x, '__forward_arg__', x))",
        "x: A = 1\nclass A: pass\nimport __main__\nprint(__main__.__annotations__, __annotate__(1))",
        "x: (yield)",
        "x: (y := 1)",
        "print(t'{1}'.interpolations[0].value)",
        "import __main__\nprint(__main__.__annotate__, __main__.__annotations__)",
    ]


def last_line(text: str) -> str:
    """Return what a traceback says at its end."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


@pytest.fixture(scope="module")
def machine() -> Iterator[VM]:
    with VM() as vm:
        vm.ready()
        yield vm


@pytest.mark.parametrize("source", PIECES)
def test_code_does_what_a_script_does(machine: VM, tmp_path: Path, source: str) -> None:
    file = tmp_path / "file.py"
    file.write_text(source)
    script = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, check=False
    )
    for more in ("", "\nawait __import__('asyncio').sleep(0)"):
        request = machine.eval(source + more, None)
        try:
            machine.reply(request)
        except PythonError as error:
            message = "".join(error.fields["traceback"])
        else:
            message = ""
        assert machine.printed(request).decode() == script.stdout
        assert last_line(message) == last_line(script.stderr)
