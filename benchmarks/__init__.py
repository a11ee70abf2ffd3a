"""The bench: what one machine can do, what a single-node peer does on it, and what this project does."""
