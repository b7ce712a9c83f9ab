from __future__ import annotations

import weakref

import pytest
from support.garbage import collect_until, in_a_thread

from snex._eval.code import compile_code
from snex._eval.envs import EnvError, Envs


class Mark:
    pass


def test_dropped_environments_are_freed() -> None:
    envs = Envs()
    marks: weakref.WeakSet[Mark] = weakref.WeakSet()
    program = compile_code("mine = mark()", None, 1)

    def mark() -> Mark:
        made = Mark()
        marks.add(made)
        return made

    def use() -> None:
        for i in range(1, 101):
            envs.make(i, [], {"mark": mark})
            program.bind(envs.get(i).names)()
            if i > 10:
                envs.drop([(i - 10, 1)])
        assert len(envs) == 11
        envs.drop([(i, 1) for i in range(200)])
        assert len(envs) == 1

    in_a_thread(use)
    collect_until(lambda: len(marks) == 0)


def test_the_root_stays() -> None:
    envs = Envs()
    envs.drop([(0, 1)])
    assert envs.get(0).names["__name__"] == "__main__"
    with pytest.raises(EnvError, match="5"):
        envs.get(5)
