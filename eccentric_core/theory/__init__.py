"""The theory of the loss: its scale, the stationary sphere, lower bounds, and proofs in interval arithmetic."""
