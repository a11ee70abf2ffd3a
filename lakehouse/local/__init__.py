"""What a laptop needs: a broker, a generator of events, the demo."""
