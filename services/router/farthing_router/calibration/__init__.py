"""Cascades fitted on a user's own labelled answers: when one more answer is worth its price."""
