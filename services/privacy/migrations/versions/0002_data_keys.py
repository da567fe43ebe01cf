"""Data keys, wrapped; what was erased and by whom; rotations that were done."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE data_keys (
            organization text NOT NULL,
            purpose text NOT NULL,
            number integer NOT NULL CHECK (number > 0),
            master_key_id text NOT NULL,
            wrapped bytea,
            created_at timestamptz NOT NULL,
            erased_at timestamptz,
            erased_by text NOT NULL DEFAULT '',
            PRIMARY KEY (organization, purpose, number),
            CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
        )
    """)
    op.execute("""
        CREATE TABLE key_erasures (
            organization text NOT NULL,
            number bigint GENERATED ALWAYS AS IDENTITY,
            purpose text NOT NULL,
            may_begin_again boolean NOT NULL,
            erased integer NOT NULL,
            erased_at timestamptz NOT NULL,
            actor text NOT NULL,
            reason text NOT NULL,
            PRIMARY KEY (organization, number)
        )
    """)
    op.execute("""
        CREATE TABLE key_rotations (
            organization text NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            made integer NOT NULL,
            rewrapped integer NOT NULL,
            rotated_at timestamptz NOT NULL,
            PRIMARY KEY (organization, request_id)
        )
    """)


def downgrade() -> None:
    for table in ("key_rotations", "key_erasures", "data_keys"):
        op.execute(f"DROP TABLE {table}")
