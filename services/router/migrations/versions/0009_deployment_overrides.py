"""What was said of deployments after farthing.yaml."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE deployment_overrides (
            organization text NOT NULL,
            number bigint GENERATED ALWAYS AS IDENTITY,
            deployment text NOT NULL CHECK (deployment <> ''),
            weight double precision CHECK (weight >= 0),
            enabled boolean NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            recorded_at timestamptz NOT NULL,
            PRIMARY KEY (organization, number)
        )
    """)
    op.execute("CREATE UNIQUE INDEX deployment_overrides_by_request ON deployment_overrides (organization, request_id)")
    op.execute("CREATE INDEX deployment_overrides_holding ON deployment_overrides (organization, deployment, number DESC)")


def downgrade() -> None:
    op.execute("DROP TABLE deployment_overrides")
