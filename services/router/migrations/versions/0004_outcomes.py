"""Answers, what is thought of them, and what was learned."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE outcomes (
            organization text NOT NULL,
            request_id text NOT NULL,
            scope text NOT NULL,
            task text NOT NULL,
            model text NOT NULL,
            created_at timestamptz NOT NULL,
            shadow boolean NOT NULL,
            automatic double precision,
            features bytea NOT NULL,
            context bytea NOT NULL,
            fingerprint bytea NOT NULL,
            opinion_counts integer[] NOT NULL DEFAULT '{0,0,0}',
            opinion_sums double precision[] NOT NULL DEFAULT '{0,0,0}',
            quality double precision,
            PRIMARY KEY (organization, request_id)
        )
    """)
    op.execute("CREATE INDEX outcomes_judged ON outcomes (organization, created_at) WHERE quality IS NOT NULL")
    op.execute("CREATE INDEX outcomes_by_age ON outcomes (created_at)")
    op.execute("""
        CREATE TABLE opinions (
            organization text NOT NULL,
            request_id text NOT NULL,
            answered_request_id text NOT NULL,
            source smallint NOT NULL,
            value double precision NOT NULL,
            fingerprint bytea NOT NULL,
            recorded_at timestamptz NOT NULL,
            PRIMARY KEY (organization, request_id)
        )
    """)
    op.execute("CREATE INDEX opinions_by_age ON opinions (recorded_at)")
    op.execute("""
        CREATE TABLE quality_days (
            organization text NOT NULL,
            scope text NOT NULL,
            day date NOT NULL,
            model text NOT NULL,
            task text NOT NULL,
            answers bigint NOT NULL,
            quality double precision NOT NULL,
            quality_squares double precision NOT NULL,
            opinions bigint NOT NULL,
            opinion double precision NOT NULL,
            opinion_squares double precision NOT NULL,
            requests bigint NOT NULL,
            cost_usd_nanos bigint NOT NULL,
            cost_squares double precision NOT NULL,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            input_tokens_max bigint NOT NULL,
            needs text[] NOT NULL,
            PRIMARY KEY (organization, scope, day, model, task)
        )
    """)
    op.execute("""
        CREATE TABLE arms (
            organization text NOT NULL,
            task text NOT NULL,
            model text NOT NULL,
            number bigint NOT NULL,
            evidence double precision[] NOT NULL,
            PRIMARY KEY (organization, task, model)
        )
    """)
    op.execute("CREATE SEQUENCE arm_changes")
    op.execute("CREATE UNIQUE INDEX arms_in_order ON arms (number)")
    op.execute("""
        CREATE FUNCTION added(one double precision[], other double precision[]) RETURNS double precision[]
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
        'SELECT array_agg(coalesce(x, 0) + coalesce(y, 0) ORDER BY place) FROM unnest(one, other) WITH ORDINALITY AS pair(x, y, place)'
    """)


def downgrade() -> None:
    op.execute("DROP FUNCTION added")
    op.execute("DROP SEQUENCE arm_changes")
    for table in ("arms", "quality_days", "opinions", "outcomes"):
        op.execute(f"DROP TABLE {table}")
