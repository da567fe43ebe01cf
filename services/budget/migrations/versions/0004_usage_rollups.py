"""Usage with every figure and where it is from; roll-ups by many dimensions; invoices."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_DIMENSIONS = ("workspace", "project", "user_name", "model", "provider", "task", "service", "domain", "key_id")
_ROLLUPS = (
    # number, hours, dimensions, as farthing_budget/rollups.py had them when this was written; those by tag have nothing to begin with.
    (1, "hour", "model provider"),
    (2, "day", "workspace project user_name"),
    (3, "hour", "workspace model provider"),
    (4, "day", "workspace project model provider task service domain"),
    (5, "hour", "workspace project model provider"),
    (6, "day", "workspace project user_name model provider task service domain key_id"),
    (7, "hour", "workspace project user_name model provider task service domain key_id"),
)
_NEW_COLUMNS = (
    "carries boolean NOT NULL DEFAULT false",
    "service text NOT NULL DEFAULT ''",
    "domain text NOT NULL DEFAULT ''",
    "key_id text NOT NULL DEFAULT ''",
    "tags text[] NOT NULL DEFAULT '{}'",
    "price_unknown boolean NOT NULL DEFAULT false",
    "tokens_source smallint NOT NULL DEFAULT 1",
    "price_source text NOT NULL DEFAULT ''",
    "service_tier text NOT NULL DEFAULT ''",
    "cache_write_5m_tokens bigint NOT NULL DEFAULT 0",
    "cache_write_1h_tokens bigint NOT NULL DEFAULT 0",
    "audio_input_tokens bigint NOT NULL DEFAULT 0",
    "reasoning_tokens bigint NOT NULL DEFAULT 0",
    "audio_output_tokens bigint NOT NULL DEFAULT 0",
    "saved_cache_usd_nanos bigint NOT NULL DEFAULT 0",
    "saved_prompt_usd_nanos bigint NOT NULL DEFAULT 0",
    "saved_route_usd_nanos bigint NOT NULL DEFAULT 0",
)
_FIGURES_BEFORE = (
    "requests, attempts, input_tokens, output_tokens, cost_usd_nanos, baseline_usd_nanos, saved_cache_usd_nanos, "
    "saved_prompt_usd_nanos, saved_route_usd_nanos"
)
_SUMS_BEFORE = ", ".join(f"sum({name})" for name in _FIGURES_BEFORE.split(", "))


def upgrade() -> None:
    op.execute(f"ALTER TABLE usage {', '.join(f'ADD COLUMN {column}' for column in _NEW_COLUMNS)}")
    # The line whose answer was delivered carries the request; the last where none was.
    op.execute("""
        UPDATE usage u SET carries = true FROM (
            SELECT DISTINCT ON (organization, request_id) organization, request_id, line FROM usage
            ORDER BY organization, request_id, starts_with(outcome, 'accepted') OR starts_with(outcome, 'cache_') DESC,
                CASE WHEN starts_with(outcome, 'accepted') OR starts_with(outcome, 'cache_') THEN line ELSE -line END
        ) AS served
        WHERE u.organization = served.organization AND u.request_id = served.request_id AND u.line = served.line
    """)
    # A request is written once, which the key of reservations sees to; this order is that of reports, and new rows stand together.
    op.execute("ALTER TABLE usage DROP CONSTRAINT usage_pkey, ADD PRIMARY KEY (organization, recorded_at, request_id, line)")
    op.execute(f"""
        CREATE TABLE usage_places (
            organization text NOT NULL,
            rollup smallint NOT NULL,
            place_number bigint NOT NULL,
            {", ".join(f"{name} text NOT NULL" for name in _DIMENSIONS)},
            tags text[] NOT NULL,
            PRIMARY KEY (organization, rollup, place_number)
        )
    """)
    op.execute("""
        CREATE TABLE usage_sums (
            organization text NOT NULL,
            rollup smallint NOT NULL,
            at timestamptz NOT NULL,
            place_number bigint NOT NULL,
            requests bigint NOT NULL,
            attempts bigint NOT NULL,
            input_tokens bigint NOT NULL,
            cached_input_tokens bigint NOT NULL DEFAULT 0,
            output_tokens bigint NOT NULL,
            cost_usd_nanos bigint NOT NULL,
            baseline_usd_nanos bigint NOT NULL,
            saved_cache_usd_nanos bigint NOT NULL,
            saved_prompt_usd_nanos bigint NOT NULL,
            saved_route_usd_nanos bigint NOT NULL,
            estimated_attempts bigint NOT NULL DEFAULT 0,
            estimated_usd_nanos bigint NOT NULL DEFAULT 0,
            unpriced_usd_nanos bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (organization, rollup, at, place_number)
        ) WITH (fillfactor = 80)
    """)
    _move_hourly()
    op.execute("DROP TABLE usage_hourly")
    op.execute("CREATE INDEX reservations_suspended ON reservations (organization, created_at) WHERE state = 4")
    _create_invoices()


def _move_hourly() -> None:
    names = {
        "workspace": "split_part(scope, '/', 4)",
        "project": "split_part(scope, '/', 6)",
        "user_name": "split_part(scope, '/', 8)",
        "model": "model",
        "provider": "provider",
        "task": "task",
    }
    for number, grain, dimensions in _ROLLUPS:
        values = [names.get(name, "''") if name in dimensions.split() else "''" for name in _DIMENSIONS]
        text = " || ".join(f"octet_length({value}) || ':' || {value}" for value in (*values, "''"))
        place = f"('x' || encode(substring(sha256(convert_to({text}, 'UTF8')) FROM 1 FOR 8), 'hex'))::bit(64)::bigint"
        op.execute(f"""
            INSERT INTO usage_places SELECT DISTINCT organization, {number}, {place}, {", ".join(values)}, '{{}}'::text[] FROM usage_hourly
        """)
        op.execute(f"""
            INSERT INTO usage_sums (organization, rollup, at, place_number, {_FIGURES_BEFORE})
            SELECT organization, {number}, date_trunc('{grain}', hour, 'UTC'), {place}, {_SUMS_BEFORE} FROM usage_hourly GROUP BY 1, 3, 4
        """)


def _create_invoices() -> None:
    op.execute("""
        CREATE TABLE invoices (
            organization text NOT NULL,
            request_id uuid NOT NULL,
            scope text NOT NULL,
            provider text NOT NULL,
            body_hash bytea NOT NULL,
            imported_at timestamptz NOT NULL,
            billed_usd_nanos bigint NOT NULL,
            tracked_usd_nanos bigint NOT NULL,
            explained_usd_nanos bigint NOT NULL,
            PRIMARY KEY (organization, request_id)
        )
    """)
    op.execute("""
        CREATE TABLE invoice_differences (
            organization text NOT NULL,
            request_id uuid NOT NULL,
            number integer NOT NULL,
            model text NOT NULL,
            day date NOT NULL,
            billed_usd_nanos bigint NOT NULL,
            tracked_usd_nanos bigint NOT NULL,
            estimated_usd_nanos bigint NOT NULL,
            cause text NOT NULL,
            explanation text NOT NULL,
            explained_usd_nanos bigint NOT NULL,
            PRIMARY KEY (organization, request_id, number)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE invoice_differences")
    op.execute("DROP TABLE invoices")
    op.execute("DROP INDEX reservations_suspended")
    op.execute("""
        CREATE TABLE usage_hourly (
            organization text NOT NULL,
            hour timestamptz NOT NULL,
            scope text NOT NULL,
            model text NOT NULL,
            provider text NOT NULL,
            task text NOT NULL,
            requests bigint NOT NULL,
            attempts bigint NOT NULL,
            input_tokens bigint NOT NULL,
            output_tokens bigint NOT NULL,
            cost_usd_nanos bigint NOT NULL,
            baseline_usd_nanos bigint NOT NULL,
            saved_cache_usd_nanos bigint NOT NULL,
            saved_prompt_usd_nanos bigint NOT NULL,
            saved_route_usd_nanos bigint NOT NULL,
            PRIMARY KEY (organization, hour, scope, model, provider, task)
        ) WITH (fillfactor = 70)
    """)
    op.execute(f"""
        INSERT INTO usage_hourly
        SELECT organization, at, concat_ws('/', 'organizations', organization, 'workspaces/' || nullif(workspace, ''),
                'projects/' || nullif(project, ''), 'users/' || nullif(user_name, '')) AS scope, model, provider, task, {_SUMS_BEFORE}
        FROM usage_sums JOIN usage_places USING (organization, rollup, place_number) WHERE rollup = 7 GROUP BY 1, 2, 3, 4, 5, 6
    """)
    op.execute("DROP TABLE usage_sums")
    op.execute("DROP TABLE usage_places")
    op.execute("ALTER TABLE usage DROP CONSTRAINT usage_pkey, ADD PRIMARY KEY (organization, request_id, line)")
    op.execute(f"ALTER TABLE usage {', '.join(f'DROP COLUMN {column.split()[0]}' for column in _NEW_COLUMNS)}")
