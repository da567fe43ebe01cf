"""Calibrations, which of them were put in force, and what is seen of them since."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SEQUENCE calibration_changes")
    op.execute("""
        CREATE TABLE calibrations (
            organization text NOT NULL,
            calibration_id uuid NOT NULL,
            created_number bigint GENERATED ALWAYS AS IDENTITY,
            number bigint NOT NULL DEFAULT nextval('calibration_changes'),
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            scope text NOT NULL,
            task text NOT NULL,
            version bigint NOT NULL,
            state smallint NOT NULL DEFAULT 1 CHECK (state IN (1, 2, 3)),
            report jsonb NOT NULL,
            policy bytea NOT NULL,
            created_at timestamptz NOT NULL,
            activated_at timestamptz,
            retired_at timestamptz,
            PRIMARY KEY (organization, calibration_id)
        )
    """)
    op.execute("CREATE UNIQUE INDEX calibrations_by_request ON calibrations (organization, request_id)")
    op.execute("CREATE UNIQUE INDEX calibrations_by_version ON calibrations (organization, scope, task, version)")
    op.execute("CREATE UNIQUE INDEX calibrations_in_force ON calibrations (organization, scope, task) WHERE state = 2")
    op.execute("CREATE INDEX calibrations_in_order ON calibrations (number)")
    op.execute("""
        CREATE TABLE calibration_activations (
            organization text NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            calibration_id text NOT NULL,
            retired_calibration_id text NOT NULL,
            activated_at timestamptz NOT NULL,
            PRIMARY KEY (organization, request_id)
        )
    """)
    op.execute("""
        CREATE TABLE calibration_drift (
            organization text NOT NULL,
            calibration_id uuid NOT NULL,
            number bigint NOT NULL DEFAULT nextval('calibration_changes'),
            evidence bytea NOT NULL,
            updated_at timestamptz NOT NULL,
            PRIMARY KEY (organization, calibration_id)
        )
    """)
    op.execute("CREATE INDEX calibration_drift_in_order ON calibration_drift (number)")


def downgrade() -> None:
    for table in ("calibration_drift", "calibration_activations", "calibrations"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP SEQUENCE calibration_changes")
