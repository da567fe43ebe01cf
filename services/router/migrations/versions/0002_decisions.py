"""Routing decisions, and their sums by the hour."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE decisions (
            organization text NOT NULL,
            decided_at timestamptz NOT NULL,
            decision_id uuid NOT NULL,
            request_id uuid NOT NULL,
            shadow_of text NOT NULL,
            workspace text NOT NULL COLLATE "C",
            scope text NOT NULL COLLATE "C",
            task text NOT NULL,
            requested_model text NOT NULL,
            strategy text NOT NULL,
            reason text NOT NULL,
            rule_id text NOT NULL,
            rule_version bigint NOT NULL,
            calibration_id text NOT NULL,
            experiment_id text NOT NULL,
            arm text NOT NULL,
            complexity double precision NOT NULL,
            candidates text NOT NULL,
            served_model text NOT NULL,
            outcome text NOT NULL,
            escalated boolean NOT NULL,
            failed boolean NOT NULL,
            confidence double precision,
            cost_usd_nanos bigint NOT NULL,
            latency_ms bigint NOT NULL,
            attempts integer NOT NULL,
            quality double precision,
            place bytea NOT NULL,
            PRIMARY KEY (organization, decided_at, decision_id)
        )
    """)
    for name in ("workspace", "scope", "task", "strategy", "served_model", "requested_model"):
        op.execute(f"CREATE INDEX decisions_by_{name} ON decisions (organization, {name}, decided_at, decision_id)")
    op.execute(
        "CREATE INDEX decisions_by_experiment ON decisions (organization, experiment_id, decided_at, decision_id) WHERE experiment_id <> ''"
    )
    op.execute("CREATE INDEX decisions_by_request ON decisions (organization, request_id)")
    op.execute("CREATE INDEX decisions_by_original ON decisions (organization, shadow_of) WHERE shadow_of <> ''")
    # Rows come in the order of time and go in it, so that a tiny index finds the old ones.
    op.execute("CREATE INDEX decisions_by_age ON decisions USING brin (decided_at)")
    op.execute("""
        CREATE TABLE decision_sums (
            organization text NOT NULL,
            at timestamptz NOT NULL,
            place bytea NOT NULL,
            shadow boolean NOT NULL,
            task text NOT NULL,
            strategy text NOT NULL,
            reason text NOT NULL,
            rule_id text NOT NULL,
            calibration_id text NOT NULL,
            experiment_id text NOT NULL,
            arm text NOT NULL,
            served_model text NOT NULL,
            candidates text NOT NULL,
            decisions bigint NOT NULL,
            escalated bigint NOT NULL,
            failed bigint NOT NULL,
            attempts bigint NOT NULL,
            cost_usd_nanos numeric NOT NULL,
            latency_ms bigint NOT NULL,
            confidence_sum double precision NOT NULL,
            confidence_answers bigint NOT NULL,
            quality_sum double precision NOT NULL DEFAULT 0,
            quality_squares double precision NOT NULL DEFAULT 0,
            quality_answers bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (organization, at, place)
        ) WITH (fillfactor = 70)
    """)
    op.execute("CREATE INDEX decision_sums_by_age ON decision_sums (at)")


def downgrade() -> None:
    op.execute("DROP TABLE decision_sums")
    op.execute("DROP TABLE decisions")
