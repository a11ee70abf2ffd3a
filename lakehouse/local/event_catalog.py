"""Who calls what: the customers, keys, endpoints and regions that generated events choose from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

KEYS_PER_CUSTOMER = 4
STATUSES = np.array([200, 201, 204, 304, 400, 401, 403, 404, 429, 500, 502, 503])
STATUS_SHARES = np.array([0.842, 0.05, 0.02, 0.015, 0.02, 0.01, 0.006, 0.02, 0.008, 0.005, 0.001, 0.003])
REGIONS = ("us-east-1", "eu-central-1", "us-west-2", "ap-southeast-1", "sa-east-1", None)
REGION_SHARES = np.array([0.40, 0.27, 0.18, 0.10, 0.04, 0.01])

_RESOURCES = (
    "invoices payments customers messages documents search reports webhooks users sessions orders products carts shipments "
    "tickets files exports imports templates contacts campaigns metrics traces alerts"
).split()
_ROUTES = (
    ("GET", "/{id}"),
    ("GET", ""),
    ("POST", ""),
    ("PATCH", "/{id}"),
    ("DELETE", "/{id}"),
    ("POST", "/{id}/actions/archive"),
)


@dataclass(frozen=True)
class Catalog:
    """Names by rank, most used first; the cumulative shares follow a Zipf law."""

    customers: list[str]
    customer_keys: list[bytes]
    customer_shares: NDArray[np.float64]
    api_keys: list[str]
    """`KEYS_PER_CUSTOMER` for each customer, in the order of the customers."""
    caller_json: list[str]
    """`"customer_id":...,"api_key_id":...` for each key."""
    endpoints: list[str]
    methods: list[str]
    endpoint_shares: NDArray[np.float64]
    route_json: list[str]
    region_json: list[str]
    latency_medians: NDArray[np.float64]
    size_medians: NDArray[np.float64]


def build_catalog(customers: int, endpoints: int) -> Catalog:
    """Return the catalogue of `customers` customers and `endpoints` routes; it depends on nothing else."""
    names = [f"cust-{rank:06d}" for rank in range(customers)]
    keys = [f"key-{rank:06d}-{number}" for rank in range(customers) for number in range(KEYS_PER_CUSTOMER)]
    callers = [f'"customer_id":"{names[at // KEYS_PER_CUSTOMER]}","api_key_id":"{key}"' for at, key in enumerate(keys)]
    routes = list(islice(_routes(), endpoints))
    ranks = np.arange(endpoints, dtype=np.int64)
    return Catalog(
        customers=names,
        customer_keys=[name.encode() for name in names],
        customer_shares=_zipf(customers),
        api_keys=keys,
        caller_json=callers,
        endpoints=[path for _, path in routes],
        methods=[method for method, _ in routes],
        endpoint_shares=_zipf(endpoints),
        route_json=[f'"endpoint":"{path}","method":"{method}"' for method, path in routes],
        region_json=["null" if region is None else f'"{region}"' for region in REGIONS],
        latency_medians=np.exp2(ranks * 7 % 9 + 3.0).astype(np.float64),
        size_medians=(200.0 * np.exp2(ranks * 5 % 11)).astype(np.float64),
    )


def _routes() -> list[tuple[str, str]]:
    versions = range(1, 2 + 10_000 // (len(_RESOURCES) * len(_ROUTES)))
    return [
        (method, f"/v{version}/{resource}{rest}") for version, (method, rest), resource in product(versions, _ROUTES, _RESOURCES)
    ]


def _zipf(names: int) -> NDArray[np.float64]:
    shares = 1.0 / (np.arange(names) + 1.0) ** 1.1
    cumulative = np.asarray(np.cumsum(shares) / shares.sum())
    cumulative[-1] = 1.0  # rounding must not leave a gap above the last name
    return cumulative
