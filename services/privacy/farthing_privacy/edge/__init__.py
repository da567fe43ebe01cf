"""Groups of RPCs, and messages translated to and from the domain."""
