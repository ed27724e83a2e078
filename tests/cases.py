"""How property tests draw their cases: the same ones in every run of the suite, so that a failure is of the change at hand;
`ZSSBIR_FUZZ=50 python -m pytest ...` draws fifty times as many, and others each time.
"""

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("ZSSBIR_FUZZ", "0"))


def cases(number: int) -> settings:
    """Settings of a property test that tries `number` cases."""
    return settings(
        max_examples=number * max(1, TIMES),
        derandomize=not TIMES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
