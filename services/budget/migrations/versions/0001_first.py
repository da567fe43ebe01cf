"""Budgets, balances, reservations, usage and its hourly roll-up."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE budgets (
            organization text NOT NULL,
            budget_id text NOT NULL,
            scope text NOT NULL,
            display_name text NOT NULL,
            period smallint NOT NULL,
            time_zone text NOT NULL,
            limit_usd_nanos bigint CHECK (limit_usd_nanos >= 0),
            limit_tokens bigint CHECK (limit_tokens >= 0),
            version bigint NOT NULL,
            request_id uuid NOT NULL,
            created_at timestamptz NOT NULL,
            deleted_at timestamptz,
            PRIMARY KEY (organization, budget_id)
        )
    """)
    op.execute("CREATE UNIQUE INDEX budgets_one_a_period ON budgets (organization, scope, period) WHERE deleted_at IS NULL")
    op.execute("CREATE UNIQUE INDEX budgets_request ON budgets (organization, request_id)")
    op.execute("""
        CREATE TABLE balances (
            organization text NOT NULL,
            budget_id text NOT NULL,
            period_start timestamptz NOT NULL,
            period_end timestamptz NOT NULL,
            spent_usd_nanos bigint NOT NULL DEFAULT 0 CHECK (spent_usd_nanos >= 0),
            held_usd_nanos bigint NOT NULL DEFAULT 0 CHECK (held_usd_nanos >= 0),
            spent_tokens bigint NOT NULL DEFAULT 0 CHECK (spent_tokens >= 0),
            held_tokens bigint NOT NULL DEFAULT 0 CHECK (held_tokens >= 0),
            PRIMARY KEY (organization, budget_id, period_start)
        ) WITH (fillfactor = 50)
    """)
    op.execute("""
        CREATE TABLE reservations (
            organization text NOT NULL,
            request_id uuid NOT NULL,
            scope text NOT NULL,
            body_hash bytea NOT NULL,
            state smallint NOT NULL,
            amount_usd_nanos bigint NOT NULL,
            tokens bigint NOT NULL,
            settled_usd_nanos bigint NOT NULL DEFAULT 0,
            settled_tokens bigint NOT NULL DEFAULT 0,
            settle_hash bytea,
            charges text NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (organization, request_id)
        ) WITH (fillfactor = 70)
    """)
    op.execute("CREATE INDEX reservations_open ON reservations (expires_at) WHERE state = 1")
    op.execute("""
        CREATE TABLE usage (
            organization text NOT NULL,
            request_id uuid NOT NULL,
            line smallint NOT NULL,
            recorded_at timestamptz NOT NULL,
            scope text NOT NULL,
            task text NOT NULL,
            model text NOT NULL,
            provider text NOT NULL,
            deployment text NOT NULL,
            outcome text NOT NULL,
            estimated boolean NOT NULL,
            input_tokens bigint NOT NULL,
            cached_input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            cost_usd_nanos bigint NOT NULL,
            baseline_usd_nanos bigint NOT NULL,
            PRIMARY KEY (organization, request_id, line)
        )
    """)
    op.execute("""
        CREATE TABLE usage_hourly (
            organization text NOT NULL,
            hour timestamptz NOT NULL,
            scope text NOT NULL,
            model text NOT NULL,
            provider text NOT NULL,
            task text NOT NULL,
            requests bigint NOT NULL,
            attempts bigint NOT NULL,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            cost_usd_nanos bigint NOT NULL,
            baseline_usd_nanos bigint NOT NULL,
            saved_cache_usd_nanos bigint NOT NULL,
            saved_prompt_usd_nanos bigint NOT NULL,
            saved_route_usd_nanos bigint NOT NULL,
            PRIMARY KEY (organization, hour, scope, model, provider, task)
        ) WITH (fillfactor = 70)
    """)


def downgrade() -> None:
    for table in ("usage_hourly", "usage", "reservations", "balances", "budgets"):
        op.execute(f"DROP TABLE {table}")
