"""Which models are asked, in which order, and following that order."""
