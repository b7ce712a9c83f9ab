"""Promises about requests that need no interpreter: when `Cancelled` is raised, and how often."""

from __future__ import annotations

import asyncio
import threading

import pytest

from snex._eval.request import Cancelled, Request, current, is_running, running_task


@pytest.fixture
def request_() -> Request:
    """Return a request with an hour for its cleanup."""
    request = Request(7)
    request.cleanup_timeout = 3600.0
    return request


def test_a_place_is_interrupted_once_until_its_cleanup_has_had_its_time(request_: Request) -> None:
    first, second = object(), object()
    assert request_.interrupt(first)
    assert not request_.interrupt(first)
    assert request_.interrupt(second)
    request_.cleanup_timeout = 0.0
    third = object()
    assert request_.interrupt(third)
    assert request_.interrupt(third)


def test_nothing_is_interrupted_while_its_tasks_clean_up(request_: Request) -> None:
    request_.begin_cleanup()
    assert not request_.interrupt(None)


def test_what_came_at_the_wrong_moment_is_raised_at_the_next_checkpoint(request_: Request) -> None:
    request_.checkpoint()
    request_.interrupted = True
    with pytest.raises(Cancelled):
        request_.checkpoint()
    assert request_.noticed
    request_.checkpoint()


def test_but_not_in_its_cleanup_not_after_its_end_and_not_in_other_threads(
    request_: Request,
) -> None:
    request_.begin_cleanup()
    request_.interrupted = True
    request_.checkpoint()
    assert not request_.interrupted

    request_.cleaning_until = 0.0
    request_.interrupted = request_.ended = True
    request_.checkpoint()

    request_.ended = False
    thread = threading.Thread(target=request_.checkpoint)
    thread.start()
    thread.join()
    assert request_.interrupted


def test_in_its_own_thread_nobody_looks_at_the_cleanup(request_: Request) -> None:
    request_.thread = threading.get_ident()
    assert request_.is_here
    request_.begin_cleanup()
    request_.interrupted = True
    with pytest.raises(Cancelled):
        request_.checkpoint()


def test_the_shield_is_raised_in_its_own_thread_only(request_: Request) -> None:
    with request_:
        assert request_.shield == 1
    request_.thread = threading.get_ident()
    with request_:
        assert request_.shield == 2
    assert request_.shield == 1


def test_a_task_is_a_place_of_its_own() -> None:
    async def main() -> None:
        assert running_task() is asyncio.current_task()

    assert running_task() is None
    asyncio.run(main())


def test_code_runs_for_a_request_until_that_is_answered(request_: Request) -> None:
    assert not is_running()
    token = current.set(request_)
    try:
        assert is_running()
        request_.ended = True
        assert not is_running()
    finally:
        current.reset(token)
