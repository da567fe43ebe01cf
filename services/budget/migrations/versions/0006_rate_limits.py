"""Rate limits, and the epochs by which processes hear of their changes."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE rate_limits (
            organization text NOT NULL,
            rate_limit_id text NOT NULL,
            scope text NOT NULL,
            model text NOT NULL,
            requests_per_minute bigint NOT NULL CHECK (requests_per_minute >= 0),
            tokens_per_minute bigint NOT NULL CHECK (tokens_per_minute >= 0),
            concurrent_requests bigint NOT NULL CHECK (concurrent_requests >= 0),
            burst_s integer NOT NULL CHECK (burst_s BETWEEN 1 AND 3600),
            request_id uuid NOT NULL,
            body_hash bytea NOT NULL,
            created_at timestamptz NOT NULL,
            deleted_at timestamptz,
            PRIMARY KEY (organization, rate_limit_id),
            UNIQUE (organization, request_id)
        )
    """)
    op.execute(
        "CREATE UNIQUE INDEX rate_limits_one_a_place ON rate_limits (organization, scope, model) WHERE deleted_at IS NULL"
    )
    op.execute("CREATE SEQUENCE rate_limit_epoch")
    op.execute("CREATE TABLE rate_limit_epochs (organization text PRIMARY KEY, epoch bigint NOT NULL)")
    op.execute("CREATE UNIQUE INDEX rate_limit_epochs_by_epoch ON rate_limit_epochs (epoch)")
    # The lock lets changes commit in the order of their epochs: whoever has seen one has seen all before it.
    op.execute("""
        CREATE FUNCTION raise_rate_limit_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(hashtextextended('farthing.budget.rate_limit_epoch', 0));
            INSERT INTO rate_limit_epochs (organization, epoch) VALUES (NEW.organization, nextval('rate_limit_epoch'))
            ON CONFLICT (organization) DO UPDATE SET epoch = EXCLUDED.epoch;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER rate_limits_raise_epoch AFTER INSERT OR UPDATE ON rate_limits
        FOR EACH ROW EXECUTE FUNCTION raise_rate_limit_epoch()
    """)


def downgrade() -> None:
    op.execute("DROP TABLE rate_limits")
    op.execute("DROP FUNCTION raise_rate_limit_epoch")
    op.execute("DROP TABLE rate_limit_epochs")
    op.execute("DROP SEQUENCE rate_limit_epoch")
