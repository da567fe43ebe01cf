"""Budgets on part of the work, moving windows, request limits and terms near the limit; holds with a life; the journal."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


_NUMBER = "('x' || encode(substring(sha256(convert_to({charges}, 'UTF8')) FROM 1 FOR 8), 'hex'))::bit(64)::bigint"
_CHARGE = "budget_id || '@' || extract(epoch FROM period_start)::bigint"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE budgets
            ADD COLUMN limit_requests bigint CHECK (limit_requests >= 0),
            ADD COLUMN selector_kind text NOT NULL DEFAULT '',
            ADD COLUMN selector_name text NOT NULL DEFAULT '',
            ADD COLUMN start_month smallint NOT NULL DEFAULT 1,
            ADD COLUMN start_day smallint NOT NULL DEFAULT 1,
            ADD COLUMN window_s bigint NOT NULL DEFAULT 0,
            ADD COLUMN soft_percent smallint NOT NULL DEFAULT 0,
            ADD COLUMN critical_percent smallint NOT NULL DEFAULT 200,
            ADD COLUMN on_exhaustion smallint NOT NULL DEFAULT 1,
            ADD COLUMN measure smallint NOT NULL DEFAULT 1
    """)
    op.execute("DROP INDEX budgets_one_a_period")
    op.execute("""
        CREATE UNIQUE INDEX budgets_one_a_period ON budgets (organization, scope, period, window_s, selector_kind, selector_name)
        WHERE deleted_at IS NULL
    """)
    # A refund after a reset makes less than nothing of what was spent.
    op.execute("ALTER TABLE balances DROP CONSTRAINT balances_spent_usd_nanos_check")
    op.execute("ALTER TABLE balances DROP CONSTRAINT balances_spent_tokens_check")
    op.execute("""
        ALTER TABLE balances
            ADD COLUMN suspense_usd_nanos bigint NOT NULL DEFAULT 0 CHECK (suspense_usd_nanos >= 0),
            ADD COLUMN suspense_tokens bigint NOT NULL DEFAULT 0 CHECK (suspense_tokens >= 0),
            ADD COLUMN spent_requests bigint NOT NULL DEFAULT 0,
            ADD COLUMN held_requests bigint NOT NULL DEFAULT 0 CHECK (held_requests >= 0),
            ADD COLUMN burn_usd_nanos double precision NOT NULL DEFAULT 0,
            ADD COLUMN burn_at timestamptz,
            ADD COLUMN risk bytea
    """)
    op.execute("""
        ALTER TABLE reservations
            ADD COLUMN authorized_usd_nanos bigint NOT NULL DEFAULT 0,
            ADD COLUMN changed_at timestamptz,
            ADD COLUMN charges_number bigint,
            ADD COLUMN critical boolean NOT NULL DEFAULT false,
            ADD COLUMN sized text,
            ADD COLUMN risk bytea
    """)
    op.execute("""
        CREATE TABLE charge_sets (
            organization text NOT NULL,
            charges_number bigint NOT NULL,
            charges text NOT NULL,
            PRIMARY KEY (organization, charges_number)
        )
    """)
    op.execute("CREATE TABLE terms_epochs (organization text PRIMARY KEY, epoch bigint NOT NULL)")
    op.execute("INSERT INTO terms_epochs SELECT DISTINCT organization, 1 FROM budgets")
    op.execute("""
        CREATE FUNCTION raise_terms_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO terms_epochs AS e (organization, epoch) VALUES (NEW.organization, 1)
            ON CONFLICT (organization) DO UPDATE SET epoch = e.epoch + 1;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER budgets_raise_epoch AFTER INSERT OR UPDATE ON budgets FOR EACH ROW EXECUTE FUNCTION raise_terms_epoch()
    """)
    op.execute("""
        UPDATE reservations SET authorized_usd_nanos = amount_usd_nanos, changed_at = created_at,
            charges = (SELECT coalesce(string_agg(split_part(line, '@', 1) || '@'
                    || extract(epoch FROM split_part(line, '@', 2)::timestamptz)::bigint, E'\\n' ORDER BY number), '')
                FROM unnest(string_to_array(charges, E'\\n')) WITH ORDINALITY AS lines (line, number) WHERE line <> '')
    """)
    # Holds of before the journal: what they had made of the balances is its first entry.
    op.execute("""
        UPDATE balances b SET
            held_requests = (SELECT count(*) FROM reservations r WHERE r.organization = b.organization AND r.state = 1
                AND E'\\n' || r.charges || E'\\n' LIKE '%' || E'\\n' || b.budget_id || '@'
                    || extract(epoch FROM b.period_start)::bigint || E'\\n' || '%')
    """)
    op.execute(f"UPDATE reservations SET charges_number = {_NUMBER.format(charges='charges')}")
    op.execute("INSERT INTO charge_sets SELECT DISTINCT organization, charges_number, charges FROM reservations")
    op.execute("ALTER TABLE reservations ALTER COLUMN changed_at SET NOT NULL, ALTER COLUMN charges_number SET NOT NULL")
    op.execute("ALTER TABLE reservations DROP COLUMN charges")
    op.execute("DROP INDEX reservations_open")
    op.execute("CREATE INDEX reservations_open ON reservations (expires_at) WHERE state IN (1, 5)")
    _create_journal()


