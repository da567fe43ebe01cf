"""Alembic's entry: the runtime runs this service's migrations in its schema."""

from farthing_runtime.migrations import run_env

run_env("privacy")
