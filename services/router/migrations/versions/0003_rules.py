"""Routing rules, every version of them."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE rules (
            organization text NOT NULL,
            rule_id uuid NOT NULL,
            version bigint NOT NULL CHECK (version > 0),
            number bigint GENERATED ALWAYS AS IDENTITY,
            created_number bigint,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            scope text NOT NULL CHECK (scope <> ''),
            body jsonb NOT NULL,
            deleted boolean NOT NULL,
            recorded_at timestamptz NOT NULL,
            PRIMARY KEY (organization, rule_id, version)
        )
    """)
    op.execute("CREATE UNIQUE INDEX rules_by_request ON rules (organization, request_id)")
    op.execute("CREATE INDEX rules_in_order ON rules (number)")


def downgrade() -> None:
    op.execute("DROP TABLE rules")
