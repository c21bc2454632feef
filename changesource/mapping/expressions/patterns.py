"""Searches for regular expressions."""

from __future__ import annotations

from collections.abc import Callable

import pcre2
from bson.regex import Regex

from changesource.mapping.budget import charge, charge_text
from changesource.mapping.expressions.nodes import (
    Builder,
    Context,
    EvaluationError,
    Node,
    Scope,
    checked,
    folded,
    is_null,
    members,
)
from changesource.mapping.expressions.strings import string
from changesource.mapping.regexes import Search, compile_regex, options_of
from changesource.mapping.spec import Json

_COMPILING = 60


def _search(name: str, regex: object, options: object) -> Search | None:
    """The search for a regular expression; None where it is null."""
    letters = "" if is_null(options) else string(options, name)
    if is_null(regex):
        return None
    if not isinstance(regex, Regex):
        return compile_regex(string(regex, name), letters)
    own = options_of(regex)
    if own and not is_null(options):
        raise EvaluationError(f"{name} has options in its regular expression already")
    return compile_regex(str(regex.pattern), own or letters)


def _searching(name: str, result: Callable[[pcre2.Match | None], object]) -> Builder:
    def build(context: Context, arguments: Json, place: str) -> Node:
        given = members(arguments, place, ("input", "regex"), ("options",))
        source = context.compile(given["input"], f"{place}.input")
        regex = context.compile(given["regex"], f"{place}.regex")
        options = context.compile(given.get("options"), f"{place}.options")
        if regex.is_constant and options.is_constant:
            checked(lambda constant: _search(name, constant, options.constant), regex.constant, f"{place}.regex")

        def run(scope: Scope) -> object:
            pattern, text = regex.run(scope), source.run(scope)
            if not regex.is_constant:
                # To compile one takes longer than most searches.
                charge(_COMPILING * len(str(pattern.pattern if isinstance(pattern, Regex) else pattern)))
            search = _search(name, pattern, options.run(scope))
            text = None if is_null(text) else string(text, name)
            return result(None if text is None or search is None else search(text))

        return folded(run, [source, regex, options], place)

    return build


def _found(match: pcre2.Match | None) -> object:
    if match is None:
        return None
    # Each group's text is a copy.
    charge_text(len(match.string) * (1 + match.re.groups))
    return {"match": match.group(), "idx": match.start(), "captures": list(match.groups())}


OPERATORS: dict[str, Builder] = {
    "$regexMatch": _searching("$regexMatch", lambda match: match is not None),
    "$regexFind": _searching("$regexFind", _found),
}
