"""What an operator does, callable without a terminal."""
