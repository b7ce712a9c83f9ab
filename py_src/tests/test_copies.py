"""Promises about copies, which are forked from a template."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from support.copies import Copy, Template
from support.vm import OBJECT, PythonError

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sys.implementation.name != "cpython",
    reason="copies need CPython on Linux",
)

SETUP = "import os, random\nx = [1, 2]\ndef double(): return [2 * n for n in x]"


def test_a_copy_begins_with_the_root_environment_and_is_isolated() -> None:
    with Template() as template:
        template.run(SETUP)
        with Copy(template) as copy, Copy(template) as other:
            assert copy.greeting["pid"] == copy.pid
            assert copy.run("return double()") == [2, 4]
            copy.run("x.append(3)")
            other.run("x.clear()")
            assert copy.run("return x") == [1, 2, 3]
            assert other.run("return x") == []
            assert template.run("return x") == [1, 2]
            pids = {vm.run("return os.getpid()") for vm in (template, copy, other)}
            assert pids == {template.process.pid, copy.pid, other.pid}
            copy.finish()
            other.finish()
        template.finish()


def test_a_copy_leads_a_session_and_adopts_what_its_descendants_leave() -> None:
    with Template() as template, Copy(template) as copy:
        template.run("import os")
        code = """
import os
r, w = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.close(r)
        while os.getppid() != %d: pass
        os.write(w, b"adopted")
    os._exit(0)
os.wait()
return [os.getsid(0), os.getpgid(0), os.getppid(), os.read(r, 7)]
"""
        assert copy.run(code % copy.pid) == [copy.pid, copy.pid, os.getpid(), b"adopted"]


def test_context_variables_of_the_root_are_there() -> None:
    with Template() as template:
        template.run("import contextvars\nv = contextvars.ContextVar('v')\nv.set('set')")
        with Copy(template) as copy:
            assert copy.run("return v.get()") == b"set"


def test_environments_and_objects_of_the_template_are_not_there() -> None:
    with Template() as template:
        template.make_env(7, [], {"y": 1})
        template.reply(template.invoke("object", flags=OBJECT))
        count = "from snex._eval import objects\nreturn len(objects.table)"
        assert template.run(count) == 1
        with Copy(template) as copy:
            assert copy.run(count) == 0
            with pytest.raises(PythonError, match="no environment with id 7"):
                copy.run("return y", 7)


def test_prints_and_calls_are_the_copys_own() -> None:
    with Template() as template:
        template.run("import os\nprint('template')")
        with Copy(template) as copy:
            request = copy.eval(
                "print('printed')\nos.write(1, b'written')\nos.write(2, b'complained')\n"
                "return await snex.call('m', 'f', [])"
            )
            call, _body = copy.expect(0x85)
            copy.answer(call, "answer")
            assert copy.reply(request) == b"answer"
            assert copy.printed(request) == b"printed\n"
            copy.finish()
            assert copy.written(copy.output_fd) == "written"
            assert copy.written(copy.error_fd) == "complained"
        template.finish()


def test_what_was_buffered_is_written_once() -> None:
    with Template() as template:
        template.run(
            "import ctypes, os\nbuffered = os.fdopen(os.dup(1), 'w')\nlibc = ctypes.CDLL(None)\nlibc.printf(b'once')"
        )
        with Copy(template) as copy:
            copy.finish()
            assert copy.written(copy.output_fd) == ""


def test_a_call_of_a_copy_is_interrupted() -> None:
    with Template() as template, Copy(template) as copy:
        request = copy.eval("while True: pass")
        copy.send(5, request)
        os.write(copy.interrupt_fd, request.to_bytes(8, "little"))
        os.kill(copy.pid, signal.SIGURG)
        assert copy.expect(0x89)[0] == request
        assert copy.run("return 1") == 1
        assert template.run("return 2") == 2


def test_random_numbers_differ() -> None:
    with Template() as template:
        template.run("import random\nrandom.seed(1)")
        with Copy(template) as one, Copy(template) as other:
            code = "return random.getrandbits(64)"
            numbers = {vm.run(code) for vm in (template, one, other)}
            assert len(numbers) == 3


def test_hooks_for_children_run_once_and_in_the_copy() -> None:
    with Template() as template:
        code = """
