"""Experiments: arms, who belongs to which, what came of them, and when that is enough to stop."""
