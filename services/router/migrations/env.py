"""Alembic's way into this service's schema."""

from farthing_runtime.migrations import run_env

run_env("router")
