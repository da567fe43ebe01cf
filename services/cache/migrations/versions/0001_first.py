"""Entries with their vectors, and what look-ups came to."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE entries (
            organization text NOT NULL,
            key bytea NOT NULL,
            partition bytea NOT NULL,
            scope text NOT NULL,
            model text NOT NULL,
            tags text[] NOT NULL,
            payload bytea NOT NULL,
            question text,
            embedding halfvec(384),
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (organization, key)
        )
    """)
    op.execute("CREATE INDEX entries_partition ON entries (organization, partition) WHERE embedding IS NOT NULL")
    op.execute("CREATE INDEX entries_near ON entries USING hnsw (embedding halfvec_cosine_ops)")
    op.execute("CREATE INDEX entries_expiry ON entries (expires_at)")
    op.execute("CREATE INDEX entries_tags ON entries USING gin (tags)")
    op.execute("""
        CREATE TABLE lookups (
            organization text NOT NULL,
            scope text NOT NULL,
            hits_exact bigint NOT NULL,
            hits_semantic bigint NOT NULL,
            misses bigint NOT NULL,
            avoided_usd_nanos bigint NOT NULL,
            PRIMARY KEY (organization, scope)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE lookups")
    op.execute("DROP TABLE entries")
