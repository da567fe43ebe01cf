"""What an entry is worth, how it did, what is read of its question, and epochs of scopes."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE entries ALTER COLUMN question TYPE bytea USING convert_to(question, 'UTF8')")
    op.execute("""
        ALTER TABLE entries
            ADD COLUMN reading bytea,
            ADD COLUMN embedder text NOT NULL DEFAULT '',
            ADD COLUMN stale_at timestamptz,
            ADD COLUMN cost_usd_nanos bigint NOT NULL DEFAULT 0,
            ADD COLUMN payload_bytes bigint NOT NULL DEFAULT 0,
            ADD COLUMN hits bigint NOT NULL DEFAULT 0,
            ADD COLUMN hit_at timestamptz,
            ADD COLUMN saved_usd_nanos bigint NOT NULL DEFAULT 0,
            ADD COLUMN worth_usd_nanos bigint NOT NULL DEFAULT 0
    """)
    op.execute("UPDATE entries SET payload_bytes = length(payload)")
    op.execute("""
        CREATE TABLE epochs (
            organization text NOT NULL,
            scope text NOT NULL,
            raised_at timestamptz NOT NULL,
            PRIMARY KEY (organization, scope)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE epochs")
    op.execute("""
        ALTER TABLE entries DROP COLUMN reading, DROP COLUMN embedder, DROP COLUMN stale_at, DROP COLUMN cost_usd_nanos,
            DROP COLUMN payload_bytes, DROP COLUMN hits, DROP COLUMN hit_at, DROP COLUMN saved_usd_nanos, DROP COLUMN worth_usd_nanos
    """)
    op.execute("ALTER TABLE entries ALTER COLUMN question TYPE text USING convert_from(question, 'UTF8')")
