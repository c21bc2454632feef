"""Choices of many, as a list of boxes to tick: for keyboards, screen readers and phones as well."""

from __future__ import annotations

from typing import Any

from django.db import models
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

# For ``formfield_overrides``; beside it ``filter_horizontal`` must be empty.
TICKED: dict[type[models.Field[Any, Any]], dict[str, Any]] = {
    models.ManyToManyField: {"widget": UnfoldAdminCheckboxSelectMultipleWidget}
}
