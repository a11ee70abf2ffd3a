"""Bronze: Kafka records as they came."""
