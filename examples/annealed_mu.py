"""Anneal mu under torch.compile: mu is a 0-d tensor, so that another value causes no recompilation.

    python examples/annealed_mu.py

A small autoencoder is trained while mu falls from d + 1/2, where close pairs repel most, to 1, where far pairs do. In
eager mode mu may be a number. A compiled graph may take a number for a constant, but not a tensor.
"""

import torch
from torch import nn

from eccentric_core import eccentric_loss

DIM, STEPS, LAM = 8, 300, 0.1

torch.manual_seed(0)
data = torch.randn(1000, 8) @ torch.randn(8, 20)
encoder, decoder = nn.Linear(20, DIM), nn.Linear(DIM, 20)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-2)


@torch.compile(fullgraph=True)
def penalty(z: torch.Tensor, mu: torch.Tensor) -> torch.Tensor:
    """The weighted loss of latent vectors."""
    return LAM * eccentric_loss(z, mu)


for step in range(STEPS):
    mu = torch.tensor(1.0 + (DIM - 0.5) * (1.0 - step / (STEPS - 1)))
    x = data[torch.randint(len(data), (100,))]
    z = encoder(x)
    # From the second step on, a compilation would be an error.
    with torch.compiler.set_stance("fail_on_recompile" if step else "default"):
        loss = nn.functional.mse_loss(decoder(z), x) + penalty(z, mu)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

trace = z.detach().var(dim=0).sum()
print(f"mu from {DIM + 0.5} to {mu.item():.1f} in {STEPS} steps, one compilation; trace {trace:.1f} (d = {DIM})")
