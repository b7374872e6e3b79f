-- ?1 order, ?2 creem's subscription, ?3 creem's product, ?4 customer, ?5 creem's status, ?6 of when the news are, in milliseconds,
-- ?7 and ?8 the period, ?9 next billing, ?10 cancelled at, ?11 transaction, ?12 cents paid, ?13 event, ?14 now, ?15 cents before tax.
--
-- A payment that was not told in time may be of a plan that was changed since: it is then the one that has its price. Not so where its
-- period was paid for before: an upgrade costs what it costs.
INSERT INTO subscription_news (order_id, third_party_subscription_id, provider_product_id, customer_id, provider_status,
    provider_updated_at, period_start, period_end, next_billing_at, cancelled_at, transaction_id, amount_paid, event_id, at)
VALUES (
    ?1, ?2,
    coalesce((
        SELECT provider_product_id FROM products
        WHERE kind = 'plan' AND amount = ?15 AND billing_cycle = iif(?8 - ?7 > 45 * 86400, 'yearly', 'monthly') AND NOT EXISTS (
            SELECT 1 FROM subscriptions JOIN subscription_periods p ON p.subscription_id = subscriptions.id
            WHERE third_party_subscription_id = ?2 AND starts_at = ?7 AND p.id <> ?11
        )
        ORDER BY provider_product_id = ?3 DESC LIMIT 1
    ), ?3),
    ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14
)
