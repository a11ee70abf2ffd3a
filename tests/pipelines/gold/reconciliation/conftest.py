"""The fixture of made books, for the tests of the reconciliation."""

from tests.books import books

__all__ = ["books"]
