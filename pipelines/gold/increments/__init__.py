"""How Gold takes over what changed in Silver, and only that."""
