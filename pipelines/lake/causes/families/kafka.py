"""Lists the errors of Kafka, by its Java clients and by librdkafka."""

from __future__ import annotations

from pipelines.lake import playbooks
from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.families.family import Family

_LIBRDKAFKA = r"(?<=KafkaError\{code=)"

LOST_OFFSETS = Family(
    Kind.PERMANENT,
    "offsets that were to be read are gone",
    playbooks.LOST_OFFSETS,
    (
        r"KAFKA_DATA_LOSS[.\w]*",
        r"OffsetOutOfRangeException",
        r"may have been lost because they are not available in Kafka",
    ),
)
REFUSED = Family(
    Kind.PERMANENT,
    "Kafka refuses this client",
    playbooks.KAFKA,
    (
        r"kafka\.common\.errors\.\w*Auth(?:entication|orization)\w*Exception",
        r"kafka\.common\.config\.ConfigException",
        rf"{_LIBRDKAFKA}(?:_AUTHENTICATION|_INVALID_ARG|_SSL|\w+_(?:AUTHENTICATION|AUTHORIZATION)_FAILED"
        r"|UNSUPPORTED_SASL_MECHANISM|ILLEGAL_SASL_STATE)\b",
    ),
)
NO_ANSWER = Family(
    Kind.TRANSIENT,
    "Kafka does not answer",
    playbooks.KAFKA,
    (
        r"kafka\.common\.errors\.(?:Timeout|Disconnect|Network|Retriable|\w*NotAvailable|NotLeaderOrFollower|NotCoordinator"
        r"|UnknownTopicOrPartition|UnknownTopicId|NotEnoughReplicas\w*|BrokerNotAvailable|KafkaStorage|\w*Epoch)\w*Exception",
        r"kafka\.\w+\.\w*TimeoutException",
        r"No resolvable bootstrap urls",
        rf"{_LIBRDKAFKA}(?:_TRANSPORT|_ALL_BROKERS_DOWN|_RESOLVE|_WAIT_COORD|_WAIT_CACHE|_DESTROY|_UNKNOWN_(?:TOPIC|PARTITION)"
        r"|\w*(?:TIMED_OUT|NOT_AVAILABLE|LOAD_IN_PROGRESS)|NETWORK_EXCEPTION|UNKNOWN_TOPIC_\w+|NOT_(?:LEADER|COORDINATOR)\w*"
        r"|NOT_ENOUGH_REPLICAS\w*|KAFKA_STORAGE_ERROR|\w*LEADER_EPOCH)\b",
    ),
)
