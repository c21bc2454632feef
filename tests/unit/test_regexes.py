"""Regular expressions are those of PCRE2, as MongoDB has them, whatever the binding makes of them."""

from __future__ import annotations

import pytest
from bson.regex import Regex

from changesource.mapping.regexes import compile_regex, options_of

SAME = [
    (r"\x{e9}", "", "é"),
    (r"\xe9", "", "é"),
    (r"[\x{e0}-\x{ef}]", "", "é"),
    (r"\\x{e9}", "", r"\x{e9}"),
    (r"\Q\x{e9}\E", "", r"\x{e9}"),
    (r"\Q\x{e9}", "", r"\x{e9}"),
    (r"^b$", "m", "a\nb"),
    (r"a.b", "s", "a\nb"),
    (r"a b # words", "x", "ab"),
    (r"É", "i", "é"),
    (r"(?<year>\d{4})(?=-)", "", "2024-"),
    (r"(*UCP)\w", "", "é"),
    (r"(a)\1", "", "aa"),
]
OTHER = [
    (r"\d", "", "\u0665"),
    (r"\w", "", "é"),
    (r"a.b", "", "a\nb"),
    (r"^b$", "", "a\nb"),
]
WRONG = [
    (r"\u0041", "", r"\\u is not supported; write \\x"),
    (r"\U", "", r"\\U is not supported"),
    (r"\x", "", r"\\x needs digits"),
    (r"\x{}", "", r"\\x needs digits"),
    ("(", "", "it is no valid regular expression"),
    ("a", "g", "the option 'g' is none of i, m, s, x, u"),
    ("a\0", "", r"cannot hold U\+0000"),
]


@pytest.mark.parametrize(("pattern", "options", "text"), SAME)
def test_what_matches(pattern: str, options: str, text: str) -> None:
    assert compile_regex(pattern, options)(text)


@pytest.mark.parametrize(("pattern", "options", "text"), OTHER)
def test_what_does_not(pattern: str, options: str, text: str) -> None:
    assert not compile_regex(pattern, options)(text)


@pytest.mark.parametrize(("pattern", "options", "words"), WRONG)
def test_what_is_refused(pattern: str, options: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compile_regex(pattern, options)


def test_long_texts_match() -> None:
    assert compile_regex("(?:a|b)*c", "")("ab" * 20_000 + "c")


def test_options_of_a_stored_expression() -> None:
    assert options_of(Regex("a", "xi")) == "ix"
