"""Write references.json: radii to 40 digits by methods that share nothing with the package.

F(d, x) comes from elementary functions for d up to 400 (by a recurrence in steps of two dimensions from d = 2 or 3,
with as many more digits as it loses) and from a series of positive terms (Pfaff's transformation) beyond; its root
comes from mpmath's secant method in log x. Run as `python tests/core/make_references.py`; it takes half a minute.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import mpmath

DIMS = [2, 3, 4, 5, 7, 10, 11, 12, 37, 38, 64, 116, 117, 300, 1000, 4096, 65536, 10**6]
MUS = [0.5001, 0.51, 0.6, 0.75, 1.0, 1.5, 2.0, 2.5, 4.5, 10.0, 64.5, 601.0, 1234.567, 1e5]


def f(dim: int, x: mpmath.mpf) -> mpmath.mpf:
    """F(d, x) = 2F1(1, (d+1)/2; d; -x)."""
    if dim > 400:
        ratio, term, total, n = x / (1 + x), mpmath.mpf(1), mpmath.mpf(0), 0
        while term > total * mpmath.eps:
            total += term
            term *= (mpmath.mpf(dim - 1) / 2 + n) / (dim + n) * ratio
            n += 1
        return total / (1 + x)
    with mpmath.extradps(20 + int(dim * mpmath.log10(1 + 2 / x))):
        # The mean of 1/(t + cos) over the sphere, with t = 1 + 2/x.
        t = 1 + 2 / x
        mean = 1 / mpmath.sqrt(t * t - 1) if dim % 2 == 0 else mpmath.log((t + 1) / (t - 1)) / 2
        for d in range(2 + dim % 2, dim, 2):
            mean = mpmath.mpf(d) / (d - 1) * (t - (t * t - 1) * mean)
        return 2 * (1 - 2 * mean / x) / x


def radius(dim: int, mu: float, scale: str) -> mpmath.mpf:
    d, m = mpmath.mpf(dim), mpmath.mpf(mu)
    paper = 2 * d * (1 + 1 / (2 * m * (d - 1))) / (2 * m - 1)
    start = mpmath.log(4 * d / paper)
    x = mpmath.exp(
        mpmath.findroot(
            lambda log_x: mpmath.log(2 * m * f(dim, mpmath.exp(log_x))), (start, start + mpmath.mpf("1e-3")), tol=1e-100
        )
    )
    return mpmath.sqrt(x * (paper if scale == "paper" else 4 * d / x) / 4)


def main() -> None:
    generator = random.Random(0)
    pairs = [(dim, mu) for dim in DIMS for mu in MUS]
    pairs += [(int(2 * 10 ** generator.uniform(0, 5.5)), 10 ** generator.uniform(-0.25, 5)) for _ in range(100)]
    with mpmath.workdps(60):
        rows = [
            {"dim": dim, "mu": mu} | {scale: mpmath.nstr(radius(dim, mu, scale), 40) for scale in ("paper", "exact")}
            for dim, mu in pairs
        ]
    text = json.dumps({"command": "python tests/core/make_references.py", "radius": rows}, indent=1)
    Path(__file__).with_name("references.json").write_text(text + "\n")
    print(f"{len(rows)} radii")  # noqa: T201


if __name__ == "__main__":
    main()
