"""Promises about `snex.LoggingHandler`, up to the frames."""

from __future__ import annotations

from typing import Any

import pytest
from support.vm import VM, A, decode

LOG = 0x8A

SETUP = """
import logging, snex
handler = snex.LoggingHandler(default_metadata={"application": "mine"}, extra_metadata_keys={"user"})
log = logging.getLogger("jobs")
log.addHandler(handler)
log.propagate = False
log.setLevel("DEBUG")
"""


@pytest.fixture
def logging_vm(vm: VM) -> VM:
    vm.run(SETUP)
    return vm


def logged(vm: VM) -> tuple[Any, Any, dict[Any, Any]]:
    level, message, metadata = decode(vm.expect(LOG)[1])
    return level, message, metadata


def test_a_record_has_its_level_message_and_metadata(logging_vm: VM) -> None:
    vm = logging_vm
    vm.run(
        "try: 1 / 0\nexcept ZeroDivisionError: log.exception('oh', extra={'user': 7, 'other': 8})"
    )
    level, message, metadata = logged(vm)
    assert level == A("error")
    assert message.startswith(b"oh\nTraceback")
    assert metadata[A("user")] == 7
    assert A("other") not in metadata
    assert metadata[A("application")] == b"mine"
    assert metadata[A("python_exception")] == b"ZeroDivisionError"
    assert metadata[A("line")] == 2


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("await asyncio.sleep(0)\nlog.info('x')", True),
        ("await asyncio.to_thread(log.info, 'x')", False),
    ],
)
def test_the_task_is_named_where_there_is_one(
    logging_vm: VM,
    where: str,
    *,
    named: bool,
) -> None:
    logging_vm.run(f"import asyncio\n{where}")
    _level, message, metadata = logged(logging_vm)
    assert message == b"x"
    assert (A("python_task_name") in metadata) is named


def test_what_cannot_travel_is_described(logging_vm: VM) -> None:
    logging_vm.run("log.warning('x', extra={'user': object})")
    assert logged(logging_vm)[2][A("user")] == b"<class 'object'>"
    logging_vm.run("log.warning('a\\ud800b')")
    assert logged(logging_vm)[1] == rb"'a\ud800b'"


def test_a_record_that_cannot_be_formatted_is_reported_as_python_does(logging_vm: VM) -> None:
    vm = logging_vm
    vm.run("log.warning('%d', 'no number')\nlog.warning('the next')")
    assert logged(vm)[1] == b"the next"
    vm.finish()
    printed = b"".join(body[1:] for *_, body in vm.pending) + vm.errors().encode()
    assert b"--- Logging error ---" in printed
