"""Hostile and broken inputs to everything that reads what comes from outside.

The contract of each: a result, or a refusal by an error of our own that says where it is; no other exception, no hang,
and nothing that was in the input is lost in silence.
"""
