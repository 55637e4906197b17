"""How native code is optimised: setup.py builds with these flags, and a test counts instructions with them."""

from __future__ import annotations

OPTIMISE = ["-O3"]
# Contraction would make results depend on the instruction set. A square root that may set errno is a call, and what may
# trap stays behind its branch: neither is vectorised.
ARITHMETIC = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
