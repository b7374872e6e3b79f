-- What a request costs does not grow with what others have: indexes that end a search at the rows that are wanted.
--
-- Held by tests/tests/it/statements.rs: no statement scans a table that grows, nor does a trigger behind it, and none takes more steps
-- where there is ten times as much.

-- Admins' lists, newest first, of one status or of all.
DROP INDEX ai_tasks_status;
CREATE INDEX ai_tasks_status ON ai_tasks (status, created_at DESC, id DESC);
DROP INDEX ai_tasks_created_at;
CREATE INDEX ai_tasks_created_at ON ai_tasks (created_at DESC, id DESC);
DROP INDEX users_created_at;
CREATE INDEX users_created_at ON users (created_at DESC, id DESC);
CREATE INDEX payment_events_status ON payment_events (status, received_at);
CREATE INDEX payment_events_received_at ON payment_events (received_at);

-- A person's figures and the sum of a lot's rows are read from the index alone. (They still grow with the person and the lot.)
DROP INDEX ai_tasks_user_id;
CREATE INDEX ai_tasks_user_id ON ai_tasks (user_id, created_at DESC, id DESC, status);
DROP INDEX credit_consumptions_user_id;
CREATE INDEX credit_consumptions_user_id ON credit_consumptions (user_id, created_at, amount);
DROP INDEX credit_records_lot_id;
CREATE INDEX credit_records_lot_id ON credit_records (lot_id, amount) WHERE lot_id IS NOT NULL;

-- The counters of somebody who goes.
CREATE INDEX rate_counters_subject ON rate_counters (subject);