import os, threading
ran = []
os.register_at_fork(after_in_child=lambda: ran.append(os.getpid()))
"""
        template.run(code)
        with Copy(template) as copy:
            assert copy.run("return ran") == [copy.pid]
            main = "return threading.main_thread().native_id"
            assert copy.run(main) == copy.pid
            assert template.run(main) == template.process.pid


def test_a_copy_outlives_its_template() -> None:
    with Template() as template:
        template.run(SETUP)
        copy = Copy(template)
    with copy:
        assert copy.run("return double()") == [2, 4]
        copy.finish()


def test_the_event_loop_of_the_template_is_left_alone() -> None:
    with Template() as template:
        code = """
import asyncio
ticks = 0
async def tick():
    global ticks
    while True:
        await asyncio.sleep(0.001)
        ticks += 1
task = asyncio.get_running_loop().create_task(tick())
"""
        template.run(code + "await asyncio.sleep(0)")
        with Copy(template) as copy:
            assert copy.run("import asyncio\nreturn len(asyncio.all_tasks())") == 0
            before = copy.run("return ticks")
            assert copy.run("await asyncio.sleep(0.02)\nreturn ticks") == before
            copy.finish()
            assert copy.written(copy.error_fd) == ""
        before = template.run("return ticks")
        assert template.run("await asyncio.sleep(0.1)\nreturn ticks") > before


def test_a_template_with_a_thread_is_refused_by_name() -> None:
    with Template() as template:
        template.run(
            "import threading\nstop = threading.Event()\n"
            "thread = threading.Thread(target=stop.wait, name='watcher', daemon=True)\nthread.start()"
        )
        assert "threads of its own, which a copy would lack: watcher." in template.refusal()
        with Copy(template, ignore_threads=True) as copy:
            assert copy.run("import threading\nreturn len(threading.enumerate())") == 1
        template.run("stop.set()\nthread.join()")
        with Copy(template) as copy:
            assert copy.run("return 1") == 1


def test_a_template_with_a_thread_of_c_code_is_refused() -> None:
    with Template() as template:
        template.run("import _thread, os, time\n_thread.start_new_thread(time.sleep, (1000,))")
        assert "threads of its own, which a copy would lack: " in template.refusal()
        assert template.run("return 1") == 1


def test_idle_threads_of_ours_and_of_asyncio_are_no_reason_to_refuse() -> None:
    with Template() as template:
        assert template.run("return 1", thread=True) == 1
        template.run("import asyncio\nawait asyncio.to_thread(int)")
        with Copy(template) as copy:
            assert copy.run("return 2", thread=True) == 2
            copy.run("import asyncio\nawait asyncio.to_thread(int)")
        assert template.run("return 1", thread=True) == 1
        template.run("await asyncio.to_thread(int)")


def test_a_template_with_a_call_under_way_is_refused() -> None:
    with Template() as template:
        template.run("import asyncio")
        template.run("e = asyncio.Event()")
        request = template.eval("await snex.send('', 'waits')\nawait e.wait()")
        call, _ = template.expect(0x87)
        assert template.refusal() == (
            "the template has a call under way, which a copy could not continue"
        )
        template.answer(call)
        template.run("e.set()")
        template.reply(request)
        with Copy(template) as copy:
            assert copy.run("return 1") == 1


def test_a_process_that_is_no_child_of_the_warden_is_refused() -> None:
    with Template() as template:
        assert ":wrap_exec" in template.refusal(warden=1)


def test_too_few_descriptors_are_refused() -> None:
    with Template() as template:
        pipe = os.pipe()
        template.ask(list(pipe))
        for fd in pipe:
            os.close(fd)
        assert template.told()[1:] == (
            0,
            "the template has too few free file descriptors: a copy needs 8 for a moment. "
            "Close files in the template, or raise its option limits: [open_files: number]",
        )
        assert template.run("import os\nreturn len(os.listdir('/proc/self/fd'))") == template.run(
            "return len(os.listdir('/proc/self/fd'))"
        )


def test_a_copy_has_limits_of_its_own() -> None:
    with Template() as template:
        limits = {"memory": 1 << 40, "cpu": 50, "open_files": 30, "nice": 3}
        with Copy(template, {"limits": limits}) as copy:
            code = "import os, resource as r\nreturn [r.getrlimit(r.RLIMIT_CPU), r.getrlimit(r.RLIMIT_NOFILE)[0], r.getrlimit(r.RLIMIT_AS)[0], os.nice(0)]"
            assert copy.run(code) == [(50, 51), 30, 1 << 40, os.nice(0) + 3]
            assert template.run("import os\nreturn os.nice(0)") == os.nice(0)


def test_copies_leave_no_descriptors_behind() -> None:
    count = "import os\nreturn len(os.listdir('/proc/self/fd'))"
    with Template() as template:
        template.run("pass")
        with Copy(template):
            pass
        before = template.run(count)
        for _ in range(3):
            with Copy(template) as copy:
                copy.run("return 1")
        assert template.run(count) == before


def test_handlers_of_signals_work_in_a_copy() -> None:
    with Template() as template:
        template.run(
            "import os, signal\nseen = []\nsignal.signal(signal.SIGUSR1, lambda n, f: seen.append(n))"
        )
        with Copy(template) as copy:
            assert copy.run("os.kill(os.getpid(), signal.SIGUSR1)\nreturn len(seen)") == 1
            copy.run("signal.signal(signal.SIGUSR2, lambda n, f: seen.append(n))")
            assert copy.run("os.kill(os.getpid(), signal.SIGUSR2)\nreturn len(seen)") == 2
            # The VM is there: it does nothing.
            assert copy.run("os.kill(os.getpid(), signal.SIGTERM)\nreturn 1") == 1
            request = copy.eval("import time\nwhile True: time.sleep(1000)")
            assert request
            copy.hang_up()
            os.kill(copy.pid, signal.SIGTERM)
            assert copy.wait() == 0


def test_a_child_that_a_copy_forks_ends_as_one_of_a_script() -> None:
    with Template() as template, Copy(template) as copy:
        code = "import os, sys\npid = os.fork()\nif not pid: sys.exit(3)\nreturn os.waitpid(pid, 0)[1] >> 8"
        assert copy.run(code) == 3
        assert copy.run("return 1") == 1


def test_what_the_vm_would_take_back_is_refused() -> None:
    # As the VM passes an arena: a file without a name.
    fds = [os.memfd_create("arena") for _ in range(2)]
    for fd in fds:
        os.ftruncate(fd, 1 << 20)
    shared = tuple((fd, 1 << 20) for fd in fds)
    with Template(hello={"shared": shared}, pass_fds=tuple(fds)) as template:
        template.run(
            "import gc\nfrom snex._interpreter import Interpreter\n"
            "inbound = next(o._inbound for o in gc.get_objects() if type(o) is Interpreter)\n"
            "view = inbound.map(0, 300_000, writable=False)\ninbound._report = lambda reports: None"
        )
        assert "holds 1 large value(s) in memory that it shares with the VM" in template.refusal()
        template.run("del view")
        with Copy(template) as copy:
            # The arenas are not there: the copy has not been given any.
            code = "import os\nreturn [os.readlink(f'/proc/self/fd/{fd}') for fd in fds]"
            assert copy.run(code, 0, {"fds": fds}) == [b"/dev/null"] * 2
    for fd in fds:
        os.close(fd)