def _create_journal() -> None:
    op.execute("CREATE SEQUENCE journal_entry_id CACHE 256")
    op.execute("""
        CREATE TABLE journal (
            organization text NOT NULL,
            at timestamptz NOT NULL,
            entry_id bigint NOT NULL DEFAULT nextval('journal_entry_id'),
            kind smallint NOT NULL,
            request_id uuid NOT NULL,
            scope text NOT NULL,
            charges_number bigint NOT NULL,
            held_usd_nanos bigint NOT NULL,
            spent_usd_nanos bigint NOT NULL,
            suspense_usd_nanos bigint NOT NULL,
            held_tokens bigint NOT NULL,
            spent_tokens bigint NOT NULL,
            suspense_tokens bigint NOT NULL,
            held_requests bigint NOT NULL,
            spent_requests bigint NOT NULL,
            note text NOT NULL,
            corrects uuid,
            PRIMARY KEY (organization, at, entry_id)
        )
    """)
    # What was there before the journal is its first entry.
    op.execute(
        f"INSERT INTO charge_sets SELECT organization, {_NUMBER.format(charges=_CHARGE)}, {_CHARGE} FROM balances ON CONFLICT DO NOTHING"
    )
    op.execute(f"""
        INSERT INTO journal (organization, at, kind, request_id, scope, charges_number, held_usd_nanos, spent_usd_nanos,
            suspense_usd_nanos, held_tokens, spent_tokens, suspense_tokens, held_requests, spent_requests, note)
        SELECT organization, now(), 8, gen_random_uuid(), 'organizations/' || organization, {_NUMBER.format(charges=_CHARGE)},
            held_usd_nanos, spent_usd_nanos, 0, held_tokens, spent_tokens, 0, held_requests, 0, 'opening balance'
        FROM balances
    """)
    op.execute("""
        CREATE FUNCTION journal_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the journal is only ever added to' USING ERRCODE = 'restrict_violation';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER journal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
        FOR EACH STATEMENT EXECUTE FUNCTION journal_is_append_only()
    """)


def downgrade() -> None:
    op.execute("DROP TABLE journal")
    op.execute("DROP FUNCTION journal_is_append_only")
    op.execute("DROP SEQUENCE journal_entry_id")
    op.execute("DROP TRIGGER budgets_raise_epoch ON budgets")
    op.execute("DROP FUNCTION raise_terms_epoch")
    op.execute("DROP TABLE terms_epochs")
    op.execute("ALTER TABLE reservations ADD COLUMN charges text")
    op.execute("""
        UPDATE reservations r SET charges = (SELECT coalesce(string_agg(split_part(line, '@', 1) || '@'
                || to_char(to_timestamp(split_part(split_part(line, '@', 2), '|', 1)::bigint) AT TIME ZONE 'UTC',
                    'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'), E'\\n' ORDER BY number), '')
            FROM charge_sets c, unnest(string_to_array(c.charges, E'\\n')) WITH ORDINALITY AS lines (line, number)
            WHERE c.organization = r.organization AND c.charges_number = r.charges_number AND line <> '')
    """)
    op.execute("DROP TABLE charge_sets")
    op.execute("DROP INDEX reservations_open")
    op.execute("CREATE INDEX reservations_open ON reservations (expires_at) WHERE state = 1")
    op.execute("""
        ALTER TABLE reservations ALTER COLUMN charges SET NOT NULL, DROP COLUMN charges_number, DROP COLUMN authorized_usd_nanos,
            DROP COLUMN changed_at, DROP COLUMN critical, DROP COLUMN sized, DROP COLUMN risk
    """)
    op.execute(
        "ALTER TABLE balances DROP COLUMN suspense_usd_nanos, DROP COLUMN suspense_tokens, DROP COLUMN spent_requests, "
        "DROP COLUMN held_requests, DROP COLUMN burn_usd_nanos, DROP COLUMN burn_at, DROP COLUMN risk"
    )
    op.execute("DROP INDEX budgets_one_a_period")
    op.execute(
        "ALTER TABLE budgets DROP COLUMN limit_requests, DROP COLUMN selector_kind, DROP COLUMN selector_name, DROP COLUMN start_month, "
        "DROP COLUMN start_day, DROP COLUMN window_s, DROP COLUMN soft_percent, DROP COLUMN critical_percent, "
        "DROP COLUMN on_exhaustion, DROP COLUMN measure"
    )
    op.execute("CREATE UNIQUE INDEX budgets_one_a_period ON budgets (organization, scope, period) WHERE deleted_at IS NULL")
