"""Names as keys: what is one class, what is not, and what any name becomes in a path."""

import unicodedata

import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from zssbir_cli.errors import UsageError
from zssbir_cli.names import (
    class_key,
    file_part,
    find_class,
    side_by_side,
    split_names,
    suggestion,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("T-Shirt", "t_shirt"),
        ("car_(sedan)", "Car sedan"),
        ("caf\u00e9", "cafe\u0301"),
        ("ＡＢＣ", "abc"),
        ("❤️", "❤"),
        ("zero\u200bwidth", "zerowidth"),
        ("\u202acat\u202c", "cat"),
    ],
)
def test_spellings_of_one_class(one: str, other: str) -> None:
    assert class_key(one) == class_key(other)


def test_names_that_differ_in_marks_or_symbols_are_classes_of_their_own() -> None:
    names = ["C", "C++", "C#", "मिल", "मेल", "กิน", "กัน", "1_1", "11", "🐱", "🐶", "a+", "---", "&"]
    assert len({class_key(n) for n in names}) == len(names)


def test_the_exact_name_wins() -> None:
    known = ["t-shirt", "T_Shirt", "cup"]
    assert find_class("T_Shirt", known) == "T_Shirt"
    assert find_class("CUP", known) == "cup"
    assert find_class("hat", known) is None
    with pytest.raises(UsageError, match=r"'t shirt' may be any of 'T_Shirt', 't-shirt'"):
        find_class("t shirt", known)


def test_a_name_that_is_no_utf8_is_found_as_it_is_stored() -> None:
    assert find_class("caf\udce9", ["caf\\xe9", "cup"]) == "caf\\xe9"


def test_names_are_separated_by_commas_unless_a_class_holds_one() -> None:
    assert split_names(" cat, dog,", ["cat", "dog"]) == ["cat", "dog"]
    assert split_names("salt, pepper", ["salt, pepper", "salt"]) == ["salt, pepper"]
    with pytest.raises(UsageError, match="is a class and a list of classes"):
        split_names("salt, pepper", ["salt, pepper", "salt", "pepper"])


def test_names_that_look_alike_are_shown_apart() -> None:
    assert side_by_side(["cat", "Cat"]) == "'Cat' and 'cat'"
    assert side_by_side(["caf\u00e9", "cafe\u0301"]) == r"'cafe\u0301' and 'caf\xe9'"
    assert side_by_side(["cat", "c\u00adat"]) == r"'cat' and 'c\xadat'"


def test_a_suggestion_is_the_closest_name() -> None:
    assert suggestion("Airplan", ["airplane", "cup"]) == "; did you mean 'airplane'?"
    assert suggestion("xyz", ["airplane"]) == ""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("Baer", "Bär"), ("Bar", "Bär"), ("Strasse", "Straße"), ("canape", "Canapé"), ("Roed", "Rød")],
)
def test_a_suggestion_overlooks_accents_and_how_umlauts_are_typed(typed: str, meant: str) -> None:
    assert suggestion(typed, ["hammer", meant, "radar"]) == f"; did you mean {meant!r}?"


@cases(100)
@given(st.text(max_size=40))
def test_any_name_has_a_key_that_does_not_depend_on_its_unicode_form(name: str) -> None:
    assert class_key(name) == class_key(unicodedata.normalize("NFD", name)) == class_key(class_key(name))


@cases(100)
@given(st.text(st.characters(codec=None), max_size=300))
def test_any_name_becomes_one_part_of_a_path(name: str) -> None:
    part = file_part(name)
    assert part not in ("", ".", "..")
    assert not set(part) & set('/\\:*?"<>|\0\n')
    assert len(part.encode()) <= 90
    assert file_part(name) == part


@cases(100)
@given(st.text(max_size=20), st.text(max_size=20))
def test_two_names_are_two_parts(one: str, other: str) -> None:
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert same or file_part(one) != file_part(other)
