"""A budget remembers the body of the request that made it, so that a reused request_id is noticed."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE budgets ADD COLUMN body_hash bytea")


def downgrade() -> None:
    op.execute("ALTER TABLE budgets DROP COLUMN body_hash")
