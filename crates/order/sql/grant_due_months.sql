-- ?1 now, ?2 how many at most.
UPDATE subscription_months SET granted_at = ?1 WHERE granted_at IS NULL AND (period_id, n) IN (
    SELECT period_id, n FROM subscription_months JOIN subscription_periods p ON p.id = period_id
    JOIN subscriptions s ON s.id = subscription_id
    WHERE granted_at IS NULL AND due_at <= ?1 AND disputed_at IS NULL
        AND provider_status NOT IN ('past_due', 'unpaid', 'paused', 'expired')
    ORDER BY due_at LIMIT ?2
)
RETURNING n
