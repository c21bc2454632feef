"""Expressions against what MongoDB's manual and source say; the server's own answers are in tests/integration."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

import bson
import pytest
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from changesource.exceptions import MappingError
from changesource.mapping.expressions import compile_expression, operators
from changesource.mapping.paths import MISSING

OPTIONS: CodecOptions[dict[str, object]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
)
NAN, INFINITY = float("nan"), float("inf")
OID = ObjectId("5ab9c3da31c2ab715d421285")
INT64 = Int64(2**63 - 1)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def dec(text: str) -> Decimal128:
    return Decimal128(text)


def number(text: str) -> dict[str, str]:
    return {"$numberDecimal": text}


def long(value: int) -> dict[str, str]:
    return {"$numberLong": str(value)}


def date(text: str) -> dict[str, str]:
    return {"$date": text}


NEW_YEAR = {"d": at(2014, 1, 1, 8, 15, 39, 736000)}
PACIFIC = {"timezone": "America/Los_Angeles", "startOfWeek": "Monday"}
MAY = {"d": at(2020, 5, 18, 14, 10, 30)}

# The manual's own examples of each operator: expression, document, result.
MANUAL = [
    ({"$abs": -1}, {}, 1), ({"$abs": {"$subtract": ["$a", "$b"]}}, {"a": 70, "b": 90.5}, 20.5),
    ({"$abs": None}, {}, None), ({"$add": ["$price", "$fee"]}, {"price": 10, "fee": 2}, 12),
    ({"$add": ["$d", 10_800_000]}, NEW_YEAR, at(2014, 1, 1, 11, 15, 39, 736000)),
    ({"$allElementsTrue": [[True, 1, "someString"]]}, {}, True), ({"$allElementsTrue": [[[False]]]}, {}, True),
    ({"$allElementsTrue": [[]]}, {}, True), ({"$allElementsTrue": [[None, False, 0]]}, {}, False),
    ({"$and": [1, "green"]}, {}, True), ({"$and": []}, {}, True), ({"$and": [[None], [False], [0]]}, {}, True),
    ({"$and": [None, True]}, {}, False), ({"$and": [0, True]}, {}, False),
    ({"$anyElementTrue": [[True, False]]}, {}, True), ({"$anyElementTrue": [[[False]]]}, {}, True),
    ({"$anyElementTrue": [[None, False, 0]]}, {}, False), ({"$anyElementTrue": [[]]}, {}, False),
    ({"$arrayElemAt": [[1, 2, 3], 0]}, {}, 1), ({"$arrayElemAt": [[1, 2, 3], -2]}, {}, 2),
    ({"$arrayElemAt": [[1, 2, 3], 15]}, {}, MISSING), ({"$arrayElemAt": ["$none", 0]}, {}, None),
    ({"$arrayToObject": {"$literal": [{"k": "item", "v": "abc"}, {"k": "qty", "v": 25}]}}, {},
     {"item": "abc", "qty": 25}),
    ({"$arrayToObject": [[["item", "abc"], ["qty", 25]]]}, {}, {"item": "abc", "qty": 25}),
    ({"$avg": ["$final", "$midterm"]}, {"final": 85, "midterm": 90}, 87.5), ({"$avg": "$a"}, {"a": [10, 6, 7]}, 23 / 3),
    ({"$ceil": 7.8}, {}, 8.0), ({"$ceil": -2.8}, {}, -2.0), ({"$ceil": 1}, {}, 1), ({"$floor": -2.8}, {}, -3.0),
    ({"$floor": 7.8}, {}, 7.0), ({"$cmp": ["$qty", 250]}, {"qty": 300}, 1), ({"$cmp": ["$qty", 250]}, {"qty": 250}, 0),
    ({"$concat": ["$item", " - ", "$text"]}, {"item": "ABC1", "text": "product 1"}, "ABC1 - product 1"),
    ({"$concat": ["$item", " - ", "$text"]}, {"item": "XYZ1", "text": None}, None),
    ({"$concatArrays": [["hello", " "], ["world"]]}, {}, ["hello", " ", "world"]),
    ({"$concatArrays": [["hello", " "], [["world"], "again"]]}, {}, ["hello", " ", ["world"], "again"]),
    ({"$cond": {"if": {"$gte": ["$qty", 250]}, "then": 30, "else": 20}}, {"qty": 300}, 30),
    ({"$cond": [{"$gte": ["$qty", 250]}, 30, 20]}, {"qty": 200}, 20),
    ({"$convert": {"input": "$p", "to": "decimal", "onError": "Error"}}, {"p": "99.99"}, dec("99.99")),
    ({"$convert": {"input": "$p", "to": "int", "onError": "Error"}}, {"p": "hello"}, "Error"),
    ({"$convert": {"input": None, "to": 16, "onNull": 5}}, {}, 5),
    ({"$convert": {"input": "1", "to": {"type": 18}}}, {}, Int64(1)),
    ({"$dateToString": {"format": "%Y-%m-%d", "date": "$d"}}, NEW_YEAR, "2014-01-01"),
    ({"$dateToString": {"date": "$d"}}, NEW_YEAR, "2014-01-01T08:15:39.736Z"),
    ({"$dateTrunc": {"date": "$d", "unit": "week", "binSize": 2, **PACIFIC}}, MAY, at(2020, 5, 11, 7)),
    ({"$dayOfMonth": "$d"}, NEW_YEAR, 1), ({"$dayOfWeek": "$d"}, NEW_YEAR, 4), ({"$dayOfYear": ["$d"]}, NEW_YEAR, 1),
    ({"$dayOfMonth": {"date": date("2011-08-14T00:00:00Z"), "timezone": "America/Chicago"}}, {}, 13),
    ({"$hour": "$d"}, NEW_YEAR, 8), ({"$minute": "$d"}, NEW_YEAR, 15), ({"$second": "$d"}, NEW_YEAR, 39),
    ({"$millisecond": "$d"}, NEW_YEAR, 736), ({"$month": "$d"}, NEW_YEAR, 1), ({"$year": "$d"}, NEW_YEAR, 2014),
    ({"$week": "$d"}, NEW_YEAR, 0), ({"$week": date("1998-11-01T00:00:00Z")}, {}, 44),
    ({"$hour": {"date": None}}, {}, None), ({"$isoDayOfWeek": {"date": date("1998-11-07T00:00:00Z")}}, {}, 6),
    ({"$isoWeek": date("1998-11-02T00:00:00Z")}, {}, 45),
    ({"$isoWeekYear": date("2016-01-01T00:00:00Z")}, {}, Int64(2015)), ({"$month": "$o"}, {"o": OID}, 3),
    ({"$divide": ["$hours", 8]}, {"hours": 80}, 10.0), ({"$eq": ["$qty", 250]}, {"qty": 250.0}, True),
    ({"$filter": {"input": "$a", "as": "n", "cond": {"$isNumber": "$$n"}}},
     {"a": [1, "a", 2, None, 3.1, Int64(4), "5"]}, [1, 2, 3.1, Int64(4)]),
    ({"$filter": {"input": [1, 2, 3], "cond": {"$gt": ["$$this", 1]}, "limit": 1}}, {}, [2]),
    ({"$first": [[1, 2, 3]]}, {}, 1), ({"$first": [[]]}, {}, MISSING), ({"$first": "$none"}, {}, None),
    ({"$last": [[1, 2, 3]]}, {}, 3), ({"$last": [[]]}, {}, MISSING),
    ({"$getField": "price.usd"}, {"price.usd": 45.99, "price": {"usd": 1}}, 45.99),
    ({"$getField": {"field": {"$literal": "$small"}, "input": "$q"}}, {"q": {"$small": 4}}, 4),
    ({"$getField": {"field": "a", "input": "$q"}}, {"q": 5}, MISSING),
    ({"$getField": {"field": "a", "input": None}}, {}, None), ({"$gt": ["$qty", 250]}, {"qty": 300}, True),
    ({"$gte": ["$qty", 250]}, {"qty": 200}, False),
    ({"$hexToBase64Url": "5ab9c3da31c2ab715d421285"}, {}, "WrnD2jHCq3FdQhKF"), ({"$hexToBase64Url": None}, {}, None),
    ({"$ifNull": ["$description", "Unspecified"]}, {"description": None}, "Unspecified"),
    ({"$ifNull": ["$a", "$b", "$c"]}, {}, MISSING), ({"$in": ["abc", ["xyz", "abc"]]}, {}, True),
    ({"$in": ["xy", ["xyz", "abc"]]}, {}, False), ({"$in": ["abc", [["xyz"], "abc"]]}, {}, True),
    ({"$indexOfArray": [["a", "abc", "de", ["de"]], ["de"]]}, {}, 3), ({"$indexOfArray": [[1, 2, 3], [1, 2]]}, {}, -1),
    ({"$indexOfArray": [[10, 9, 9, 8, 9], 9, 3]}, {}, 4), ({"$indexOfArray": [["a", "abc", "b"], "b", 0, 1]}, {}, -1),
    ({"$indexOfArray": [["a", "abc", "b"], "b", 1, 0]}, {}, -1),
    ({"$indexOfArray": [["a", "abc", "b"], "b", 20]}, {}, -1), ({"$indexOfArray": [[None, None], None]}, {}, 0),
    ({"$indexOfArray": ["$none", 1]}, {}, None), ({"$indexOfCP": ["cafétéria", "é"]}, {}, 3),
    ({"$indexOfCP": ["cafétéria", "t"]}, {}, 4), ({"$indexOfCP": ["foo.bar.fi", ".", 5]}, {}, 7),
    ({"$indexOfCP": ["vanilla", "ll", 0, 2]}, {}, -1), ({"$indexOfCP": ["vanilla", "ll", 12]}, {}, -1),
    ({"$indexOfCP": ["vanilla", "ll", 5, 2]}, {}, -1), ({"$indexOfCP": ["vanilla", "nilla", 3]}, {}, -1),
    ({"$indexOfCP": [None, "foo"]}, {}, None), ({"$isArray": ["hello"]}, {}, False),
    ({"$isArray": [["hello", "world"]]}, {}, True), ({"$isNumber": "$a"}, {"a": "1"}, False),
    ({"$isNumber": "$a"}, {"a": dec("1")}, True), ({"$isNumber": "$a"}, {"a": True}, False),
    ({"$let": {"vars": {"low": 1, "high": "$$ROOT.a"}, "in": {"$gt": ["$$high", "$$low"]}}}, {"a": 2}, True),
    ({"$literal": "$1"}, {}, "$1"), ({"$literal": {"$numberLong": "1"}}, {}, Int64(1)),
    ({"$lt": ["$qty", 250]}, {"qty": 3}, True), ({"$lte": ["$qty", 250]}, {}, True),
    ({"$ne": ["$qty", 250]}, {"qty": 250}, False), ({"$ltrim": {"input": "  \n good  bye \t  "}}, {}, "good  bye \t  "),
    ({"$ltrim": {"input": " ggggoodbyeeeee", "chars": " gd"}}, {}, "oodbyeeeee"),
    ({"$rtrim": {"input": "  \n good  bye \t  "}}, {}, "  \n good  bye"),
    ({"$rtrim": {"input": " ggggoodbyeeeee", "chars": "e "}}, {}, " ggggoodby"),
    ({"$trim": {"input": "  \n good  bye \t  "}}, {}, "good  bye"), ({"$trim": {"input": None}}, {}, None),
    ({"$trim": {"input": " ggggoodbyeeeee", "chars": "ge"}}, {}, " ggggoodby"),
    ({"$trim": {"input": "\0\u2003a\u00a0"}}, {}, "a"),
    ({"$map": {"input": "$q", "as": "grade", "in": {"$add": ["$$grade", 2]}}}, {"q": [5, 6, 7]}, [7, 8, 9]),
    ({"$max": "$q"}, {"q": [10, 6, 7, None]}, 10), ({"$max": ["$final", "$midterm"]}, {"final": 80, "midterm": 75}, 80),
    ({"$min": "$q"}, {"q": [10, 6, 7, None]}, 6), ({"$min": ["$none", None]}, {}, None),
    ({"$mergeObjects": [{"a": 1}, {"a": 2, "b": 2}, {"a": 3, "b": None, "c": 3}]}, {}, {"a": 3, "b": None, "c": 3}),
    ({"$mergeObjects": [{"a": 1}, None]}, {}, {"a": 1}), ({"$mergeObjects": [None, None]}, {}, {}),
    ({"$mergeObjects": "$q"}, {"q": [{"a": 1}, {"b": 2}]}, {"a": 1, "b": 2}),
    ({"$mod": ["$hours", "$tasks"]}, {"hours": 80, "tasks": 7}, 3), ({"$mod": [-7, 3.0]}, {}, -1.0),
    ({"$multiply": ["$price", "$quantity"]}, {"price": 5, "quantity": 10}, 50), ({"$not": [[False]]}, {}, False),
    ({"$not": [None]}, {}, True), ({"$not": [0]}, {}, True),
    ({"$objectToArray": {"item": "foo", "qty": 25}}, {}, [{"k": "item", "v": "foo"}, {"k": "qty", "v": 25}]),
    ({"$or": [True, False]}, {}, True), ({"$or": [[False], False]}, {}, True), ({"$or": [None, 0, "$none"]}, {}, False),
    ({"$or": []}, {}, False),
    ({"$reduce": {"input": ["a", "b", "c"], "initialValue": "", "in": {"$concat": ["$$value", "$$this"]}}}, {}, "abc"),
    ({"$reduce": {"input": [[3, 4], [5]], "initialValue": [1], "in": {"$concatArrays": ["$$value", "$$this"]}}}, {},
     [1, 3, 4, 5]),
    ({"$regexFind": {"input": "$t", "regex": "lin(e|k)"}}, {"t": "First lines\nsecond line"},
     {"match": "line", "idx": 6, "captures": ["e"]}),
    ({"$regexFind": {"input": "\U0001f600 café", "regex": "(x)?é"}}, {}, {"match": "é", "idx": 5, "captures": [None]}),
    ({"$regexFind": {"input": "a", "regex": "b"}}, {}, None),
    ({"$regexMatch": {"input": "$t", "regex": "LINE", "options": "i"}}, {"t": "line"}, True),
    ({"$regexMatch": {"input": "$t", "regex": {"$regularExpression": {"pattern": "^s", "options": "m"}}}},
     {"t": "a\ns"}, True),
    ({"$regexMatch": {"input": "é", "regex": "\\w"}}, {}, False),
    ({"$regexMatch": {"input": "É", "regex": "é", "options": "i"}}, {}, True),
    ({"$replaceAll": {"input": "$i", "find": "paint", "replacement": "x"}}, {"i": "blue paint, red paint"},
     "blue x, red x"),
    ({"$replaceOne": {"input": "$i", "find": "paint", "replacement": "x"}}, {"i": "blue paint, red paint"},
     "blue x, red paint"),
    ({"$reverseArray": [[1, 2, 3]]}, {}, [3, 2, 1]), ({"$reverseArray": [[[1, 2], [3]]]}, {}, [[3], [1, 2]]),
    ({"$round": ["$v", 1]}, {"v": 19.25}, 19.2), ({"$round": ["$v", 1]}, {"v": -45.39}, -45.4),
    ({"$round": 12.5}, {}, 12.0), ({"$round": [1234, -2]}, {}, 1200), ({"$round": [10, 2]}, {}, 10),
    ({"$trunc": ["$v", 1]}, {"v": -45.39}, -45.3), ({"$trunc": 7.8}, {}, 7.0), ({"$trunc": [19, -1]}, {}, 10),
    ({"$size": "$a"}, {"a": [1, [2]]}, 2), ({"$slice": [[1, 2, 3], 1, 1]}, {}, [2]),
    ({"$slice": [[1, 2, 3], -2]}, {}, [2, 3]), ({"$slice": [[1, 2, 3], 15, 2]}, {}, []),
    ({"$slice": [[1, 2, 3], -15, 2]}, {}, [1, 2]), ({"$slice": [[1, 2, 3], 2]}, {}, [1, 2]),
    ({"$sortArray": {"input": "$t", "sortBy": {"a": -1, "b": 1}}},
     {"t": [{"a": 1, "b": 2}, {"a": 1, "b": 1}, {"a": 2}]}, [{"a": 2}, {"a": 1, "b": 1}, {"a": 1, "b": 2}]),
    ({"$sortArray": {"input": "$t", "sortBy": 1}}, {"t": [20, {"a": "Free"}, "Gratis", {"a": None}, 10.23]},
     [10.23, 20, "Gratis", {"a": None}, {"a": "Free"}]),
    ({"$split": ["banana split", "a"]}, {}, ["b", "n", "n", " split"]),
    ({"$split": ["astronomical", "astro"]}, {}, ["", "nomical"]), ({"$strLenCP": "€λG"}, {}, 3),
    ({"$strLenCP": {"$literal": "$€λG"}}, {}, 4), ({"$strLenCP": "寿司"}, {}, 2),
    ({"$strcasecmp": ["$quarter", "13q4"]}, {"quarter": "13Q1"}, -1), ({"$strcasecmp": ["13Q4", "13q4"]}, {}, 0),
    ({"$substrCP": ["cafétéria", 5, 4]}, {}, "éria"), ({"$substrCP": ["Hello World!", 6, 5]}, {}, "World"),
    ({"$substrCP": ["abc", 9, 1]}, {}, ""),
    ({"$subtract": ["$a", "$b"]}, {"a": at(2014, 3, 1, 9), "b": at(2014, 3, 1, 8)}, Int64(3_600_000)),
    ({"$subtract": ["$a", 300_000]}, {"a": at(2014, 3, 1, 8)}, at(2014, 3, 1, 7, 55)),
    ({"$subtract": [10, 2.5]}, {}, 7.5), ({"$sum": ["$final", "$midterm", "none"]}, {"final": 85, "midterm": 80}, 165),
    ({"$sum": "$a"}, {"a": [1, 2.5]}, 3.5), ({"$sum": "$none"}, {}, 0),
    ({"$switch": {"branches": [{"case": {"$gt": ["$a", 5]}, "then": 1}, {"case": "$b", "then": "b"}], "default": 2}},
     {"a": 1, "b": True}, "b"),
    ({"$toBool": 1.99999}, {}, True), ({"$toBool": number("0")}, {}, False), ({"$toBool": "false"}, {}, True),
    ({"$toBool": [[]]}, {}, True), ({"$toBool": None}, {}, None),
    ({"$toDate": 120000000000.5}, {}, at(1973, 10, 20, 21, 20)),
    ({"$toDate": long(-1100000000000)}, {}, at(1935, 2, 22, 12, 26, 40)),
    ({"$toDate": number("1253372036000.50")}, {}, at(2009, 9, 19, 14, 53, 56)),
    ({"$toDate": "$o"}, {"o": OID}, at(2018, 3, 27, 4, 8, 58)), ({"$toDate": "2018-03-20"}, {}, at(2018, 3, 20)),
    ({"$toDate": "2018-03-20 11:00:06 +0500"}, {}, at(2018, 3, 20, 6, 0, 6)),
    ({"$toDate": "$t"}, {"t": Timestamp(60, 1)}, at(1970, 1, 1, 0, 1)), ({"$toDecimal": True}, {}, dec("1")),
    ({"$toDecimal": 2.5}, {}, dec("2.50000000000000")), ({"$toDecimal": "-5.5"}, {}, dec("-5.5")),
    ({"$toDecimal": date("2018-03-27T05:04:47.890Z")}, {}, dec("1522127087890")), ({"$toDouble": "-5.5"}, {}, -5.5),
    ({"$toDouble": date("2018-03-27T05:04:47.890Z")}, {}, 1522127087890.0), ({"$toDouble": True}, {}, 1.0),
    ({"$toInt": 1.99999}, {}, 1), ({"$toInt": number("-5.50000")}, {}, -5), ({"$toInt": "-2"}, {}, -2),
    ({"$toInt": False}, {}, 0), ({"$toLong": number("5.50000")}, {}, Int64(5)),
    ({"$toLong": date("2018-03-27T05:04:47.890Z")}, {}, Int64(1522127087890)),
    ({"$toLower": "$a"}, {"a": "ABÉ1"}, "abÉ1"), ({"$toLower": None}, {}, ""),
    ({"$toUpper": "$a"}, {"a": "abé1"}, "ABé1"),
    ({"$toObjectId": "5ab9cbfa31c2ab715d42129e"}, {}, ObjectId("5ab9cbfa31c2ab715d42129e")),
    ({"$toString": True}, {}, "true"), ({"$toString": 2.5}, {}, "2.5"), ({"$toString": long(8698669)}, {}, "8698669"),
    ({"$toString": date("2018-03-27T16:58:51.538Z")}, {}, "2018-03-27T16:58:51.538Z"),
    ({"$toString": "$o"}, {"o": OID}, str(OID)), ({"$type": "$a"}, {"a": "a"}, "string"),
    ({"$type": "$a"}, {"a": Regex("a")}, "regex"), ({"$type": "$a"}, {}, "missing"),
    ({"$type": "$a"}, {"a": Int64(1)}, "long"), ({"$type": [[1, 2]]}, {}, "array"),
]  # fmt: skip

# What is known of MongoDB beyond the examples: types, edges, order of evaluation. Expression, document, result.
EDGES = [
    # Integers grow: int, long, double; each step by itself.
    ({"$add": [2**31 - 1, 1]}, {}, Int64(2**31)), ({"$add": ["$a", 1]}, {"a": INT64}, 2.0**63),
    ({"$add": ["$a", 1, -1]}, {"a": INT64}, 2.0**63 - 1), ({"$add": [long(1), 1]}, {}, Int64(2)), ({"$add": []}, {}, 0),
    ({"$add": ["$a", 1, number("1")]}, {"a": INT64}, dec("9223372036854780001")), ({"$add": [-0.0]}, {}, 0.0),
    ({"$add": [0.1, 0.2, 0.3]}, {}, 0.6000000000000001), ({"$add": [number("1E+3")]}, {}, dec("1000")),
    ({"$add": [number("1"), 0.1]}, {}, dec("1.100000000000000")), ({"$add": ["$a", INFINITY]}, {"a": -INFINITY}, NAN),
    ({"$add": [2**31 - 1, 2**31 - 1, -(2**31)]}, {}, 2**31 - 2), ({"$multiply": [65536, 65536, 0]}, {}, 0),
    ({"$multiply": [2**30, 2**30, 8, 0]}, {}, 0.0), ({"$multiply": [65536, 65536]}, {}, Int64(2**32)),
    ({"$multiply": []}, {}, 1), ({"$subtract": [-(2**31), 1]}, {}, Int64(-(2**31) - 1)),
    ({"$subtract": ["$a", -1]}, {"a": INT64}, 2.0**63),
    ({"$subtract": ["$a", number("Infinity")]}, {"a": dec("Infinity")}, dec("NaN")),
    ({"$abs": -(2**31)}, {}, Int64(2**31)), ({"$mod": [number("9E+6144"), number("7E-6176")]}, {}, dec("4E-6176")),
    ({"$mod": ["$a", 2]}, {"a": INFINITY}, NAN), ({"$mod": [long(-(2**63)), -1]}, {}, Int64(0)),
    ({"$divide": [long(2**53 + 1), 472196]}, {}, 2.0**53 / 472196),
    ({"$divide": [1, "$a"]}, {"a": dec("sNaN")}, dec("NaN")),
    ({"$divide": [number("1"), 3]}, {}, dec("0.3333333333333333333333333333333333")),
    # Dates move by whole milliseconds: doubles round away from zero, decimals to even.
    ({"$add": [0.5, "$d", 2.2, 3.5]}, {"d": at(1970, 1, 1)}, at(1970, 1, 1, 0, 0, 0, 7000)),
    ({"$add": ["$d", number("2.5")]}, {"d": at(1970, 1, 1)}, at(1970, 1, 1, 0, 0, 0, 2000)),
    # Rounding: what has no 34 digits before the point is NaN, what has nothing to round gets all its digits.
    ({"$ceil": number("Infinity")}, {}, dec("NaN")), ({"$floor": number("1E+40")}, {}, dec("NaN")),
    ({"$ceil": -0.5}, {}, -0.0), ({"$round": [number("1.5"), 100]}, {}, dec("1.500000000000000000000000000000000")),
    ({"$round": [1.5, 100]}, {}, 1.5), ({"$round": [number("2.5"), 2]}, {}, dec("2.50")),
    ({"$round": [number("Infinity"), 1]}, {}, dec("Infinity")), ({"$round": [2**31 - 1, -1]}, {}, Int64(2147483650)),
    ({"$round": [1.5, "$none"]}, {}, None), ({"$trunc": -0.4}, {}, -0.0),
    # Sums are compensated, and take decimals of all the digits of a double.
    ({"$sum": [0.1, 0.2, 0.3]}, {}, 0.6), ({"$sum": [3.14159, -2, "$a"]}, {"a": Int64(-(2**40))}, 3.14159 - 2 - 2**40),
    ({"$avg": [3.14159, -2]}, {}, 0.5707949999999999), ({"$avg": [3.14159, long(-2)]}, {}, 0.5707949999999999),
    ({"$avg": [0.1, 0.2, 0.3]}, {}, 0.19999999999999998), ({"$sum": [1e308, 1e308, -1e308]}, {}, INFINITY),
    ({"$sum": ["$a", 1]}, {"a": INT64}, 2.0**63), ({"$sum": [2.5, number("1.537")]}, {}, dec("4.037")),
    ({"$sum": [INFINITY, number("1")]}, {}, dec("Infinity")), ({"$avg": [number("1"), 2]}, {}, dec("1.5")),
    ({"$avg": ["a", None]}, {}, None), ({"$max": [number("0.1"), 0.1]}, {}, 0.1),
    # What comes first decides; the rest is not even evaluated.
    ({"$add": [None, "$text"]}, {"text": "a"}, None), ({"$concat": ["$none", {"$toString": "$a"}]}, {"a": []}, None),
    ({"$concatArrays": ["$none", 5]}, {}, None), ({"$arrayElemAt": [None, "$a"]}, {"a": "x"}, None),
    ({"$round": [None, "$a"]}, {"a": "x"}, None), ({"$slice": [[1], None, "$a"]}, {"a": "x"}, None),
    ({"$slice": [[1], 1, "$none"]}, {}, None), ({"$ifNull": [1, {"$size": "$none"}]}, {}, 1),
    ({"$or": [True, {"$size": "$none"}]}, {}, True), ({"$trim": {"input": "a", "chars": "$none"}}, {}, None),
    ({"$trim": {"input": " a ", "chars": ""}}, {}, " a "),
    ({"$filter": {"input": "$a", "cond": True, "limit": -1}}, {"a": []}, []),
    ({"$dateToString": {"date": "$none", "onNull": "never"}}, {}, "never"),
    ({"$dateToString": {"date": "$d", "format": None}}, NEW_YEAR, None),
    # Strings: a part is found that begins before the end; text of numbers has 6 digits where it is not converted.
    ({"$indexOfCP": ["foobar", "bar", 0, 4]}, {}, 3), ({"$indexOfCP": ["abc", "", 3]}, {}, -1),
    ({"$indexOfCP": ["", ""]}, {}, 0), ({"$toUpper": 1234567.0}, {}, "1.23457E+06"),
    ({"$toUpper": INFINITY}, {}, "INF"), ({"$toLower": "$d"}, NEW_YEAR, "2014-01-01t08:15:39.736z"),
    ({"$toString": 1234567.0}, {}, "1234567"), ({"$toString": 0.30000000000000004}, {}, "0.30000000000000004"),
    ({"$toString": 1e16}, {}, "1e+16"), ({"$toString": -0.0}, {}, "-0"), ({"$toString": -INFINITY}, {}, "-Infinity"),
    ({"$toString": NAN}, {}, "NaN"), ({"$toString": "$b"}, {"b": b"\1\2"}, "AQI="),
    ({"$toString": "$b"}, {"b": Binary(b"\0" * 16, 4)}, "00000000-0000-0000-0000-000000000000"),
    ({"$split": ["", "a"]}, {}, [""]), ({"$replaceAll": {"input": "ab", "find": "", "replacement": "-"}}, {}, "-a-b-"),
    ({"$concat": []}, {}, ""),
    # Conversions.
    ({"$toInt": number("2147483647.9")}, {}, 2**31 - 1), ({"$toInt": "+5"}, {}, 5),
    ({"$toDouble": "-inf"}, {}, -INFINITY), ({"$toDouble": "1."}, {}, 1.0),
    ({"$toDate": "1969-12-31T23:59:59.9995Z"}, {}, at(1970, 1, 1)),
    ({"$toDate": "2024-03-01T12:00-0830"}, {}, at(2024, 3, 1, 20, 30)), ({"$toDecimal": "1e3"}, {}, dec("1E+3")),
    ({"$toBool": "$a"}, {"a": Timestamp(0, 0)}, True), ({"$toBool": "$a"}, {"a": NAN}, True),
    ({"$convert": {"input": "$a", "to": "bool"}}, {"a": MaxKey()}, True),
    ({"$type": "$a"}, {"a": Code("x", {})}, "javascriptWithScope"), ({"$type": "$a"}, {"a": DBRef("c", 1)}, "object"),
    ({"$type": "$d"}, {"d": DatetimeMS(10**17)}, "date"),
    # Missing is less than null, and equal to nothing that is there; the order of fields counts.
    ({"$cmp": ["$none", None]}, {}, -1), ({"$in": ["$none", [None]]}, {}, False),
    ({"$eq": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, {}, False), ({"$lt": ["$s", "$x"]}, {"s": "z", "x": {}}, True),
    ({"$eq": [{"$literal": 1.0}, long(1)]}, {}, True), ({"$indexOfArray": [[1], number("1")]}, {}, 0),
    ({"$sortArray": {"input": "$a", "sortBy": {"n": 1}}}, {"a": [{"n": 1}, 5, {"n": True}]},
     [5, {"n": 1}, {"n": True}]),
    ({"$sortArray": {"input": [[1, 2], 1, None], "sortBy": -1}}, {}, [[1, 2], 1, None]),
    ({"$map": {"input": [1, 2], "in": "$none"}}, {}, [None, None]),
    ({"$reduce": {"input": [], "initialValue": "$none", "in": 1}}, {}, MISSING),
    ({"$switch": {"branches": [{"case": True, "then": "$none"}]}}, {}, MISSING),
    # Paths, variables, documents.
    ("$a.b", {"a": [{"b": 1}, {"c": 2}, {"b": [3]}]}, [1, [3]]), ("$$ROOT.a", {"a": 1}, 1),
    ("$$CURRENT", {"a": 1}, {"a": 1}), ("$$REMOVE", {}, MISSING),
    ({"a": "$none", "b": {"c": "$x"}}, {"x": 1}, {"b": {"c": 1}}), (["$none", 1], {}, [None, 1]),
    ("$r.$id", {"r": DBRef("c", 7)}, 7),
    ({"$let": {"vars": {"é": "$a"}, "in": {"$let": {"vars": {"a": "$$é.b"}, "in": "$$a"}}}}, {"a": {"b": 3}}, 3),
    ({}, {}, {}),
    ({"$map": {"input": [1, 2], "as": "x", "in": {"$map": {"input": [3], "in": {"$add": ["$$x", "$$this"]}}}}}, {},
     [[4], [5]]),
]  # fmt: skip

# Expression, document, a part of the error.
FAILURES = [
    ({"$add": ["$a", None]}, {"a": "x"}, "$add takes numbers, not a value of type string"),
    ({"$add": ["$d", "$d"]}, NEW_YEAR, "one date"), ({"$add": ["$d", NAN]}, NEW_YEAR, "cannot be moved"),
    ({"$add": ["$d", "$a"]}, {**NEW_YEAR, "a": INT64}, "beyond 64 bits"),
    ({"$subtract": ["$a", "$d"]}, {**NEW_YEAR, "a": 1}, "not a value of type date"),
    ({"$divide": [1, "$a"]}, {"a": 0.0}, "by zero"),
    ({"$subtract": ["$d", "$e"]}, {"d": DatetimeMS(-(2**63)), "e": at(2000, 1, 1)}, "too far apart"),
    ({"$mod": [1, "$a"]}, {"a": dec("0")}, "by zero"), ({"$abs": "$a"}, {"a": Int64(-(2**63))}, "least long"),
    ({"$round": ["$a", 101]}, {"a": 1}, "between -20 and 100"),
    ({"$round": ["$a", -19]}, {"a": INT64}, "beyond 64 bits"),
    ({"$trunc": "$a"}, {"a": True}, "not a value of type bool"),
    ({"$multiply": ["$a", "$none"]}, {"a": at(2000, 1, 1)}, "not a value of type date"),
    ({"$concat": ["$a"]}, {"a": 1}, "takes strings"),
    ({"$replaceOne": {"input": None, "find": "$a", "replacement": ""}}, {"a": 1}, "takes strings"),
    ({"$split": ["$a", ""]}, {"a": "x"}, "not empty"),
    ({"$substrCP": ["abc", "$a", 1]}, {"a": -1}, "cannot be negative"),
    ({"$substrCP": [None, "$a", 1]}, {"a": "x"}, "not a number"),
    ({"$strLenCP": "$none"}, {}, "not a value of type missing"),
    ({"$toUpper": "$o"}, {"o": OID}, "no value of type objectId"),
    ({"$indexOfCP": ["a", "$none"]}, {}, "takes strings"),
    ({"$indexOfCP": ["a", "b", "$a"]}, {"a": 1.5}, "no integer of 32 bits"),
    ({"$indexOfArray": [[1], 1, "$a"]}, {"a": -1}, "cannot be negative"), ({"$size": "$none"}, {}, "takes an array"),
    ({"$in": [1, "$none"]}, {}, "takes an array"), ({"$anyElementTrue": ["$none"]}, {}, "takes an array"),
    ({"$slice": [[1], 1, "$a"]}, {"a": 0}, "must be positive"),
    ({"$slice": [[1], "$a", "$none"]}, {"a": "x"}, "not a number"),
    ({"$filter": {"input": [1], "cond": 1, "limit": "$a"}}, {"a": 0}, "at least 1"),
    ({"$arrayToObject": "$a"}, {"a": [[1, 2]]}, "a string for each field's name"),
    ({"$arrayToObject": "$a"}, {"a": [["a\0", 2]]}, "U+0000"),
    ({"$arrayToObject": "$a"}, {"a": [["a", 1], {"k": "b", "v": 1}]}, "a name and a value"),
    ({"$arrayToObject": "$a"}, {"a": [{"k": 1}]}, "k and v"), ({"$arrayToObject": "$a"}, {"a": 1}, "takes an array"),
    ({"$mergeObjects": ["$a", {}]}, {"a": [{}]}, "not a value of type array"),
    ({"$objectToArray": "$a"}, {"a": 1}, "takes an embedded document"),
    ({"$switch": {"branches": [{"case": "$none", "then": 1}]}}, {}, "no branch"),
    ({"$regexMatch": {"input": "$a", "regex": "a"}}, {"a": 1}, "takes strings"),
    ({"$regexMatch": {"input": None, "regex": "$a"}}, {"a": "("}, "no valid regular"),
    ({"$regexFind": {"input": "a", "regex": "$a", "options": "i"}}, {"a": Regex("a", "i")}, "has options"),
    ({"$regexFind": {"input": "a", "regex": "a", "options": "$a"}}, {"a": "g"}, "'g' is none of"),
    ({"$hexToBase64Url": "$a"}, {"a": "5ab"}, "pairs"),
    ({"$year": "$a"}, {"a": "2024-01-01"}, "type string is no date"),
    ({"$year": {"date": "$d", "timezone": "$a"}}, {**NEW_YEAR, "a": "Z"}, "unknown time zone"),
    ({"$hour": {"date": "$d", "timezone": "$a"}}, {**NEW_YEAR, "a": "localtime"}, "unknown time zone"),
    ({"$toInt": "$a"}, {"a": 2147483647.5}, "beyond the range"),
    ({"$dateToString": {"date": "$none", "format": "$a"}}, {"a": "%"}, "no part of a date's format"),
    ({"$toInt": "$a"}, {"a": NAN}, "not finite"),
    ({"$dateToString": {"date": "$d", "format": "$a"}}, {**NEW_YEAR, "a": 1}, "is a string"),
    ({"$toInt": "$a"}, {"a": "1.5"}, "no int"),
    ({"$dateTrunc": {"date": "$d", "unit": "$a"}}, {**NEW_YEAR, "a": "days"}, "is one of year"),
    ({"$toLong": "$a"}, {"a": "9" * 5000}, "beyond the range"),
    ({"$dateTrunc": {"date": "$d", "unit": "day", "binSize": "$a"}}, {**NEW_YEAR, "a": 0}, "positive"),
    ({"$toDouble": "$a"}, {"a": "1e-400"}, "beyond the range"),
    ({"$dateTrunc": {"date": "$d", "unit": "week", "startOfWeek": "$a"}}, {**NEW_YEAR, "a": "m"}, "a day's name"),
    ({"$toDouble": "$a"}, {"a": dec("1E-400")}, "beyond"),
    ({"$dateTrunc": {"date": "$d", "unit": "day", "binSize": "$a"}}, {**NEW_YEAR, "a": INT64}, "too large"),
    ({"$toDouble": "$a"}, {"a": " 1"}, "no double"), ({"$toDecimal": "$a"}, {"a": "1E7000"}, "beyond the range"),
    ({"$toDecimal": "$a"}, {"a": "1E-7000"}, "beyond the range"), ({"$toDate": "$a"}, {"a": 5}, "type int"),
    ({"$toDecimal": "$a"}, {"a": "1E" + "9" * 30}, "beyond the range"),
    ({"$toDate": "$a"}, {"a": "Friday"}, "ISO 8601"), ({"$toDate": "$a"}, {"a": "2023-02-29"}, "no day"),
    ({"$toDate": "$a"}, {"a": "2023-02-28T24:00"}, "no time of a day"),
    ({"$toObjectId": "$a"}, {"a": "5ab9"}, "24 hexadecimal"), ({"$toString": "$a"}, {"a": [1]}, "type array"),
    ({"$convert": {"input": "$a", "to": "string"}}, {"a": b""}, "type binData"),
    ({"$toString": "$a"}, {"a": DatetimeMS(10**15)}, "0 to 9999"),
]  # fmt: skip

# Expression, place below "e", a part of the problem.
REFUSALS = [
    ({"$rand": {}}, ".$rand", "the expression $rand is not supported"),
    ([1, {"a": {"$range": [0, 1]}}], ".1.a.$range", "is not supported"),
    ("$$NOW", "", "$$NOW is not supported: the same document must always give the same row"),
    ("$$PRUNE", "", "is not supported"), ("$$x.a", "", "there is no variable $$x here"),
    ({"$map": {"input": [], "as": "x", "in": "$$this"}}, ".$map.in", "no variable $$this"),
    ({"$let": {"vars": {"a": 1, "b": "$$a"}, "in": 1}}, ".$let.vars.b", "no variable $$a"),
    ({"$let": {"vars": {"A": 1}, "in": 1}}, ".$let.vars", "small letter"),
    ({"$abs": [1, 2]}, ".$abs", "takes 1 argument, not 2"),
    ({"$subtract": 1}, ".$subtract", "takes 2 arguments, not 1"), ({"$ifNull": [1]}, ".$ifNull", "at least 2"),
    ({"$slice": [1]}, ".$slice", "takes 2 to 3 arguments"), ({"$cond": [1, 2]}, ".$cond", "takes 3 arguments"),
    ({"$year": ["$a", "$b"]}, ".$year", "takes 1 argument"),
    ({"$trim": {"input": "a", "char": "b"}}, ".$trim.char", "is not a known argument; known are input, chars"),
    ({"$trim": "a"}, ".$trim", "takes an object of input, chars"),
    ({"$filter": {"input": []}}, ".$filter.cond", "is missing"),
    ({"$cond": {"if": 1, "then": 2}}, ".$cond.else", "is missing"),
    ({"$switch": {"branches": []}}, ".$switch.branches", "at least one"),
    ({"$let": {"vars": [], "in": 1}}, ".$let.vars", "an object of variables"),
    ({"$map": {"input": [], "as": 1, "in": 1}}, ".$map.as", "a variable's name"),
    ({"$getField": "$a"}, ".$getField", "a constant field name"),
    ({"$sortArray": {"input": [], "sortBy": 2}}, ".$sortArray.sortBy", "must be 1 or -1"),
    ({"$sortArray": {"input": [], "sortBy": {}}}, ".$sortArray.sortBy", "no field"),
    ({"$convert": {"input": 1, "to": "array"}}, ".$convert.to", "must be one of int"),
    ({"$convert": {"input": 1, "to": True}}, ".$convert.to", "must be one of int"),
    # What is constant fails at once.
    ({"$cond": [True, 1, {"$divide": [1, 0]}]}, ".$cond.2.$divide", "by zero"), ({"$toInt": "x"}, ".$toInt", "no int"),
    ({"$add": ["a"]}, ".$add", "takes numbers"),
    ({"$dateToString": {"date": "$d", "format": "%q"}}, ".$dateToString.format", "%q is no part"),
    ({"$hour": {"date": "$d", "timezone": "Mars"}}, ".$hour.timezone", "time zone"),
    ({"$dateTrunc": {"date": "$d", "unit": "days"}}, ".$dateTrunc.unit", "is one of"),
    ({"$regexMatch": {"input": "$a", "regex": "("}}, ".$regexMatch.regex", "no valid"),
    ({"$regexMatch": {"input": "$a", "regex": "a", "options": "g"}}, ".$regexMatch.regex", "'g' is none"),
    ({"$literal": {"$add": 1}}, ".$literal.$add", "as a value"),
    ({"a": 1, "$add": 1}, ".$add", "does not begin with $"), ({"a.b": 1}, ".a.b", "has no dot"),
    ({"$add": 1, "a": 1}, "", "in an object of its own"), ("$", "", "empty"), ("$a..b", "", "empty component"),
    (2**63, "", "beyond 64 bits"), ("a\ud800", "", "lone surrogate"),
    ({"$year": {"date": "$d", "zone": 1}}, ".$year.zone", "not a known"),
]  # fmt: skip


def encoded(value: object) -> bytes:
    """As BSON, where types count and a NaN is equal to itself."""
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - only NaN differs from itself
        value = NAN
    return bson.encode({} if value is MISSING else {"v": value}, codec_options=OPTIONS)


def evaluated(expression: object, document: dict[str, object]) -> object:
    return compile_expression(expression, "e")(document)


@pytest.mark.parametrize(("expression", "document", "result"), MANUAL + EDGES, ids=ascii)
def test_an_expression_gives_what_mongodb_gives(expression, document, result):
    found = evaluated(expression, document)
    assert encoded(found) == encoded(result), found


def test_every_operator_has_an_example_of_the_manual():
    assert set(operators()) == {next(iter(expression)) for expression, _, _ in MANUAL}


@pytest.mark.parametrize(("expression", "document", "words"), FAILURES, ids=ascii)
def test_a_document_without_a_value_is_an_error(expression, document, words):
    compiled = compile_expression(expression, "e")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared below, without a pattern
        compiled(document)
    assert words in str(caught.value)


@pytest.mark.parametrize(("expression", "place", "words"), REFUSALS, ids=ascii)
def test_what_is_not_supported_is_refused_at_its_place(expression, place, words):
    with pytest.raises(MappingError) as caught:
        compile_expression(expression, "e")
    assert caught.value.place == f"e{place}"
    assert words in caught.value.problem


def test_expressions_nest_100_levels_deep():
    expression: object = "$a"
    for _ in range(100):
        expression = {"$add": [expression, 1]}
    assert evaluated(expression, {"a": 1}) == 101
    with pytest.raises(MappingError, match="nested deeper than 100 levels"):
        compile_expression({"$add": [expression, 1]}, "e")


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%H:%M:%S:%L%z", "08:15:39:736+0000"), ("%d-%m-%Y", "01-01-2014"), ("%b %B", "Jan January"), ("%j", "001"),
        ("%G-W%V-%u", "2014-W01-3"), ("%U %w", "00 4"), ("%Z", "0"), ("100%%", "100%"), ("", ""), ("é\n", "é\n"),
    ],
)  # fmt: skip
def test_date_formats(form, text):
    assert evaluated({"$dateToString": {"date": "$d", "format": form}}, NEW_YEAR) == text


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "08:15+0000 0"), ("+04:30", "12:45+0430 270"), ("-0530", "02:45-0530 -330"), ("+03", "11:15+0300 180"),
        ("America/New_York", "03:15-0500 -300"), ("Asia/Kolkata", "13:45+0530 330"), ("GMT", "08:15+0000 0"),
    ],
)  # fmt: skip
def test_time_zones(zone, text):
    form = {"date": "$d", "format": "%H:%M%z %Z", "timezone": zone}
    assert evaluated({"$dateToString": form}, NEW_YEAR) == text


@pytest.mark.parametrize(
    ("zone", "end"), [("UTC", "Z"), ("+00:00", "Z"), ("GMT", ""), ("Europe/London", ""), ("+01:00", "")]
)
def test_a_date_ends_with_z_in_utc_alone(zone, end):
    text = evaluated({"$dateToString": {"date": "$d", "timezone": zone}}, NEW_YEAR)
    assert text == f"2014-01-01T0{9 if zone == '+01:00' else 8}:15:39.736{end}"


@pytest.mark.parametrize(
    ("date", "arguments", "result"),
    [
        (at(2021, 3, 20, 11, 30, 5), {"unit": "hour"}, at(2021, 3, 20, 11)),
        (at(2021, 3, 20, 11, 30, 5), {"unit": "minute", "binSize": 25}, at(2021, 3, 20, 11, 30)),
        (at(1999, 12, 31, 23, 59, 59), {"unit": "second", "binSize": 7}, at(1999, 12, 31, 23, 59, 53)),
        (at(2021, 3, 20), {"unit": "quarter"}, at(2021, 1, 1)),
        (at(1999, 5, 5), {"unit": "month", "binSize": 7}, at(1998, 11, 1)),
        (at(1985, 5, 5), {"unit": "year", "binSize": 10}, at(1980, 1, 1)),
        (at(2021, 3, 20), {"unit": "week"}, at(2021, 3, 14)),
        (at(2021, 3, 20), {"unit": "week", "startOfWeek": "FRI"}, at(2021, 3, 19)),
        # Clocks of Rome went forward on the 28th; days begin at midnight there.
        (at(2021, 3, 28, 12), {"unit": "day", "timezone": "Europe/Rome"}, at(2021, 3, 27, 23)),
        (at(2021, 3, 29, 12), {"unit": "day", "timezone": "Europe/Rome"}, at(2021, 3, 28, 22)),
        (at(2021, 3, 28, 12), {"unit": "hour", "binSize": 5, "timezone": "Europe/Rome"}, at(2021, 3, 28, 11)),
        # In Cuba clocks went back to midnight, so that it came twice: the later is the day's.
        (at(2012, 11, 4, 12), {"unit": "day", "timezone": "America/Havana"}, at(2012, 11, 4, 5)),
        # In Brazil this day had no midnight: it began at one.
        (at(2018, 11, 4, 12), {"unit": "day", "timezone": "America/Sao_Paulo"}, at(2018, 11, 4, 3)),
        (OID, {"unit": "month"}, at(2018, 3, 1)),
        (None, {"unit": "day"}, None),
        (at(2021, 3, 20), {"unit": "day", "timezone": "$none"}, None),
        (at(2021, 3, 20), {"unit": "day", "startOfWeek": "$none"}, at(2021, 3, 20)),
    ],
)
def test_dates_are_cut_to_units(date, arguments, result):
    assert evaluated({"$dateTrunc": {"date": "$d", **arguments}}, {"d": date}) == result


def test_dates_beyond_the_years_of_python():
    far = {"d": DatetimeMS(253_402_300_800_000), "e": DatetimeMS(-62_167_219_200_001)}
    assert evaluated([{"$year": "$d"}, {"$dayOfWeek": "$d"}, {"$dayOfYear": "$e"}], far) == [10000, 7, 365]
    assert evaluated([{"$year": "$e"}, {"$hour": "$e"}, {"$millisecond": "$e"}], far) == [-1, 23, 999]
    assert evaluated({"$add": ["$d", -1]}, far) == at(9999, 12, 31, 23, 59, 59, 999000)
    assert evaluated({"$dateTrunc": {"date": "$d", "unit": "month"}}, far) == far["d"]
    assert evaluated({"$hour": {"date": {"$add": ["$d", 15_552_000_000]}, "timezone": "Europe/Rome"}}, far) == 2
    assert evaluated({"$dateToString": {"date": "$d", "format": "%d/%m"}}, far) == "01/01"
    with pytest.raises(ValueError, match="years 0 to 9999"):
        evaluated({"$dateToString": {"date": "$d"}}, far)


def test_a_regular_expression_that_never_ends_is_an_error():
    compiled = compile_expression({"$regexMatch": {"input": "$a", "regex": "(a+)+$"}}, "e")
    assert compiled({"a": "a" * 50}) is True
    started = time.thread_time()
    with pytest.raises(ValueError, match="the regular expression takes too many steps"):
        compiled({"a": "a" * 50_000 + "b"})
    assert time.thread_time() - started < 2


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(st.binary(max_size=40), st.booleans())
def test_base64_of_hexadecimal_digits(data, upper):
    text = data.hex().upper() if upper else data.hex()
    found = evaluated({"$hexToBase64Url": "$a"}, {"a": text})
    assert found == base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.parametrize(
    "expression",
    [
        {"$reduce": {"input": "$list", "initialValue": "x", "in": {"$concat": ["$$value", "$$value"]}}},
        {"$reduce": {"input": "$list", "initialValue": [1], "in": {"$concatArrays": ["$$value", "$$value"]}}},
        {
            "$reduce": {
                "input": "$list",
                "initialValue": "xx",
                "in": {"$replaceAll": {"input": "$$value", "find": "x", "replacement": "xxxx"}},
            }
        },
    ],
)
def test_what_grows_without_bound_is_stopped(expression):
    with pytest.raises(ValueError, match=r"more than|more steps"):
        compile_expression(expression, "place")({"list": list(range(40))})
