"""The error budget: which candidate may be served, by which threshold, on what evidence, and what later turned out wrong."""
