"""The layers: Kafka -> Bronze -> Silver -> Gold."""
