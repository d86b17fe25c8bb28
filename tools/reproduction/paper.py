"""The numbers of the paper (Li and Blair, 2022), for comparison."""

from __future__ import annotations

import math
from typing import NamedTuple


class Table1Row(NamedTuple):
    """One algorithm at one lambda: eccentricity, angles in degrees, Frechet inception score."""

    eccentricity: float
    raw: str
    aligned: str
    score: str


TABLE1 = {
    ("eccentric", 1e-2): Table1Row(0.092, "81 ± 1", "69 ± 1", "53.7 ± 1.2"),
    ("eccentric", 1e-3): Table1Row(0.29, "69 ± 2", "54 ± 1", "50.2 ± 0.5"),
    ("eccentric", 3e-4): Table1Row(0.49, "59 ± 1", "47 ± 1", "48.7 ± 1.0"),
    ("eccentric", 1e-4): Table1Row(0.54, "53 ± 2", "43 ± 1", "49.5 ± 0.9"),
    ("eccentric", 1e-5): Table1Row(0.71, "55 ± 5", "39 ± 1", "50.3 ± 0.8"),
    ("eccentric", 1e-6): Table1Row(0.75, "50 ± 2", "40 ± 1", "55.0 ± 1.7"),
    ("vae", 1e-3): Table1Row(0.25, "76 ± 2", "63 ± 1", "50.0 ± 0.7"),
    ("vae", 3e-4): Table1Row(0.41, "71 ± 2", "58 ± 1", "53.7 ± 1.9"),
    ("vae", 1e-4): Table1Row(0.56, "59 ± 1", "46 ± 1", "57.7 ± 1.0"),
    ("vae", 1e-5): Table1Row(0.71, "51 ± 2", "40 ± 1", "57.8 ± 0.2"),
    ("wae", 1e-1): Table1Row(0.19, "79 ± 1", "65 ± 1", "53.5 ± 0.8"),
    ("wae", 1e-2): Table1Row(0.29, "62 ± 2", "49 ± 1", "49.2 ± 1.4"),
    ("wae", 3e-3): Table1Row(0.45, "53 ± 4", "40 ± 1", "49.4 ± 0.6"),
    ("wae", 1e-3): Table1Row(0.59, "51 ± 3", "40 ± 2", "50.0 ± 1.0"),
    ("wae", 3e-4): Table1Row(0.69, "52 ± 2", "40 ± 1", "51.2 ± 0.6"),
    ("wae", 1e-4): Table1Row(0.76, "53 ± 5", "41 ± 1", "54.2 ± 0.4"),
    ("none", 0.0): Table1Row(0.71, "48 ± 1", "38 ± 1", "55.8 ± 0.1"),
}
"""By objective and lambda: CelebA, d = 64, mu = 1, 100 epochs."""

TABLE2 = {
    2: {10: "39.0 ± 7.2", 100: "19.1 ± 2.6", 1000: "12.4 ± 1.3", 10_000: "10.9 ± 0.9", 60_000: "10.6 ± 0.8"},
    4: {10: "36.0 ± 6.6", 100: "12.1 ± 1.9", 1000: "5.4 ± 0.6", 10_000: "4.0 ± 0.3", 60_000: "3.7 ± 0.3"},
    6: {10: "33.7 ± 7.3", 100: "10.0 ± 1.3", 1000: "4.1 ± 0.3", 10_000: "3.0 ± 0.1", 60_000: "2.6 ± 0.1"},
    8: {10: "34.0 ± 5.1", 100: "9.5 ± 1.1", 1000: "3.7 ± 0.2", 10_000: "2.4 ± 0.1", 60_000: "2.0 ± 0.1"},
}
"""By d and labels, in %: MNIST, lambda = 1e-3, mu = 1, 1000 epochs."""

NEIGHBOURS = {10: 1, 100: 1, 1000: 5, 10_000: 10, 60_000: 15}
"""The number of neighbours in Table 2, by labels."""

# Of its rows for mu = 1 only these cells were legible in the source.
TABLE3 = {
    (1e-4, 1.0): {"DT(1)": "16.68 ± 0.12"},
    (1e-3, 1.0): {"DT(1)": "17.61 ± 0.37"},
    (1e-4, 64.5): {"DT(1)": "17.65 ± 0.33", "DT(8)": "14.56 ± 0.16", "KNN(20)": "13.14 ± 0.04"},
    (1e-3, 64.5): {"DT(1)": "17.90 ± 0.32", "DT(8)": "15.52 ± 0.17", "KNN(20)": "13.43 ± 0.02"},
}
"""By lambda and mu, in %: CelebA's forty attributes, d = 64, 100 epochs. The majority baseline is 20.0 %."""

TABLE4 = (
    ("Attractive", "p2", 50, 65),
    ("Heavy Makeup", "p2", 60, 76),
    ("High Cheek Bones", "p2", 52, 68),
    ("Male", "p2", 61, 80),
    ("Mouth Slightly Open", "p6", 50, 66),
    ("Smiling", "p6", 50, 67),
    ("Wearing Lipstick", "p2", 52, 79),
)
"""Attribute, component, right answers in % without and with it: CelebA, d = 64; seven of forty attributes."""

MINIMUM_PER_DIM = 1 - 2 * math.log(2)
"""Section 3.3: the least loss at mu = 1 over d, "approximately"."""

FIGURE5_RANGE = (0.47, 3.24)
"""The least and the greatest eigenvalue of Figure 5: CelebA, d = 64."""
