-- ?1 the order that was given up, ?2 the one that takes its payment, ?3 now.
INSERT INTO orders (id, user_id, amount, currency, credits, product_id, credits_valid_for, created_at, updated_at, next_look_at)
SELECT ?2, user_id, amount, currency, credits, product_id, credits_valid_for, ?3, ?3, ?3 FROM orders
WHERE id = ?1 AND status IN ('cancelled', 'expired') AND NOT EXISTS (SELECT 1 FROM orders WHERE id = ?2)
