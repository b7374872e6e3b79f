-- Who has gone stays gone: what was on its way when somebody was erased (a moderation's verdict, an answer that is kept, a checkout's
-- link) finds the door closed as well, so that an erasure comes to its end.

CREATE TRIGGER prompt_verdicts_of_the_living BEFORE INSERT ON prompt_verdicts
BEGIN SELECT RAISE(ABORT, 'account_is_erased') WHERE EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND erased_at IS NOT NULL); END;
CREATE TRIGGER idempotency_keys_of_the_living BEFORE INSERT ON idempotency_keys
BEGIN SELECT RAISE(ABORT, 'account_is_erased') WHERE EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND erased_at IS NOT NULL); END;
-- An order may still come (a late payment is written down, whoever paid it), but it leads nobody to a checkout. What else comes with the
-- link is about money, and stays.
CREATE TRIGGER orders_of_the_erased_lead_nowhere AFTER UPDATE OF payment_url ON orders
WHEN NEW.payment_url IS NOT NULL AND EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id AND erased_at IS NOT NULL)
BEGIN UPDATE orders SET payment_url = NULL WHERE id = NEW.id; END;

-- Those that could not come to their end until now.
DELETE FROM prompt_verdicts WHERE user_id IN (SELECT id FROM users WHERE erased_at IS NOT NULL);
DELETE FROM idempotency_keys WHERE user_id IN (SELECT id FROM users WHERE erased_at IS NOT NULL);
UPDATE orders SET payment_url = NULL WHERE payment_url IS NOT NULL AND user_id IN (SELECT id FROM users WHERE erased_at IS NOT NULL);
