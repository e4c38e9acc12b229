"""The wrong name is answered with the right one."""

import pytest

from pilot.names import FEW, check_name, shorten, suggest_names

MANY = [f"name{letter}" for letter in "abcdefghijklmn"]


def test_a_known_name_is_taken():
    assert check_name("robot", "homes", ["aloha", "homes"]) == "homes"


@pytest.mark.parametrize("typed", ["home", "hoems", "HOMES", "Homes"])
def test_a_near_name_is_answered_with_the_one_that_was_meant(typed):
    with pytest.raises(ValueError, match=f"unknown robot '{typed}'; did you mean 'homes'. known: aloha, homes"):
        check_name("robot", typed, ["aloha", "homes"])


def test_of_many_names_only_the_nearest_is_said():
    assert len(MANY) > FEW
    assert suggest_names("namecc", MANY) == "did you mean 'namec'?"


def test_without_a_near_name_all_are_listed():
    assert suggest_names("xyz", MANY) == f"known: {', '.join(MANY)}"
    assert suggest_names("xyz", iter(["a", "b"]), listed="it has") == "it has a, b"


def test_where_there_is_no_name_at_all_that_is_said():
    assert suggest_names("xyz", ()) == "known: none"


def test_what_else_to_do_comes_last():
    with pytest.raises(ValueError, match=r"known: a, b \(or write your own\)$"):
        check_name("robot", "xyz", "ab", note=" (or write your own)")


def test_many_names_are_shortened():
    assert shorten(range(14)).endswith("10, 11 and 2 more")
    assert shorten([3, 10, 7], limit=2) == "3, 7 and 1 more"
    assert shorten([]) == "no files"
