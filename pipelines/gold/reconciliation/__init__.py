"""Reconciles a day of Gold with Silver: finds what differs and why, records it, repairs it, closes the day for billing."""
