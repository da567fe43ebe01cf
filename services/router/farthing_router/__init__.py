"""Chooses the cheapest way to a good enough answer, and goes it.

Models and prices come from farthing.yaml, list prices from genai-prices; an unknown price is an error.
A cascade asks cheap models first, judges their answers, and stops or escalates.
"""
