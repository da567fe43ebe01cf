"""Batches at providers, and what became of their calls."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE batches (
            organization text NOT NULL,
            batch_id uuid NOT NULL,
            model text NOT NULL,
            deployment text NOT NULL,
            provider_batch_id text NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            lease_until timestamptz NOT NULL,
            ended_at timestamptz,
            PRIMARY KEY (organization, batch_id)
        )
    """)
    op.execute("CREATE INDEX batches_under_way ON batches (lease_until) WHERE ended_at IS NULL")
    op.execute("CREATE INDEX batches_ended ON batches (ended_at) WHERE ended_at IS NOT NULL")
    op.execute("""
        CREATE TABLE batch_calls (
            organization text NOT NULL,
            batch_id uuid NOT NULL,
            custom_id text NOT NULL,
            request_id text NOT NULL,
            request_bytes bigint NOT NULL,
            outcome text NOT NULL DEFAULT 'waiting' CHECK (outcome IN ('waiting', 'delivered', 'recorded', 'failed', 'lost')),
            reason text NOT NULL DEFAULT '',
            input_tokens bigint NOT NULL DEFAULT 0,
            output_tokens bigint NOT NULL DEFAULT 0,
            cost_usd_nanos bigint NOT NULL DEFAULT 0,
            ended_at timestamptz,
            PRIMARY KEY (organization, batch_id, custom_id),
            FOREIGN KEY (organization, batch_id) REFERENCES batches ON DELETE CASCADE
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE batch_calls")
    op.execute("DROP TABLE batches")
