"""Values of primary keys: images that differ wherever the field's values differ, within one BSON type.

MongoDB holds that 1, 1.0 and the decimal 1 are one `_id`, so numbers are one type here, and give one key.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias, TypeVar, cast

from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId

from changesource.mapping.comparison import milliseconds
from changesource.mapping.paths import MISSING, is_unicode
from changesource.mapping.spec import ColumnType, IdType
from changesource.mapping.values import MAX_SAFE_INTEGER, REPLACEMENT, float_text, iso_text, type_name, uuid_of

T = TypeVar("T")
Key: TypeAlias = str | int | float
Image: TypeAlias = Callable[[object], Key]

ID_TYPES: tuple[IdType, ...] = ("objectId", "string", "number", "uuid", "date")
"""The BSON types that can be keys."""

KEY_TYPES: dict[ColumnType, tuple[IdType, ...]] = {
    "string": ("objectId", "string", "number", "uuid", "date"),
    "number": ("number", "date"),
}
"""The types of key columns, and the BSON types that each can hold."""

# No double reaches this far, so no other `_id` is equal to a decimal beyond it.
_DOUBLE_EXPONENT = 308
_NOT_FINITE = "the key is not a finite number"


class KeyImage:
    """A function from the value of ``field`` to the key column's; it raises ``ValueError`` with the reason.

    ``kinds`` are the exact Python types of the values that it takes.
    """

    def __init__(self, id_type: IdType, column_type: ColumnType, field: str, allowed: Sequence[IdType]) -> None:
        """See ``compile_key``."""
        declared = [id_type] if id_type else [kind for kind in KEY_TYPES[column_type] if kind in allowed]
        self._images = {kind: image for kind, (own, image) in _IMAGES[column_type].items() if own in declared}
        self._wanted = (
            f"declared is {id_type}" if id_type else f"a {column_type} key column takes {', '.join(declared)}"
        )
        self._field = field
        self.column_type = column_type
        self.kinds = frozenset(self._images)

    def __call__(self, value: object) -> Key:
        """The key column's value."""
        image = self._images.get(type(value))
        if image is None:
            found = "missing" if value is MISSING else f"of type {type_name(value)}"
            raise ValueError(f"{self._field} is {found}, {self._wanted}")
        return image(value)


def compile_key(
    id_type: IdType, column_type: ColumnType, field: str = "_id", allowed: Sequence[IdType] = ID_TYPES
) -> KeyImage:
    """The image of ``field`` in a key column of ``column_type``.

    With ``id_type`` "" any of the ``allowed`` types goes that the column can hold, so `1` and `"1"` may meet in a
    string column.
    """
    return KeyImage(id_type, column_type, field, allowed)


def _exact_text(value: str) -> str:
    if "\0" in value or not is_unicode(value):
        raise ValueError("the key holds U+0000 or a lone surrogate, which cannot be sent")
    if REPLACEMENT in value:
        # The decoder puts U+FFFD for every byte that is no UTF-8, so two such ids could give one key.
        raise ValueError("the key holds U+FFFD, which may stand for bytes that are no UTF-8")
    return value


def _exact_number(value: float | Decimal128) -> int | float:
    """The number itself: as an int where it has no fraction, else as a double."""
    if isinstance(value, Decimal128):
        return _exact_decimal(value.to_decimal())
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        raise ValueError(_NOT_FINITE)
    return int(value) if value.is_integer() else value


def _exact_decimal(value: Decimal) -> int | float:
    if not value.is_finite():
        raise ValueError(_NOT_FINITE)
    if value.adjusted() > _DOUBLE_EXPONENT:
        raise ValueError("the key is a decimal beyond the range of a double")
    if value == value.to_integral_value():
        return int(value)
    number = float(value)
    # Exact: Python compares a decimal with a double by their true values.
    if value != number:
        raise ValueError("the key is a decimal that no double holds exactly")
    return number


def _number_text(value: float | Decimal128) -> str:
    number = _exact_number(value)
    return str(number) if isinstance(number, int) else float_text(number)


def _number(value: float | Decimal128) -> int | float:
    number = _exact_number(value)
    return _safe(number) if isinstance(number, int) else number


def _date_number(value: datetime | DatetimeMS) -> int:
    return _safe(milliseconds(value))


def _safe(number: int) -> int:
    if -MAX_SAFE_INTEGER <= number <= MAX_SAFE_INTEGER:
        return number
    raise ValueError("the key is beyond 2^53 - 1, which a number column cannot hold exactly; use a string column")


def _binary_uuid(value: Binary) -> str:
    found = uuid_of(value)
    if found is None:
        raise ValueError("the key is a binary value that is no UUID")
    return str(found)


def _on(kind: type[T], id_type: IdType, image: Callable[[T], Key]) -> tuple[type, tuple[IdType, Image]]:
    # The cast is sound, since compile_key hands over values of exactly this type.
    return kind, (id_type, cast("Image", image))


_IMAGES: dict[ColumnType, dict[type, tuple[IdType, Image]]] = {
    "string": dict(
        (
            _on(ObjectId, "objectId", str),
            _on(str, "string", _exact_text),
            _on(uuid.UUID, "uuid", str),
            _on(Binary, "uuid", _binary_uuid),
            _on(int, "number", _number_text),
            _on(Int64, "number", _number_text),
            _on(float, "number", _number_text),
            _on(Decimal128, "number", _number_text),
            _on(datetime, "date", iso_text),
            _on(DatetimeMS, "date", iso_text),
        )
    ),
    "number": dict(
        (
            _on(int, "number", _number),
            _on(Int64, "number", _number),
            _on(float, "number", _number),
            _on(Decimal128, "number", _number),
            _on(datetime, "date", _date_number),
            _on(DatetimeMS, "date", _date_number),
        )
    ),
}
