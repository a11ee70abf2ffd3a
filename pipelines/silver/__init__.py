"""Silver: events, each once, and dead letters."""
