"""Alert rules with their channels, what may call for an alert, alerts, and their deliveries."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE alert_rules (
            organization text NOT NULL,
            rule_id text NOT NULL,
            scope text NOT NULL,
            kind smallint NOT NULL,
            percents smallint[] NOT NULL,
            amount_usd_nanos bigint NOT NULL,
            request_id uuid NOT NULL,
            body_hash bytea NOT NULL,
            created_at timestamptz NOT NULL,
            deleted_at timestamptz,
            PRIMARY KEY (organization, rule_id)
        )
    """)
    op.execute("CREATE UNIQUE INDEX alert_rules_request ON alert_rules (organization, request_id)")
    # Targets and secrets stand apart from the rules: what lists rules never reads them.
    op.execute("""
        CREATE TABLE alert_channels (
            organization text NOT NULL,
            rule_id text NOT NULL,
            channel_id text NOT NULL,
            number smallint NOT NULL,
            kind text NOT NULL,
            addressee text NOT NULL,
            target text NOT NULL,
            secret text NOT NULL,
            PRIMARY KEY (organization, rule_id, channel_id)
        )
    """)
    op.execute("CREATE TABLE alert_epochs (organization text PRIMARY KEY, epoch bigint NOT NULL)")
    op.execute("""
        CREATE FUNCTION raise_alert_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO alert_epochs AS e (organization, epoch) VALUES (NEW.organization, 1)
            ON CONFLICT (organization) DO UPDATE SET epoch = e.epoch + 1;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER alert_rules_raise_epoch AFTER INSERT OR UPDATE ON alert_rules
        FOR EACH ROW EXECUTE FUNCTION raise_alert_epoch()
    """)
    # Written in the transaction of a settlement, read and deleted in the one that raises the alert: no crash comes between.
    op.execute("""
        CREATE TABLE alert_notices (
            organization text NOT NULL,
            notice_id bigint GENERATED ALWAYS AS IDENTITY,
            kind smallint NOT NULL,
            at timestamptz NOT NULL,
            scope text NOT NULL,
            detail text NOT NULL,
            amount bigint NOT NULL,
            incidents bigint NOT NULL,
            budget_id text NOT NULL,
            period_start timestamptz,
            window_s bigint NOT NULL,
            resets bigint NOT NULL,
            unit smallint NOT NULL,
            limit_amount bigint NOT NULL,
            percent_before smallint NOT NULL,
            percent smallint NOT NULL,
            PRIMARY KEY (organization, notice_id)
        )
    """)
    op.execute("CREATE INDEX journal_resets ON journal (organization, charges_number) WHERE kind = 10")
    op.execute("""
        CREATE TABLE alerts (
            organization text NOT NULL,
            alert_id text NOT NULL,
            rule_id text NOT NULL,
            subject text NOT NULL,
            period_start timestamptz NOT NULL,
            resets bigint NOT NULL,
            limit_amount bigint NOT NULL,
            kind smallint NOT NULL,
            scope text NOT NULL,
            budget_id text NOT NULL,
            unit smallint NOT NULL,
            threshold bigint NOT NULL,
            observed bigint NOT NULL,
            amount bigint NOT NULL,
            incidents bigint NOT NULL,
            detail text NOT NULL,
            ends_at timestamptz,
            created_at timestamptz NOT NULL,
            PRIMARY KEY (organization, alert_id)
        )
    """)
    op.execute("""
        CREATE UNIQUE INDEX alerts_once ON alerts (organization, rule_id, subject, period_start, resets, limit_amount)
    """)
    op.execute("CREATE INDEX alerts_newest ON alerts (organization, created_at, alert_id)")
    op.execute("""
        CREATE TABLE alert_deliveries (
            organization text NOT NULL,
            alert_id text NOT NULL,
            channel_id text NOT NULL,
            number smallint NOT NULL,
            kind text NOT NULL,
            addressee text NOT NULL,
            state smallint NOT NULL,
            attempts smallint NOT NULL,
            error text NOT NULL,
            next_at timestamptz NOT NULL,
            PRIMARY KEY (organization, alert_id, channel_id)
        ) WITH (fillfactor = 70)
    """)
    op.execute("CREATE INDEX alert_deliveries_due ON alert_deliveries (next_at) WHERE state = 1")


def downgrade() -> None:
    for table in ("alert_deliveries", "alerts", "alert_notices", "alert_epochs", "alert_channels", "alert_rules"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION raise_alert_epoch")
    op.execute("DROP INDEX journal_resets")
