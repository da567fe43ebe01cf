"""Performance by the hour and by the day, and when providers were away."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("performance_hours", "performance_days"):
        # Histograms are sparse vectors: small, and added up element by element by the database. They stay in their rows: read in pieces
        # from elsewhere, they would take many times as long.
        op.execute(f"""
            CREATE TABLE {table} (
                organization text NOT NULL,
                level text NOT NULL,
                at timestamptz NOT NULL,
                provider text NOT NULL,
                model text NOT NULL,
                deployment text NOT NULL,
                task text NOT NULL,
                attempts bigint NOT NULL,
                failures bigint NOT NULL,
                cancelled bigint NOT NULL,
                down bigint NOT NULL,
                answers bigint NOT NULL,
                cost_usd_nanos numeric NOT NULL,
                input_tokens bigint NOT NULL,
                output_tokens bigint NOT NULL,
                paced bigint NOT NULL,
                line_tokens double precision NOT NULL,
                line_squares double precision NOT NULL,
                line_ms double precision NOT NULL,
                line_products double precision NOT NULL,
                input_tokens_max bigint NOT NULL,
                latency sparsevec(160),
                first_token sparsevec(160),
                pace sparsevec(160),
                kinds sparsevec(32),
                PRIMARY KEY (organization, level, at, provider, model, deployment, task)
            ) WITH (fillfactor = 70, toast_tuple_target = 8160)
        """)
        for name in ("latency", "first_token", "pace", "kinds"):
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {name} SET STORAGE MAIN")
        op.execute(f"CREATE INDEX {table}_by_age ON {table} (at)")
    op.execute("CREATE INDEX performance_hours_by_task ON performance_hours (organization, task, at) WHERE level = 'all'")
    op.execute("""
        CREATE TABLE provider_minutes (
            organization text NOT NULL,
            at timestamptz NOT NULL,
            provider text NOT NULL,
            attempts vector(60) NOT NULL,
            down vector(60) NOT NULL,
            PRIMARY KEY (organization, at, provider)
        ) WITH (fillfactor = 70)
    """)
    op.execute("CREATE INDEX provider_minutes_by_age ON provider_minutes (at)")
    op.execute("""
        CREATE TABLE performance_flushes (
            organization text NOT NULL,
            replica uuid NOT NULL,
            sequence bigint NOT NULL,
            flushed_at timestamptz NOT NULL,
            PRIMARY KEY (organization, replica)
        )
    """)
    op.execute("CREATE INDEX performance_flushes_by_age ON performance_flushes (flushed_at)")


def downgrade() -> None:
    for table in ("performance_flushes", "provider_minutes", "performance_days", "performance_hours"):
        op.execute(f"DROP TABLE {table}")
