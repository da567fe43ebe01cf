"""Experiments, and what each replica has seen of their arms."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SUMS = (
    "requests", "failures", "failure_spread", "cost_usd_nanos", "cost_squares", "answers", "latency_us", "log_latency",
    "log_latency_squares", "scores", "score", "score_spread", "pairs", "pair_served_usd_nanos", "pair_served_squares",
    "pair_usd_nanos", "pair_squares", "pair_products", "pair_log_latency", "pair_log_latency_squares", "pair_scores", "pair_half",
    "pair_half_spread",
)  # fmt: skip


def upgrade() -> None:
    op.execute("""
        CREATE TABLE experiments (
            organization text NOT NULL,
            experiment_id uuid NOT NULL,
            number bigint GENERATED ALWAYS AS IDENTITY,
            serial bigint NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            scope text NOT NULL COLLATE "C",
            task text NOT NULL,
            terms jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            end_at timestamptz,
            version bigint NOT NULL CHECK (version > 0),
            state smallint NOT NULL CHECK (state BETWEEN 1 AND 4),
            state_reason text NOT NULL,
            step integer NOT NULL CHECK (step >= 0),
            winner text NOT NULL,
            stopped_at timestamptz CHECK ((stopped_at IS NULL) = (state = 1)),
            PRIMARY KEY (organization, experiment_id)
        )
    """)
    op.execute("CREATE UNIQUE INDEX experiments_by_request ON experiments (organization, request_id)")
    op.execute("CREATE INDEX experiments_in_order ON experiments (number)")
    op.execute("CREATE INDEX experiments_by_age ON experiments (organization, serial)")
    op.execute("CREATE INDEX experiments_running ON experiments (organization, scope) WHERE state = 1")
    sums = ", ".join(f"{name} numeric(60) NOT NULL" for name in _SUMS)
    op.execute(f"""
        CREATE TABLE experiment_results (
            organization text NOT NULL,
            experiment_id uuid NOT NULL,
            step integer NOT NULL,
            arm text NOT NULL,
            replica_id uuid NOT NULL,
            {sums},
            PRIMARY KEY (organization, experiment_id, step, arm, replica_id),
            FOREIGN KEY (organization, experiment_id) REFERENCES experiments ON DELETE CASCADE
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE experiment_results")
    op.execute("DROP TABLE experiments")
