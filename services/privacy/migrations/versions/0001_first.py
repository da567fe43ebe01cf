"""Accounts of ε, and the answers that were paid from them."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE epsilon_accounts (
            organization text PRIMARY KEY,
            spent_micros bigint NOT NULL CHECK (spent_micros >= 0)
        )
    """)
    op.execute("""
        CREATE TABLE releases (
            organization text NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            epsilon_micros bigint NOT NULL CHECK (epsilon_micros > 0),
            value bigint NOT NULL,
            noise_half_width_95 bigint NOT NULL,
            epsilon_left_micros bigint NOT NULL CHECK (epsilon_left_micros >= 0),
            released_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (organization, request_id)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE releases")
    op.execute("DROP TABLE epsilon_accounts")
