"""The fixture of made books, for the tests of the scripts."""

from tests.books import books

__all__ = ["books"]
