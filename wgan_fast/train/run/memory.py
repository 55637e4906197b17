"""The size of this machine's memory."""

import math
import os


def physical_memory() -> float:
    """Bytes; infinity where the system does not say."""
    if not hasattr(os, "sysconf"):  # Windows
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
