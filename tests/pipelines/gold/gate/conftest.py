"""The fixture of a lake of days, for the tests of the gate."""

from tests.audited_days import days

__all__ = ["days"]
