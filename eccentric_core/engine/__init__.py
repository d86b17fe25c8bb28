"""The engine: sums over pairs of a function of squared distances, with their first and second derivatives."""
