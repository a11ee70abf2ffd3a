"""The circuit breaker of Silver: its states, where they are kept, and the gate that each batch passes."""
