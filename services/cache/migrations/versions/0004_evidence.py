"""Hits by meaning, what is known of them, its sums, and questions that are kept from an entry."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SEQUENCE evidence_changes")
    op.execute("""
        CREATE TABLE hits (
            organization text NOT NULL,
            hit_id text NOT NULL,
            hit_at timestamptz NOT NULL,
            scope text NOT NULL,
            asked bytea NOT NULL,
            cached bytea NOT NULL,
            entry_key bytea NOT NULL,
            similarity double precision NOT NULL,
            probability double precision NOT NULL,
            probability_min double precision NOT NULL,
            error_budget_ppm bigint NOT NULL,
            wrong_upper_ppm bigint NOT NULL,
            evidence text NOT NULL,
            verifier_id text NOT NULL,
            category text NOT NULL,
            period int NOT NULL,
            bucket smallint NOT NULL,
            chance_ppm int NOT NULL,
            chosen boolean NOT NULL,
            adapted boolean NOT NULL,
            verdict smallint NOT NULL DEFAULT 0,
            source smallint,
            agreement double precision,
            PRIMARY KEY (organization, hit_id)
        )
    """)
    op.execute("CREATE INDEX hits_newest ON hits (organization, hit_at DESC, hit_id DESC)")
    op.execute("CREATE INDEX hits_oldest ON hits (hit_at)")
    op.execute("""
        CREATE TABLE evidence (
            organization text NOT NULL,
            verifier_id text NOT NULL,
            category text NOT NULL,
            period int NOT NULL,
            bucket smallint NOT NULL,
            chance_ppm int NOT NULL,
            lookups bigint NOT NULL,
            hits bigint NOT NULL,
            chosen bigint NOT NULL,
            judged bigint NOT NULL,
            candidates bigint NOT NULL,
            compared bigint NOT NULL,
            wrong_hits double precision NOT NULL,
            wrong_misses double precision NOT NULL,
            wrong_reports double precision NOT NULL,
            number bigint NOT NULL,
            PRIMARY KEY (organization, verifier_id, category, period, bucket, chance_ppm)
        )
    """)
    op.execute("CREATE INDEX evidence_number ON evidence (number)")
    op.execute("""
        CREATE TABLE hit_reports (
            organization text NOT NULL,
            request_id uuid NOT NULL,
            fingerprint bytea NOT NULL,
            hit_id text NOT NULL,
            verdict smallint NOT NULL,
            source smallint NOT NULL,
            agreement double precision,
            evicted boolean NOT NULL,
            reason text NOT NULL,
            reported_at timestamptz NOT NULL,
            PRIMARY KEY (organization, request_id)
        )
    """)
    op.execute("CREATE INDEX hit_reports_oldest ON hit_reports (reported_at)")
    op.execute("""
        CREATE TABLE blocks (
            organization text NOT NULL,
            asked_hash bytea NOT NULL,
            cached_hash bytea NOT NULL,
            entry_key bytea NOT NULL,
            vector bytea NOT NULL,
            created_at timestamptz NOT NULL,
            number bigint NOT NULL,
            PRIMARY KEY (organization, asked_hash, cached_hash)
        )
    """)
    op.execute("CREATE INDEX blocks_number ON blocks (number)")


def downgrade() -> None:
    for table in ("blocks", "hit_reports", "evidence", "hits"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP SEQUENCE evidence_changes")
