"""Code that waits for Elixir on the event loop's own thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .vm import CALL

if TYPE_CHECKING:
    from .vm import VM

ASK = "snex.call_sync('m', 'f', [{}])"
# `&Enum.sum/1` in external term format.
SUM = b"\x83q" + b"w\x0bElixir.Enum" + b"w\x03sum" + b"a\x01"


def waiting(vm: VM, source: str, **more: Any) -> tuple[int, int]:
    """Run code that waits; return the number of its request and of its call."""
    request = vm.eval(source, **more)
    return request, vm.expect(CALL)[0]


def nest(vm: VM, levels: int, code: str) -> list[int]:
    """Have requests wait on top of each other; return the calls, innermost last."""
    calls: list[int] = []
    for _ in range(levels):
        vm.eval(code, cause=calls[-1] if calls else 0)
        calls.append(vm.expect(CALL)[0])
    return calls
