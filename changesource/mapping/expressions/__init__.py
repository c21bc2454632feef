"""Aggregation expressions, compiled once into closures over documents, with the meaning that MongoDB gives them."""

from changesource.mapping.expressions.compiler import Expression, compile_expression, operators

__all__ = ["Expression", "compile_expression", "operators"]
