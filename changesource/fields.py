"""A model field that the models need and Django lacks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import forms
from django.db import models

if TYPE_CHECKING:

    class AnyTextField(models.TextField[Any, Any]):
        """A text field that gives and takes any value, for the type checker."""

        _pyi_private_set_type: Any
        _pyi_private_get_type: Any
        _pyi_lookup_exact_type: Any
else:
    AnyTextField = models.TextField


class EmptyableJSONField(forms.JSONField):
    """A form's JSON field that shows nothing where there is nothing, not ``null``."""

    def prepare_value(self, value: Any) -> Any:
        """The text that is edited."""
        return "" if value is None else super().prepare_value(value)


class OrderedJSONField(AnyTextField):
    """JSON kept as text, so that it comes back as it went in.

    PostgreSQL's ``jsonb`` sorts keys and rewrites numbers; but the order of keys counts in MongoDB, where
    ``{"address": {"city": "X", "zip": "1"}}`` and its reverse match different documents.
    """

    empty_values = [None, ""]  # noqa: RUF012 -- Django's own attribute; {} and [] are values here

    def from_db_value(self, value: str | None, expression: object, connection: object) -> Any:
        """The value as Python."""
        return None if value is None else json.loads(value)

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
