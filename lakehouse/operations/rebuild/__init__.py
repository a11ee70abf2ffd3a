"""Builds Silver or Gold again from the layer before, compares, and swaps."""
