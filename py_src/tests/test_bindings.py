from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import snex
from snex._bindings.docs import Converter

SCRIPT = Path(snex.__file__).parent / "_bindings" / "__main__.py"


def ask(folder: Path, module: str, **request: Any) -> Any:
    """What the generator's program answers about a module, in a Python of its own."""
    question, answer = folder / "request.json", folder / "answer.json"
    defaults: dict[str, Any] = {"only": None, "except": [], "submodules": False, "tools": None}
    question.write_text(json.dumps({"module": module, **defaults, **request}))
    done = subprocess.run(
        [sys.executable, SCRIPT, question, answer],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONHASHSEED": "0"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert answer.exists(), done
    return json.loads(answer.read_text())


def described(folder: Path, code: str, **request: Any) -> dict[str, Any]:
    """The members of a module with this code, by their names."""
    (folder / "subject.py").write_text(textwrap.dedent(code))
    answer = ask(folder, "subject", **request)
    assert "error" not in answer, answer["error"]
    return {one["name"]: one for one in answer["modules"][0]["members"]}


def types(member: dict[str, Any]) -> dict[str, Any]:
    """The types of a function's parameters, by their names, and of what it returns."""
    [signature] = member["signatures"]
    parameters = {one["name"]: one["type"] for one in signature["parameters"]}
    return {**parameters, "return": signature["returns"]}


def test_functions_classes_and_constants_are_told_apart(tmp_path: Path) -> None:
    found = described(
        tmp_path,
        """
        import os
        from typing import Any, ClassVar

        LIMIT = 3
        T = Any

        def f(a, /, b, c=1, *rest, d, **more):
            '''Does something.'''

        class Point:
            '''A point.'''
            x: int
            ORIGIN: ClassVar["Point"]
            scale = 2
            def __init__(self, x, y=0): ...
            def move(self, by): ...
            @property
            def length(self) -> float: ...
            @classmethod
            def parse(cls, text): ...
            @staticmethod
            def distance(one, other): ...
            def _private(self): ...

        def _private(): ...
        """,
    )
    assert set(found) == {"LIMIT", "f", "Point"}
    assert found["LIMIT"]["kind"] == "constant"
    assert (found["LIMIT"]["type"], found["LIMIT"]["value"]) == (["int"], "3")
    [signature] = found["f"]["signatures"]
    assert [(p["name"], p["kind"], p["default"]) for p in signature["parameters"]] == [
        ("a", "positional_only", None),
        ("b", "positional", None),
        ("c", "positional", "1"),
        ("rest", "rest", None),
        ("d", "keyword", None),
        ("more", "any_keyword", None),
    ]
    assert "Does something." in found["f"]["doc"]
    members = {one["name"]: one for one in found["Point"]["members"]}
    assert {name: one["kind"] for name, one in members.items()} == {
        "new": "constructor",
        "distance": "static",
        "length": "property",
        "move": "method",
        "parse": "static",
        "scale": "constant",
        "x": "property",
    }
    assert members["x"]["type"] == ["int"]
    # Python itself passes the object, or the class.
    assert set(types(members["new"])) == {"x", "y", "return"}
    assert set(types(members["move"])) == {"by", "return"}
    assert set(types(members["parse"])) == {"text", "return"}
    assert set(types(members["distance"])) == {"one", "other", "return"}
    assert members["length"]["type"] == ["float"]


def test_classes_in_classes_are_classes_too(tmp_path: Path) -> None:
    code = """
        class Outer:
            class Inner:
                '''Within.'''
                class Innermost: ...
                def name(self) -> str: ...
                @property
                def itself(self) -> "Outer.Inner": ...
            # Only names for classes that are elsewhere.
            number = int
            me: type
            def make(self) -> "Outer.Inner": ...
        Outer.me = Outer

        class Below(Outer): ...
        """
    found = described(tmp_path, code)
    assert set(found) == {"Outer", "Outer.Inner", "Outer.Inner.Innermost", "Below"}
    inner = found["Outer.Inner"]
    assert inner["kind"] == "class"
    assert "Within." in inner["doc"]
    assert [(one["name"], one["path"]) for one in inner["members"]] == [
        ("new", "Outer.Inner"),
        ("itself", "Outer.Inner.itself"),
        ("name", "Outer.Inner.name"),
    ]
    make = next(one for one in found["Outer"]["members"] if one["name"] == "make")
    assert types(make)["return"] == ["class", inner["type"]]

    def names(**request: Any) -> set[str]:
        found = described(tmp_path, code, **request)
        return {f"{name}.{one['name']}" for name in found for one in found[name]["members"]}

    assert names(only=["Outer.Inner.name"]) == {"Outer.new", "Outer.Inner.new", "Outer.Inner.name"}
    assert "Outer.Inner.Innermost.new" in names(only=["Outer.Inner"])
    assert names(only=["Outer"]) >= {"Outer.make", "Outer.Inner.Innermost.new"}
    assert not any("Inner" in name for name in names(**{"except": ["Outer.Inner"]}))


def test_a_module_exports_what_all_says_and_otherwise_what_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("def foreign(): ...\n")
    code = """
        from elsewhere import foreign
        from json import dumps
        def own(): ...
        def other(): ...
        """
    assert set(described(tmp_path, code)) == {"own", "other"}
    exported = code + "\n        __all__ = ['own', 'foreign', 'not_there']\n"
    assert set(described(tmp_path, exported)) == {"own", "foreign"}


def test_annotations_are_resolved_as_far_as_they_go(tmp_path: Path) -> None:
    found = described(
        tmp_path,
        """
        from __future__ import annotations
        from collections.abc import Awaitable, Callable, Iterator, Sequence
        from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union

        if TYPE_CHECKING:
            from nowhere import Unknown

        Json = Union[dict[str, "Json"], list["Json"], str, None]
        Number = Union[int, float]

        class Row(TypedDict, total=False):
            name: str

        class Pair(NamedTuple):
            left: int
            right: Any

        class Thing:
            def itself(self) -> Thing: ...

        def simple(a: int, b: float | None, c: list[str], d: dict[str, int]) -> bool: ...
        def old(a: Optional[int], b: Union[str, bytes]) -> tuple[int, str]: ...
        def literal(a: Literal["x", 1, None]) -> Literal[True]: ...
        def partly(a: Unknown, b: list[Unknown], c: int) -> dict[str, Unknown]: ...
        def alias(a: Number, b: Annotated[int, "metres"]) -> Callable[[int], int]: ...
        def named(a: Row) -> Pair: ...
        def recursive(a: Json) -> Json: ...
        async def waits() -> Awaitable[int]: ...
        def streams() -> Iterator[int]: ...
        def broken(a: "1 +", b: int) -> "no such name": ...
        """,
    )

    def union(*of: Any) -> list[Any]:
        return ["union", list(of)]

    integer, text, none, anything = ["int"], ["str"], ["none"], ["any"]
    assert types(found["simple"]) == {
        "a": integer,
        "b": union(["float"], none),
        "c": ["list", text],
        "d": ["dict", text, integer],
        "return": ["bool"],
    }
    assert types(found["old"]) == {
        "a": union(integer, none),
        "b": union(text, ["bytes"]),
        "return": ["tuple", [integer, text]],
    }
    assert types(found["literal"]) == {
        "a": union(["literal", "x"], ["literal", 1], none),
        "return": ["literal", True],
    }
    assert types(found["partly"]) == {
        "a": anything,
        "b": ["list", anything],
        "c": integer,
        "return": ["dict", text, anything],
    }
    assert types(found["alias"]) == {
        "a": union(integer, ["float"]),
        "b": integer,
        "return": ["callable"],
    }
    assert types(found["named"]) == {
        "a": ["typed_dict", [["name", text, False]]],
        "return": ["tuple", [integer, anything]],
    }
    assert types(found["recursive"])["a"][0] == "union"
    assert types(found["waits"])["return"] == integer
    assert types(found["streams"])["return"] == ["iterator", integer]
    assert types(found["broken"]) == {"a": anything, "b": integer, "return": anything}
    thing = {one["name"]: one for one in found["Thing"]["members"]}
    assert types(thing["itself"])["return"] == ["class", "subject.Thing"]


def test_a_stub_says_what_the_module_does_not(tmp_path: Path) -> None:
    (tmp_path / "other.pyi").write_text("def imported(a: bytes) -> int: ...\n")
    (tmp_path / "other.py").write_text("def imported(a): ...\n")
    (tmp_path / "subject.pyi").write_text(
        textwrap.dedent(
            """
            import sys
            from typing import overload
            from other import imported as imported

            _Alias = int | str

            def plain(a: _Alias, b: list[int] = ...) -> float: ...
            @overload
            def opaque(a: int) -> int: ...
            @overload
            def opaque(a: int, b: int, *, c: int = ...) -> str: ...
            if sys.version_info >= (3, 4):
                def recent(a: int) -> None: ...
            else:
                def recent(a: str) -> None: ...
            class Box:
                def __init__(self, size: int) -> None: ...
                def open(self, slowly: bool = ...) -> str: ...
                @property
                def size(self) -> int: ...
            """
        )
    )
    found = described(
        tmp_path,
        """
        from other import imported
        __all__ = ["plain", "opaque", "recent", "Box", "imported"]

        def plain(a, b=None): ...
        class _Opaque:
            __signature__ = 0
            def __call__(self): ...
        opaque = _Opaque()
        def recent(a): ...
        class Box:
            def __init__(self, size): ...
            def open(self, slowly=False): ...
            @property
            def size(self): ...
        """,
    )
    assert types(found["plain"]) == {
        "a": ["union", [["int"], ["str"]]],
        "b": ["list", ["int"]],
        "return": ["float"],
    }
    first, second = found["opaque"]["signatures"]
    assert [p["name"] for p in first["parameters"]] == ["a"]
    assert [p["name"] for p in second["parameters"]] == ["a", "b", "c"]
    assert types(found["recent"])["a"] == ["int"]
    assert types(found["imported"])["a"] == ["bytes"]
    members = {one["name"]: one for one in found["Box"]["members"]}
    assert types(members["new"])["size"] == ["int"]
    assert types(members["open"])["slowly"] == ["bool"]
    assert members["size"]["type"] == ["int"]


def test_stubs_may_be_installed_in_a_package_of_their_own(tmp_path: Path) -> None:
    """As `types-requests` does, in a folder `requests-stubs`."""
    for file, text in {
        "bare/__init__.py": "def f(a): ...",
        "bare/below.py": "def g(a): ...",
        "bare-stubs/__init__.pyi": "def f(a: int) -> str: ...",
        "bare-stubs/below.pyi": "def g(a: bytes) -> float: ...",
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    top, below = ask(tmp_path, "bare", submodules=True)["modules"]
    assert types(top["members"][0]) == {"a": ["int"], "return": ["str"]}
    assert types(below["members"][0]) == {"a": ["bytes"], "return": ["float"]}


def test_a_source_file_may_have_another_encoding(tmp_path: Path) -> None:
    code = "# -*- coding: latin-1 -*-\ndef größe():\n    'Gibt die Größe zurück.'\n"
    (tmp_path / "subject.py").write_bytes(code.encode("latin-1"))
    [one] = ask(tmp_path, "subject")["modules"][0]["members"]
    assert one["name"] == "größe"
    assert "Gibt die Größe zurück." in one["doc"]


def functions(folder: Path, code: str) -> list[tuple[str, list[str]]]:
    """The functions of a module with this code, each with its parameters."""
    (folder / "subject.py").write_text(code)
    members = ask(folder, "subject")["modules"][0]["members"]
    return [
        (one["name"], [p["name"] for s in one["signatures"] for p in s["parameters"]])
        for one in members
    ]


def test_a_name_that_is_defined_or_exported_twice_is_there_once(tmp_path: Path) -> None:
    code = "__all__ = ['f', 'f', 'gone']\ndef f(): ...\ndef f(a): ...\n"
    assert functions(tmp_path, code) == [("f", ["a"])]


def test_thousands_of_functions_are_described(tmp_path: Path) -> None:
    code = "\n".join(f"def f{i}(a, b={i}): return a" for i in range(5_000))
    expected = sorted((f"f{i}", ["a", "b"]) for i in range(5_000))
    assert functions(tmp_path, code) == expected


def test_the_first_line_of_the_documentation_may_be_the_signature(tmp_path: Path) -> None:
    found = described(
        tmp_path,
        """
        class _Opaque:
            __signature__ = 0
            __name__ = "add"
            def __init__(self, doc): self.__doc__ = doc
            def __call__(self): ...
        add = _Opaque("add(x1, x2, /, out=None, *, where=True[, signature])\\n\\nAdd.")
        none = _Opaque("Nothing is known.")
        """,
    )
    [signature] = found["add"]["signatures"]
    assert [(p["name"], p["kind"]) for p in signature["parameters"]] == [
        ("x1", "positional_only"),
        ("x2", "positional_only"),
        ("out", "positional"),
        ("where", "keyword"),
        ("signature", "keyword"),
    ]
    assert found["none"]["signatures"] == []
    # It is no part of what is said about the function.
    assert "Add." in found["add"]["doc"]
    assert "x1" not in found["add"]["doc"]


def test_hostile_modules_are_described_all_the_same(tmp_path: Path) -> None:
    found = described(
        tmp_path,
        """
        import sys, warnings
        print("a lot", file=sys.stderr); print("of noise")
        warnings.warn("and warnings")

        class Meta(type):
            def __getattribute__(cls, name):
                raise SystemExit(3)
            def __dir__(cls):
                raise KeyboardInterrupt

        class Hostile(metaclass=Meta):
            def method(self): ...

        class Descriptor:
            def __get__(self, instance, owner): raise RuntimeError
        class Holder:
            raises = Descriptor()
            def fine(self): ...

        class Shown:
            def __repr__(self): raise ValueError
        def default(a=Shown(), b=object()): ...

        def documented(): ...
        documented.__doc__ = "x" * 1_000_000
        def surrogate(): ...
        surrogate.__doc__ = "a \\udc80 b \\x00"
        def strange(): ...
        strange.__doc__ = b"bytes"

        for number in range(5_000):
            exec(f"def f{number}(a): ...")

        import atexit
        atexit.register(lambda: 1 / 0)
        """,
    )
    assert "fine" in {one["name"] for one in found["Holder"]["members"]}
    [signature] = found["default"]["signatures"]
    assert [p["default"] for p in signature["parameters"]] == ["...", "..."]
    assert 200_000 < len(found["documented"]["doc"]) < 400_000
    assert "a ? b" in found["surrogate"]["doc"]
    assert found["strange"]["doc"] is None
    assert len([name for name in found if name.startswith("f")]) == 5_000


def test_an_import_that_fails_is_told_with_its_own_traceback(tmp_path: Path) -> None:
    (tmp_path / "subject.py").write_text("def inner():\n    1 / 0\n\ninner()\n")
    error = ask(tmp_path, "subject")["error"]
    assert "ZeroDivisionError" in error
    assert 'subject.py", line 2, in inner' in error
    assert "_bindings" not in error
    assert "No module named 'missing'" in ask(tmp_path, "missing")["error"]
    (tmp_path / "leaves.py").write_text("raise SystemExit(4)\n")
    assert "SystemExit: 4" in ask(tmp_path, "leaves")["error"]


def test_names_are_selected_and_unknown_ones_reported(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text(
        "def one(): ...\ndef two(): ...\nclass A:\n    def f(self): ...\n    def g(self): ...\n"
    )
    (package / "inner.py").write_text("def three(): ...\ndef four(): ...\n")
    (package / "broken.py").write_text("import missing\n")

    def names(**request: Any) -> list[str]:
        found = []
        for module in ask(tmp_path, "package", **request)["modules"]:
            for one in module["members"]:
                found.append(f"{module['name']}.{one['name']}")
                found += [f"{one['name']}.{inner['name']}" for inner in one.get("members", [])]
        return found

    assert names(only=["one"]) == ["package.one"]
    assert names(only=["__doc__"]) == ["package.__doc__"]
    assert names(only=["A"]) == ["package.A", "A.new", "A.f", "A.g"]
    assert names(only=["A.g"]) == ["package.A", "A.new", "A.g"]
    assert names(**{"except": ["A", "two"]}) == ["package.one"]
    only = ["one", "inner.three"]
    assert names(only=only, submodules=["inner"]) == ["package.one", "package.inner.three"]
    answer = ask(tmp_path, "package", submodules=True)
    assert [name for name, _ in answer["failed"]] == ["package.broken"]
    assert "No module named 'missing'" in answer["failed"][0][1]
    assert ask(tmp_path, "package", only=["one", "ones"])["unknown"] == [["ones", "one"]]


def test_files_of_the_users_own_are_named_and_installed_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "subject.py").write_text("import json\n")
    assert ask(tmp_path, "subject")["files"] == [str((tmp_path / "subject.py").resolve())]
    assert ask(tmp_path, "json")["files"] == []


def test_deprecations_are_found(tmp_path: Path) -> None:
    found = described(
        tmp_path,
        '''
        def decorated(): ...
        decorated.__deprecated__ = "use other()"
        def documented():
            """Old.

            .. deprecated:: 2.0
               Use other().
            """
        def parameter(a):
            """Current.

            Args:
                a: Something.

                    .. deprecated:: 2.0
            """
        def current(): ...
        ''',
    )
    assert found["parameter"]["deprecated"] is None
    assert found["decorated"]["deprecated"] == "use other()"
    assert found["documented"]["deprecated"] == "since 2.0 Use other()."
    assert found["current"]["deprecated"] is None


def test_names_for_one_object_have_one_number(tmp_path: Path) -> None:
    found = described(tmp_path, "def f(): ...\ng = f\nclass A: ...\nB = A\ndef h(): ...\n")
    assert found["f"]["object"] == found["g"]["object"] != found["h"]["object"]
    assert found["A"]["object"] == found["B"]["object"]


def test_docstrings_of_all_styles_become_markdown() -> None:
    convert = Converter("/").markdown
    google = convert(
        """Divide.

        Longer text about :func:`subject.other` and ``x``.

        Args:
            a (int): The *first*.
            b: The second,
                on two lines.

        Returns:
            float: The quotient.

        Raises:
            ZeroDivisionError: If there is none.

        Example:
            >>> divide(
            ...     1, 2)
            0.5

            And more.
        """
    )
    assert google == textwrap.dedent(
        """\
        Divide.

        Longer text about `subject.other()` and `x`.

        ## Parameters

        * `a` - `int`: The *first*.

        * `b`: The second,
          on two lines.

        ## Returns

        * `float`: The quotient.

        ## Raises

        * `ZeroDivisionError`: If there is none.

        ## Examples

        ```python
        divide(
            1, 2)
        ```

        ```text
        0.5
        ```

        And more."""
    )
    numpy = convert(
        """Clip values.

        Parameters
        ----------
        a_min, a_max : array_like or None
            Bounds.

        Returns
        -------
        out : ndarray
            The result.

        Notes
        -----
        As :math:`x^2` goes.

        Examples
        --------
        >>> f = g(
        ...     1)
        >>> f  # doctest: +ELLIPSIS
        2

        Then

        >>> f
        3
        """
    )
    assert numpy is not None
    assert "* `a_min, a_max` - `array_like or None`: Bounds." in numpy
    assert "* `out` - `ndarray`: The result." in numpy
    assert (
        "```python\nf = g(\n    1)\nf\n```\n\n```text\n2\n```\n\nThen\n\n```python\nf\n```" in numpy
    )
    rest = convert(
        """Add.

        :param int a: The first.
        :param b: The second.
        :returns: The sum.
        :raises ValueError: Never.
        """
    )
    assert rest is not None
    assert "* `a` - `int`: The first.\n\n* `b`: The second.\n\n## Returns\n\nThe sum." in rest


def test_without_the_libraries_a_docstring_is_shown_as_it_is() -> None:
    assert (
        Converter(None).markdown("One\n\n    two ``` three")
        == "````text\nOne\n\ntwo ``` three\n````"
    )
    assert Converter(None).markdown("  \n") is None
