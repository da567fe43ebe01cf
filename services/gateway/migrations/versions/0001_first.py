"""API keys, by the hash of their secret."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE keys (
            organization text NOT NULL,
            key_id text NOT NULL,
            scope text NOT NULL,
            display_name text NOT NULL,
            prefix text NOT NULL,
            secret_hash bytea NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz,
            revoked_at timestamptz,
            PRIMARY KEY (organization, key_id)
        )
    """)
    op.execute("CREATE INDEX keys_secret ON keys (secret_hash)")


def downgrade() -> None:
    op.execute("DROP TABLE keys")
