"""Seeds of random generators."""

import numpy as np


def mixed_seed(*numbers: int) -> int:
    """A seed of 64 bits that depends on some numbers and shares no pattern with that of others."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
