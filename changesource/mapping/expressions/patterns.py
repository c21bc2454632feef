"""Searches for regular expressions."""

from __future__ import annotations

from collections.abc import Callable

import pcre2
from bson.regex import Regex

from changesource.mapping.expressions.nodes import (
    ABSENT,
    Builder,
    Context,
    EvaluationError,
    Get,
    Node,
    checked,
    is_null,
    named,
)
from changesource.mapping.expressions.strings import string
from changesource.mapping.regexes import Search, compile_regex, options_of
from changesource.mapping.spec import Json


def _search(name: str, regex: object, options: object) -> Search | None:
    """The search for a regular expression; None where it is null."""
    letters = "" if options is ABSENT or is_null(options) else string(options, name)
    if is_null(regex):
        return None
    if not isinstance(regex, Regex):
        return compile_regex(string(regex, name), letters)
    own = options_of(regex)
    if own and options is not ABSENT and not is_null(options):
        raise EvaluationError(f"{name} has options in its regular expression already")
    return compile_regex(str(regex.pattern), own or letters)


def _searching(name: str, result: Callable[[pcre2.Match | None], object]) -> Builder:
    def function(get: Get) -> object:
        value, regex, options = get("input"), get("regex"), get("options")
        search = _search(name, regex, options)
        text = None if is_null(value) else string(value, name)
        return result(None if text is None or search is None else search(text))

    plain = named(function, ("input", "regex"), ("options",))

    def build(context: Context, arguments: Json, place: str) -> Node:
        node = plain(context, arguments, place)
        if isinstance(arguments, dict):
            regex = context.compile(arguments["regex"], f"{place}.regex")
            options = context.compile(arguments.get("options"), f"{place}.options")
            if regex.is_constant and options.is_constant:
                checked(lambda constant: _search(name, constant, options.constant), regex.constant, f"{place}.regex")
        return node

    return build


def _found(match: pcre2.Match | None) -> object:
    if match is None:
        return None
    return {"match": match.group(), "idx": match.start(), "captures": list(match.groups())}


OPERATORS: dict[str, Builder] = {
    "$regexMatch": _searching("$regexMatch", lambda match: match is not None),
    "$regexFind": _searching("$regexFind", _found),
}
