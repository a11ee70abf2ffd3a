"""Gold: what is billed."""
