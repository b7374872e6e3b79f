-- ?1 order, ?2 checkout, ?3 creem's order, ?4 creem's product, ?5 now, ?6 transaction, ?7 cents paid, ?8 customer, ?9 subscription, ?10 event.
--
-- A pending order is settled by any paid checkout that carries its reference: the one we know, or one whose answer was lost. An order
-- that this checkout settled before is found too, and left as it is. `RETURNING` shows the row before the trigger that completes the
-- order has run: without a time of payment yet, it was this statement that paid it. An order that takes a late payment leaves the
-- checkout with the order that was given up. Where a plan's later payment was heard of first, the checkout tells which was the order's own. What is wholly refunded stays so, whatever is heard later of what it was.
UPDATE orders SET
    status = iif(status = 'pending', 'paid', status),
    checkout_id = iif(EXISTS (SELECT 1 FROM orders WHERE id <> ?1 AND checkout_id = ?2), checkout_id, ?2),
    payment_id = iif(status = 'pending', ?3, payment_id),
    -- Also when it becomes known what was paid: credits that go back with it go now.
    updated_at = iif(status = 'pending' OR amount_paid IS NULL OR transaction_id IS NOT coalesce(?6, transaction_id), ?5, updated_at),
    transaction_id = coalesce(?6, transaction_id),
    amount_paid = CASE WHEN status = 'refunded' THEN amount_paid WHEN transaction_id <> ?6 THEN ?7 ELSE coalesce(amount_paid, ?7) END,
    provider_customer_id = coalesce(provider_customer_id, ?8),
    provider_subscription_id = coalesce(provider_subscription_id, ?9),
    event_id = coalesce(?10, event_id)
WHERE id = ?1 AND status NOT IN ('cancelled', 'expired') AND (status = 'pending' OR checkout_id IS NULL OR checkout_id = ?2)
    AND EXISTS (SELECT 1 FROM products WHERE id = product_id AND provider_product_id = ?4)
RETURNING paid_at IS NULL
