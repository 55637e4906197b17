"""Whether the GPU report is rehearsed on a machine without a GPU: then sizes are tiny, and rounds few."""

import os
from typing import TypeVar

REHEARSAL = "GPU_REPORT_REHEARSAL"  # the environment variable
REHEARSED = os.environ.get(REHEARSAL) == "1"
T = TypeVar("T")


def unless_rehearsed(value: T, tiny: T) -> T:
    return tiny if REHEARSED else value
