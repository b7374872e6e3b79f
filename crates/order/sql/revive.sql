-- ?1 the order that cannot take a payment: given up, or paid by another checkout. ?2 the order that takes it, ?3 now, ?4 the checkout,
-- ?5 creem's product.
INSERT INTO orders (id, user_id, amount, currency, credits, product_id, credits_valid_for, created_at, updated_at, next_look_at)
SELECT ?2, user_id, amount, currency, credits, product_id, credits_valid_for, ?3, ?3, ?3 FROM orders
WHERE id = ?1 AND (status IN ('cancelled', 'expired') OR paid_at IS NOT NULL AND checkout_id <> ?4)
    AND EXISTS (SELECT 1 FROM products WHERE id = product_id AND provider_product_id = ?5)
    AND NOT EXISTS (SELECT 1 FROM orders WHERE id = ?2)
