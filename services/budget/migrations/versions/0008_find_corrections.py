"""The corrections of a reservation are found by the reservation."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX journal_corrections ON journal (organization, corrects) WHERE corrects IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX journal_corrections")
