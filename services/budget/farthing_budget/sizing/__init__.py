"""How much to hold for answers of unknown length. Lengths are learned, and what open streams may yet cost is pooled. No I/O."""
