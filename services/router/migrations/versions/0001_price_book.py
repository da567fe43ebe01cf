"""The price book."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE prices (
            organization text NOT NULL,
            number bigint GENERATED ALWAYS AS IDENTITY,
            price_id uuid NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            provider text NOT NULL CHECK (provider <> ''),
            model text NOT NULL,
            effective_at timestamptz NOT NULL,
            expires_at timestamptz CHECK (expires_at > effective_at),
            terms jsonb NOT NULL,
            source text NOT NULL CHECK (source <> ''),
            recorded_at timestamptz NOT NULL,
            PRIMARY KEY (organization, number)
        )
    """)
    op.execute("CREATE UNIQUE INDEX prices_by_request ON prices (organization, request_id)")
    op.execute("CREATE UNIQUE INDEX prices_by_id ON prices (organization, price_id)")
    op.execute("CREATE INDEX prices_in_order ON prices (number)")


def downgrade() -> None:
    op.execute("DROP TABLE prices")
