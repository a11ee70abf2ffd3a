"""The fixtures of made books and of the fault suite's seed, for the tests of increments."""

from tests.books import books
from tests.faults.conftest import fault_seed

__all__ = ["books", "fault_seed"]
