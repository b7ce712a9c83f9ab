from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from snex import Atom, DistinctAtom, Term
from snex._etf.terms import decode_text

PID = b"\x83X" + bytes(30)


@pytest.mark.parametrize("kind", [Atom, DistinctAtom])
def test_atoms_have_up_to_255_characters(kind: Any) -> None:
    assert kind("") != kind("a")
    assert len(kind("é" * 255)) == 255
    with pytest.raises(ValueError, match="atom too long"):
        kind("é" * 256)


@pytest.mark.parametrize("value", [Atom("a b"), DistinctAtom("x"), Term(PID)])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_they_survive_pickling_and_copying(value: Any, protocol: int) -> None:
    for again in (
        pickle.loads(pickle.dumps(value, protocol)),
        copy.copy(value),
        copy.deepcopy(value),
    ):
        assert again == value
        assert type(again) is type(value)


def test_a_distinct_atom_equals_only_its_like() -> None:
    atom = DistinctAtom("x")
    assert atom == DistinctAtom("x")
    assert atom != DistinctAtom("y")
    assert atom != "x"
    assert atom != Atom("x")
    assert Atom("x") != atom
    assert hash(atom) == hash(DistinctAtom("x"))
    assert {atom: 1, "x": 2} == {"x": 2, DistinctAtom("x"): 1}
    assert type(str(atom)) is str


def test_an_atom_is_as_good_as_its_text() -> None:
    assert Atom("x") == "x"
    assert {"x": 1}[Atom("x")] == 1
    assert f"{Atom('x')}" == "x"
    assert [repr(Atom("x")), repr(DistinctAtom("x"))] == [
        "snex.Atom('x')",
        "snex.DistinctAtom('x')",
    ]
    assert (Atom.__module__, Term.__module__) == ("snex", "snex")


def test_a_term_is_opaque_and_hashable() -> None:
    assert Term(PID) == Term(PID)
    assert {Term(PID): 1}[Term(PID)] == 1
    assert repr(Term(PID)).startswith("<snex.Term pid ")
    assert str(Term(PID)) == repr(Term(PID))


@pytest.mark.parametrize("junk", [b"", b"\x83", b"a\x01", b"\x83P\0\0\0\x01"])
def test_what_is_no_term_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match="not a term"):
        Term(junk)


def test_text_that_is_none_is_named_with_its_position() -> None:
    assert decode_text(b"abc") == "abc"
    with pytest.raises(UnicodeDecodeError, match="position 3"):
        decode_text(b"abc\xff")
