"""What is learned of the lengths of answers is kept; budgets that want full holds; pooled risks in whole numbers."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE budgets ADD COLUMN hold_worst_case boolean NOT NULL DEFAULT false")
    op.execute("""
        CREATE TABLE answer_lengths (
            organization text NOT NULL,
            scope text NOT NULL,
            model text NOT NULL,
            task text NOT NULL,
            input_bucket smallint NOT NULL,
            max_bucket smallint NOT NULL,
            counts bytea NOT NULL,
            changed_at timestamptz NOT NULL,
            PRIMARY KEY (organization, scope, model, task, input_bucket, max_bucket)
        )
    """)
    op.execute("CREATE INDEX answer_lengths_changed ON answer_lengths (changed_at)")
    # A risk that was pooled in other units would never come to nothing again.
    op.execute("UPDATE balances SET risk = NULL WHERE risk IS NOT NULL")
    op.execute("UPDATE reservations SET risk = NULL WHERE risk IS NOT NULL")


def downgrade() -> None:
    op.execute("UPDATE reservations SET risk = NULL WHERE risk IS NOT NULL")
    op.execute("UPDATE balances SET risk = NULL WHERE risk IS NOT NULL")
    op.execute("DROP TABLE answer_lengths")
    op.execute("ALTER TABLE budgets DROP COLUMN hold_worst_case")
