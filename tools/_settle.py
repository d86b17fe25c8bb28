"""The loss minimised from real data, beside the values that the theory gives for a batch of that size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from _command import Claim, make_table
from scipy.optimize import minimize

from eccentric_core import eccentric_loss_and_grad, loss_floor, sphere_is_minimizer, stationary_radius

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 1797  # of scikit-learn's digits
MOST_DIMS = 60  # their rank: some pixels are always 0


@dataclass(frozen=True)
class Settled:
    """The minimum of the loss from real data in d dimensions."""

    dim: int
    rows: int
    mean_radius: float
    radius: float
    spread: float  # standard deviation of the radii over their mean
    loss: float
    floor: float
    is_minimum: bool


def minimise(start: np.ndarray, mu: float, scale: str) -> tuple[np.ndarray, float]:
    """The points and the loss where scipy's L-BFGS ends, from a start of shape (n, d)."""

    def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
        loss, grad = eccentric_loss_and_grad(flat.reshape(start.shape), mu, scale=scale)
        return float(loss), grad.ravel()

    limits = {"maxiter": 2000, "ftol": 1e-13, "maxcor": 20}
    result = minimize(function, start.ravel(), jac=True, method="L-BFGS-B", options=limits)
    return result.x.reshape(start.shape), float(result.fun)


def settle(dim: int, mu: float, scale: str, count: int) -> Settled:
    """Minimise the loss from handwritten digits in their first principal components."""
    from sklearn.datasets import load_digits  # a second, which a table does not need
    from sklearn.decomposition import PCA

    points, loss = minimise(PCA(dim, svd_solver="full").fit_transform(load_digits().data[:count]), mu, scale)
    radii = np.linalg.norm(points, axis=1)
    return Settled(
        dim=dim,
        rows=count,
        mean_radius=float(np.mean(radii)),
        radius=float(stationary_radius(dim, mu, scale=scale, batch_size=count)),
        spread=float(np.std(radii) / np.mean(radii)),
        loss=loss,
        floor=float(loss_floor(dim, mu, scale=scale, batch_size=count)),
        is_minimum=bool(sphere_is_minimizer(dim, mu, batch_size=count)),
    )


def judge_settled(rows: list[Settled]) -> list[Claim]:
    """No loss may be below its floor; a batch must settle on the sphere where the sphere is the minimum."""
    tolerance = 1e-10
    below = min((row.loss - row.floor) / abs(row.floor) for row in rows)
    claims = [Claim("no batch scores below its floor", below >= -tolerance, f"at least {below:.1e} above, relatively")]
    spheres = [row for row in rows if row.is_minimum]
    if spheres:
        far = max(abs(row.mean_radius / row.radius - 1) for row in spheres)
        gap = max((row.loss - row.floor) / abs(row.floor) for row in spheres)
        claims.append(Claim("the mean radius is within 1 % of rho", far <= 0.01, f"at most {100 * far:.3f} % off"))
        claims.append(Claim("the loss is within 1 % of its floor", gap <= 0.01, f"at most {100 * gap:.3f} % above"))
    return claims


def settled_table(rows: list[Settled], mu: float, scale: str) -> Table:
    """The rows as a table."""
    stars = not all(row.is_minimum for row in rows)
    headings = ("d", "mean\nradius", "rho of this\nbatch", "sqrt(d)", "spread", "loss\nreached", "floor of\nthis batch")
    table = make_table(
        f"The loss minimised by L-BFGS from {rows[0].rows} real digits\nmu = {mu:g}, {scale} scale",
        headings,
        "* mu is above the critical mu of d: the sphere is not the minimum." if stars else None,
    )
    for row in rows:
        table.add_row(
            f"{row.dim}" if row.is_minimum else f"{row.dim} *",
            f"{row.mean_radius:.6f}",
            f"{row.radius:.6f}",
            f"{np.sqrt(row.dim):.6f}",
            f"{100 * row.spread:.2f} %",
            f"{row.loss:.6f}",
            f"{row.floor:.6f}",
        )
    return table
