"""Vectors of any model, each found through a graph of its own; the service makes it with the model's first vector."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP INDEX entries_near")
    op.execute("ALTER TABLE entries ALTER COLUMN embedding TYPE halfvec")


def downgrade() -> None:
    op.execute("""
        DO $$ DECLARE graph text; BEGIN
            FOR graph IN SELECT indexname FROM pg_indexes WHERE schemaname = current_schema AND indexname LIKE 'entries\\_near\\_%' LOOP
                EXECUTE format('DROP INDEX %I', graph);
            END LOOP;
        END $$
    """)
    op.execute("UPDATE entries SET embedding = NULL WHERE vector_dims(embedding) <> 384")
    op.execute("ALTER TABLE entries ALTER COLUMN embedding TYPE halfvec(384)")
    op.execute("CREATE INDEX entries_near ON entries USING hnsw (embedding halfvec_cosine_ops)")
