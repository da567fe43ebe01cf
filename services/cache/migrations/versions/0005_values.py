"""How entries were used and rank, what an organisation's entries take, and how stable answers are."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A row of its own for what every hit changes: a changed entry would go through every index again, the graph of neighbours included.
    op.execute("""
        ALTER TABLE entries DROP COLUMN hits, DROP COLUMN hit_at, DROP COLUMN saved_usd_nanos, DROP COLUMN worth_usd_nanos
    """)
    op.execute("""
        CREATE TABLE uses (
            organization text NOT NULL,
            key bytea NOT NULL,
            payload_bytes bigint NOT NULL,
            density double precision NOT NULL,
            rank double precision NOT NULL,
            hits bigint NOT NULL DEFAULT 0,
            hit_at timestamptz,
            saved_usd_nanos bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (organization, key)
        )
    """)
    op.execute("CREATE INDEX uses_rank ON uses (organization, rank)")
    op.execute(
        "INSERT INTO uses (organization, key, payload_bytes, density, rank) SELECT organization, key, payload_bytes, 0, 0 FROM entries"
    )
    op.execute("""
        CREATE TABLE rooms (
            organization text PRIMARY KEY,
            entries bigint NOT NULL DEFAULT 0,
            payload_bytes bigint NOT NULL DEFAULT 0,
            evicted bigint NOT NULL DEFAULT 0,
            not_admitted bigint NOT NULL DEFAULT 0,
            changed_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("CREATE INDEX rooms_changed ON rooms (changed_at)")
    # Whatever changes entries leaves a row here, so that nobody waits for the sums of an organisation; they are added up in the background.
    op.execute("""
        CREATE TABLE room_changes (
            organization text NOT NULL,
            number bigint GENERATED ALWAYS AS IDENTITY,
            entries bigint NOT NULL,
            payload_bytes bigint NOT NULL,
            PRIMARY KEY (organization, number)
        )
    """)
    op.execute("""
        INSERT INTO room_changes (organization, entries, payload_bytes)
        SELECT organization, count(*), sum(payload_bytes) FROM entries GROUP BY organization
    """)
    op.execute("""
        CREATE FUNCTION note_entries_put() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
        BEGIN
            INSERT INTO room_changes (organization, entries, payload_bytes)
            SELECT organization, count(*), sum(payload_bytes) FROM put GROUP BY organization;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION note_entries_replaced() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
        BEGIN
            INSERT INTO room_changes (organization, entries, payload_bytes)
            SELECT organization, 0, sum(payload_bytes) FROM (
                SELECT organization, payload_bytes FROM put UNION ALL SELECT organization, -payload_bytes FROM gone
            ) AS both_ways GROUP BY organization HAVING sum(payload_bytes) <> 0;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION note_entries_gone() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
        BEGIN
            DELETE FROM uses u USING gone g WHERE u.organization = g.organization AND u.key = g.key;
            INSERT INTO room_changes (organization, entries, payload_bytes)
            SELECT organization, -count(*), -sum(payload_bytes) FROM gone GROUP BY organization;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER entries_put AFTER INSERT ON entries REFERENCING NEW TABLE AS put
        FOR EACH STATEMENT EXECUTE FUNCTION note_entries_put()
    """)
    op.execute("""
        CREATE TRIGGER entries_replaced AFTER UPDATE ON entries REFERENCING OLD TABLE AS gone NEW TABLE AS put
        FOR EACH STATEMENT EXECUTE FUNCTION note_entries_replaced()
    """)
    op.execute("""
        CREATE TRIGGER entries_gone AFTER DELETE ON entries REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION note_entries_gone()
    """)
    op.execute("""
        CREATE TABLE stabilities (
            organization text NOT NULL,
            kind text NOT NULL,
            watched_s double precision NOT NULL,
            changes double precision NOT NULL,
            PRIMARY KEY (organization, kind)
        )
    """)


def downgrade() -> None:
    for trigger, function in (
        ("entries_put", "note_entries_put"),
        ("entries_replaced", "note_entries_replaced"),
        ("entries_gone", "note_entries_gone"),
    ):
        op.execute(f"DROP TRIGGER {trigger} ON entries")
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP TABLE stabilities, room_changes, rooms, uses")
    op.execute("""
        ALTER TABLE entries ADD COLUMN hits bigint NOT NULL DEFAULT 0, ADD COLUMN hit_at timestamptz,
            ADD COLUMN saved_usd_nanos bigint NOT NULL DEFAULT 0, ADD COLUMN worth_usd_nanos bigint NOT NULL DEFAULT 0
    """)
