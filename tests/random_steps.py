"""Runs a state machine whose steps take seconds, on tables of a lake: few runs, none repeated to make it shorter."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_random_steps(machine: type[RuleBasedStateMachine], number: int, *, runs: int, steps: int) -> None:
    """Run `machine` `runs` times with at most `steps` steps each; `number` seeds them."""
    chosen = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        # What failed is printed as it was; add Phase.shrink to have it made shorter.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(seed(number)(machine), settings=chosen)
