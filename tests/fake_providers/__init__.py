"""Servers on loopback that speak each provider's documented wire, and have every fault we know."""
