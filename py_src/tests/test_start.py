"""Promises about the start: where modules come from, and that odd paths do no harm."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.etf import decode
from support.vm import PACKAGE, READY, VM, PythonError

# What this package and the start of Python import, or have imported, and what would hide the package.
NAMES = sorted(
    {
        name.partition(".")[0]
        for name in sys.modules
        if name.partition(".")[0] in sys.stdlib_module_names
    }
    | {"runpy", "asyncio", "struct", "queue", "traceback", "linecache", "tokenize"}
    | {path.stem for path in (PACKAGE / "snex").rglob("*.py") if path.stem[:2] != "__"}
    | {path.parent.name for path in (PACKAGE / "snex").glob("*/__init__.py")}
)


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """Return a folder in which each of those modules raises, and a package `snex` as well."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(
            f"raise RuntimeError('{name} of the working directory')\n"
        )
    for package in ("snex", "asyncio", "logging"):
        folder = tmp_path / package
        folder.mkdir()
        (folder / "__init__.py").write_text(
            f"raise RuntimeError('{package} of the working directory')\n"
        )
    (tmp_path / "users_own.py").write_text("answer = 42\n")
    return tmp_path


def works(vm: VM) -> None:
    vm.ready()
    assert vm.run("import struct, snex\nreturn struct.calcsize('<Q')") == 8
    assert vm.run("import users_own\nreturn users_own.answer") == 42
    with pytest.raises(PythonError) as caught:
        vm.run("1 / 0")
    assert any("ZeroDivisionError" in line for line in caught.value.fields["traceback"])
    with pytest.raises(PythonError) as caught:
        vm.run("1 +")
    assert any("SyntaxError" in line for line in caught.value.fields["traceback"])
    names = "LoggingHandler", "serve", "EncodingOpts", "io_loop_for_connection"
    for name in names:
        assert vm.run(f"return snex.{name}.__module__").startswith(b"snex")


def test_nothing_of_ours_is_imported_from_the_working_directory(traps: Path) -> None:
    with VM(cwd=traps) as vm:
        works(vm)


def test_nor_with_m_but_for_what_python_needs_to_find_the_package(tmp_path: Path) -> None:
    for name in ("struct", "asyncio", "selectors", "_wire"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError\n")
    (tmp_path / "users_own.py").write_text("answer = 42\n")
    with VM(cwd=tmp_path, stdio=True) as vm:
        works(vm)


def test_nor_from_the_users_folders(traps: Path) -> None:
    # Without what Python itself needs to start.
    for name in (
        "abc",
        "codecs",
        "encodings",
        "genericpath",
        "io",
        "os",
        "posixpath",
        "stat",
        "_collections_abc",
    ):
        (traps / f"{name}.py").unlink(missing_ok=True)
    with VM(python_path=str(traps), args=("-S",)) as vm:
        vm.ready()
        assert vm.run(
            "import struct, users_own\nreturn struct.calcsize('<Q'), users_own.answer"
        ) == (8, 42)


def test_a_module_that_a_pth_file_has_imported_from_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "struct.py").write_text("mine = True\n")
    (tmp_path / "sitecustomize.py").write_text("import struct; assert struct.mine\n")
    with VM(python_path=str(tmp_path)) as vm:
        vm.ready()
        assert vm.run("import struct\nreturn struct.calcsize('<Q')") == 8


def test_modules_of_the_working_directory_are_found_as_by_a_script_with_m(tmp_path: Path) -> None:
    (tmp_path / "users_own.py").write_text("answer = 42\n")
    with VM(cwd=tmp_path) as vm:
        vm.ready()
        assert vm.run("import sys\nreturn sys.path[0]") == os.fsencode(tmp_path)
        assert vm.run("import users_own\nreturn users_own.answer") == 42
        assert vm.run("return sys.path.count(sys.path[0]), snex.__path__[0] in sys.path") == (
            1,
            False,
        )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="`-P` came with 3.11")
def test_with_p_the_working_directory_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "users_own.py").write_text("answer = 42\n")
    with VM(cwd=tmp_path, args=("-P",)) as vm:
        vm.ready()
        with pytest.raises(PythonError, match="No module named"):
            vm.run("import users_own")


def test_a_working_directory_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    script = f"rmdir '{folder}' && exec '{sys.executable}' \"$@\""
    with VM(python="/bin/sh", args=("-c", script, "sh"), cwd=folder) as vm:
        vm.ready()
        assert vm.run("return 1") == 1


def test_a_path_that_is_no_text_does_no_harm(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9 \xff"
    os.mkdir(folder)  # noqa: PTH102 - bytes
    link = folder + b"/python"
    os.symlink(sys.executable, link)
    with VM(python=os.fsdecode(link), cwd=Path(os.fsdecode(folder))) as vm:
        _, body = vm.expect(READY)
        assert decode(body)[b"executable"] in {link, os.fsencode(sys.executable)}
        assert vm.run("import os\nreturn os.getcwdb()") == folder
        with pytest.raises(PythonError, match="gone"):
            vm.run("import sys\nopen(os.path.join(sys.path[0], 'gone'))")


def test_bytecode_of_the_package_is_kept_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "users_own.py").write_text("answer = 42\n")
    with VM(cwd=tmp_path) as vm:
        vm.ready()
        assert vm.run("import users_own, sys\nreturn sys.dont_write_bytecode") is True
        cached = vm.run("import snex._main, os\nreturn os.path.exists(snex._main.__cached__)")
    assert cached is True
    assert not (tmp_path / "__pycache__").exists()
