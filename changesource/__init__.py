"""zerosource: a change source that lets Rocicorp Zero run on MongoDB."""

VERSION = "0.1.0"
