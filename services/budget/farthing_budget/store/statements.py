"""The ledger's SQL."""

from __future__ import annotations

LOCK_HOLDS = """
    SELECT r.*, c.charges FROM reservations r
    JOIN unnest($1::text[], $2::uuid[]) AS asked (organization, request_id) USING (organization, request_id)
    LEFT JOIN charge_sets c USING (organization, charges_number)
    ORDER BY r.organization, r.request_id FOR UPDATE OF r
"""
READ_HOLD = """
    SELECT * FROM reservations JOIN charge_sets USING (organization, charges_number) WHERE organization = $1 AND request_id = $2
"""
WRITE_CHARGE_SETS = """
    INSERT INTO charge_sets (organization, charges_number, charges) SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[])
    ON CONFLICT DO NOTHING
"""
READ_EPOCHS = "SELECT organization, epoch FROM terms_epochs WHERE organization = ANY($1::text[])"
# Replicas' clocks differ a little, so that a hold may have ended before it was made.
ENTRIES_OF_HOLD = """
    SELECT * FROM (
        SELECT * FROM journal WHERE organization = $1 AND request_id = $2
            AND at >= least($3, $4::timestamptz) - interval '1 second' AND at <= greatest($3, $4::timestamptz) + interval '1 second'
        UNION ALL SELECT * FROM journal WHERE organization = $1 AND corrects = $2
    ) AS found JOIN charge_sets USING (organization, charges_number) ORDER BY at, entry_id LIMIT 1000
"""
TERMS = """
    SELECT organization, budget_id, scope, display_name, period, time_zone, limit_usd_nanos, limit_tokens, limit_requests, selector_kind,
        selector_name, start_month, start_day, window_s, soft_percent, critical_percent, on_exhaustion, measure,
        hold_worst_case
    FROM budgets WHERE organization = ANY($1::text[]) AND scope = ANY($2::text[]) AND deleted_at IS NULL
    ORDER BY organization, scope, period, budget_id
"""
SCOPES_OF_BUDGETS = """
    SELECT organization, scope FROM budgets
    WHERE organization = ANY($1::text[]) AND budget_id = ANY($2::text[]) AND deleted_at IS NULL
"""
READ_BALANCES = """
    SELECT b.* FROM balances b
    JOIN unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (organization, budget_id, period_start)
        USING (organization, budget_id, period_start)
    ORDER BY b.organization, b.budget_id, b.period_start
"""
LOCK_BALANCES = READ_BALANCES + " FOR UPDATE OF b"
CREATE_BALANCES = """
    INSERT INTO balances (organization, budget_id, period_start, period_end)
    SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) ON CONFLICT DO NOTHING
"""
WRITE_BALANCES = """
    UPDATE balances b SET spent_usd_nanos = n.spent_usd_nanos, held_usd_nanos = n.held_usd_nanos,
        suspense_usd_nanos = n.suspense_usd_nanos, spent_tokens = n.spent_tokens, held_tokens = n.held_tokens,
        suspense_tokens = n.suspense_tokens, spent_requests = n.spent_requests, held_requests = n.held_requests,
        burn_usd_nanos = n.burn_usd_nanos, burn_at = n.burn_at, risk = n.risk
    FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
        $9::bigint[], $10::bigint[], $11::bigint[], $12::double precision[], $13::timestamptz[], $14::bytea[])
        AS n (organization, budget_id, period_start, spent_usd_nanos, held_usd_nanos, suspense_usd_nanos, spent_tokens, held_tokens,
            suspense_tokens, spent_requests, held_requests, burn_usd_nanos, burn_at, risk)
    WHERE b.organization = n.organization AND b.budget_id = n.budget_id AND b.period_start = n.period_start
"""
UPDATE_HOLDS = """
    UPDATE reservations r SET state = n.state, amount_usd_nanos = n.amount_usd_nanos, tokens = n.tokens, charges_number = n.charges_number,
        changed_at = n.changed_at, settled_usd_nanos = n.settled_usd_nanos, settled_tokens = n.settled_tokens,
        settle_hash = n.settle_hash, sized = n.sized, risk = n.risk
    FROM unnest($1::text[], $2::uuid[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[], $8::bigint[],
        $9::bigint[], $10::bytea[], $11::text[], $12::bytea[])
        AS n (organization, request_id, state, amount_usd_nanos, tokens, charges_number, changed_at, settled_usd_nanos, settled_tokens,
            settle_hash, sized, risk)
    WHERE r.organization = n.organization AND r.request_id = n.request_id
"""
WRITE_PLACES = """
    INSERT INTO usage_places (organization, rollup, place_number, workspace, project, user_name, model, provider, task, service, domain,
        key_id, tags)
    SELECT organization, rollup, place_number, workspace, project, user_name, model, provider, task, service, domain, key_id,
        ARRAY(SELECT jsonb_array_elements_text(tags))
    FROM unnest($1::text[], $2::smallint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::text[], $13::jsonb[])
        AS n (organization, rollup, place_number, workspace, project, user_name, model, provider, task, service, domain, key_id, tags)
    ON CONFLICT DO NOTHING
"""
WRITE_SUMS = """
    INSERT INTO usage_sums AS u (organization, rollup, at, place_number, requests, attempts, input_tokens, cached_input_tokens,
        output_tokens, cost_usd_nanos, baseline_usd_nanos, saved_cache_usd_nanos, saved_prompt_usd_nanos, saved_route_usd_nanos,
        estimated_attempts, estimated_usd_nanos, unpriced_usd_nanos)
    SELECT * FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
        $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[],
        $16::bigint[], $17::bigint[])
    ON CONFLICT (organization, rollup, at, place_number) DO UPDATE SET
        requests = u.requests + excluded.requests,
        attempts = u.attempts + excluded.attempts,
        input_tokens = u.input_tokens + excluded.input_tokens,
        cached_input_tokens = u.cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = u.output_tokens + excluded.output_tokens,
        cost_usd_nanos = u.cost_usd_nanos + excluded.cost_usd_nanos,
        baseline_usd_nanos = u.baseline_usd_nanos + excluded.baseline_usd_nanos,
        saved_cache_usd_nanos = u.saved_cache_usd_nanos + excluded.saved_cache_usd_nanos,
        saved_prompt_usd_nanos = u.saved_prompt_usd_nanos + excluded.saved_prompt_usd_nanos,
        saved_route_usd_nanos = u.saved_route_usd_nanos + excluded.saved_route_usd_nanos,
        estimated_attempts = u.estimated_attempts + excluded.estimated_attempts,
        estimated_usd_nanos = u.estimated_usd_nanos + excluded.estimated_usd_nanos,
        unpriced_usd_nanos = u.unpriced_usd_nanos + excluded.unpriced_usd_nanos
"""
ORIGINS = """
    SELECT u.organization, u.request_id, u.task, u.service, u.domain, u.key_id, u.tags, u.model, u.provider, u.deployment, u.outcome,
        u.cost_usd_nanos, u.input_tokens + u.output_tokens AS tokens
    FROM usage u JOIN unnest($1::text[], $2::timestamptz[], $3::uuid[]) AS asked (organization, recorded_at, request_id)
        USING (organization, recorded_at, request_id)
    ORDER BY u.organization, u.request_id, u.line
"""
LAPSED = "SELECT scope, request_id FROM reservations WHERE state IN (1, 5) AND expires_at <= $1 ORDER BY expires_at LIMIT $2"
