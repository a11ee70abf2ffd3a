"""Kafka as the lake's source: where the brokers are, options of clients, a topic's id and offsets."""
