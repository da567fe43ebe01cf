"""Who leads identical requests under way, and answers on their way to other replicas. Both last seconds, so neither is logged."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE UNLOGGED TABLE flights (
            organization text NOT NULL,
            key bytea NOT NULL,
            flight_id text NOT NULL,
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (organization, key)
        )
    """)
    op.execute("""
        CREATE UNLOGGED TABLE landings (
            organization text NOT NULL,
            flight_id text NOT NULL,
            answer bytea NOT NULL,
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (organization, flight_id)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE landings")
    op.execute("DROP TABLE flights")
