"""A model field that the models need and Django lacks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.forms.fields import InvalidJSONInput

from .exceptions import DatabaseDamaged, MappingError
from .mapping.json_places import position
from .mapping.json_reading import parse

SHORT = 60  # characters of JSON that are shown on one line

if TYPE_CHECKING:

    class AnyTextField(models.TextField[Any, Any]):
        """A text field that gives and takes any value, for the type checker."""

        _pyi_private_set_type: Any
        _pyi_private_get_type: Any
        _pyi_lookup_exact_type: Any
else:
    AnyTextField = models.TextField


class EmptyableJSONField(forms.JSONField):
    """A form's JSON field that shows nothing where there is nothing, not ``null``, and says where a text is wrong."""

    def prepare_value(self, value: Any) -> Any:
        """The text that is edited: on one line where it is short."""
        if value is None or isinstance(value, InvalidJSONInput):
            return "" if value is None else value
        short = json.dumps(value, ensure_ascii=False)
        return short if len(short) <= SHORT else json.dumps(value, ensure_ascii=False, indent=2)

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What is shown again of what was typed: the text itself where it is wrong."""
        if isinstance(data, str):
            try:
                parse(data.encode("utf-8", "surrogatepass"), "")
            except MappingError:
                return InvalidJSONInput(data)
        return super().bound_data(data, initial)

    def to_python(self, value: Any) -> Any:
        """The value, by the same rules as in a file of mappings: no key twice, nothing that no database can keep."""
        if value in self.empty_values or not isinstance(value, str):
            return super().to_python(value)
        try:
            # The result is wrapped by Django where it is a plain string, to tell it from a text.
            parse(value.encode("utf-8", "surrogatepass"), "")
        except MappingError as error:
            raise ValidationError(wrong_json(value, error), code="invalid") from error
        return super().to_python(value)


def wrong_json(text: str, error: MappingError) -> str:
    """What is wrong with a text that was typed, and where."""
    cause = error.__cause__
    if isinstance(cause, json.JSONDecodeError):
        line, column = position(text, cause.pos)
        return f"Enter a valid JSON. Line {line}, column {column}: {cause.msg}."
    # What is nested too deeply is so at a place with as many parts.
    place = error.place.lstrip(".")
    return f"Enter a valid JSON. {place if 0 < len(place) <= SHORT else 'It'} {error.problem}."


class OrderedJSONField(AnyTextField):
    """JSON kept as text, so that it comes back as it went in.

    PostgreSQL's ``jsonb`` sorts keys and rewrites numbers; but the order of keys counts in MongoDB, where
    ``{"address": {"city": "X", "zip": "1"}}`` and its reverse match different documents.
    """

    empty_values = [None, ""]  # noqa: RUF012 -- Django's own attribute; {} and [] are values here

    def from_db_value(self, value: str | None, expression: object, connection: object) -> Any:
        """The value as Python. Raises ``DatabaseDamaged`` where it is no JSON."""
        if value is None:
            return None
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            place = f"{self.model._meta.db_table}.{self.column}"
            raise DatabaseDamaged(f"A row of the database has no JSON in {place}.") from error

    def to_python(self, value: Any) -> Any:
        """The value as it is: forms and code both give Python values."""
        return value

    def get_prep_value(self, value: Any) -> str | None:
        """The value as text; escapes keep what a database's text cannot hold."""
        return None if value is None else json.dumps(value, ensure_ascii=True, allow_nan=False)

    def value_to_string(self, obj: models.Model) -> Any:
        """For serializers."""
        return self.value_from_object(obj)

    def formfield(self, *args: Any, **kwargs: Any) -> Any:
        """Edited as JSON."""
        return models.Field.formfield(self, *args, **{"form_class": EmptyableJSONField, **kwargs})
