//! Payment events as creem signs them, about orders that were put into the database beforehand.

use anyhow::Result;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::http::request;

/// The sandbox's, and the placeholder of spin.toml.
const SECRET: &str = "loopback-only-creem-webhook";

/// How many people buy. So many that nobody ends up with hundreds of packs, whose sum would become what is measured.
const BUYERS: u64 = 200;

/// Orders of a pack that wait for their payment; every event pays another one.
pub struct Payments {
    run: u32,
    next: u64,
    orders: u64,
}

impl Payments {
    /// Puts so many pending orders into the database, of people who do nothing else.
    pub fn prepare(database: &rusqlite::Connection, orders: u64) -> Result<Self> {
        let run = std::process::id();
        let buyers = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1) \
                      INSERT INTO sign_ups (user_id, email, name, credits, provider, openid, created_at) \
                      SELECT printf('buyer-%d', i), printf('buyer-%d@example.com', i), 'A buyer', 0, 'google', printf('buyer-%d', i), unixepoch() FROM n";
        database.execute(buyers, [BUYERS])?;
        let sql = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1) \
                   INSERT INTO orders (id, user_id, amount, currency, credits, product_id, checkout_id) \
                   SELECT printf('bench-%d-%d', ?2, i), printf('buyer-%d', i % ?3), 499, 'USD', 10, 'credits-10', printf('ch_bench_%d_%d', ?2, i) FROM n";
        database.execute(sql, rusqlite::params![orders, run, BUYERS])?;
        Ok(Self { run, next: 0, orders })
    }

    /// The next webhook; the last one again when all orders are paid.
    pub fn next(&mut self) -> Vec<u8> {
        let (run, n) = (self.run, self.next.min(self.orders.saturating_sub(1)));
        self.next += 1;
        paid(&format!("bench-{run}-{n}"), &format!("ch_bench_{run}_{n}"))
    }
}

/// The webhook that tells of a paid checkout of ten credits.
pub fn paid(order: &str, checkout: &str) -> Vec<u8> {
    let body = json!({
        "id": format!("evt_{checkout}"), "eventType": "checkout.completed", "created_at": 1_790_000_000_000_u64,
        "object": {
            "id": checkout, "object": "checkout", "status": "completed", "units": 1, "request_id": order,
            "success_url": "http://127.0.0.1/callback/payment", "mode": "test",
            "product": {"id": "prod_credits_10", "object": "product", "name": "10 credits", "price": 499, "currency": "USD",
                        "billing_type": "onetime", "status": "active", "mode": "test"},
            "order": {"id": format!("ord_{checkout}"), "object": "order", "status": "paid", "type": "onetime", "amount": 499,
                      "amount_paid": 499, "currency": "USD", "product": "prod_credits_10", "customer": "cust_bench",
                      "transaction": format!("tran_{checkout}"), "mode": "test"},
            "customer": {"id": "cust_bench", "object": "customer", "email": "buyer@example.com", "name": "A buyer", "country": "GB"},
            "custom_fields": [], "metadata": {},
        },
    });
    let body = body.to_string();
    let headers = [format!("creem-signature: {}", sign(body.as_bytes())), "content-type: application/json".to_owned()];
    request("POST", "/webhooks/creem", &headers, body.as_bytes())
}

fn sign(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives somebody credits: a few lots of 5,000, for what is spent in a run.
pub fn give(database: &rusqlite::Connection, user: &str, lots: u64) -> Result<()> {
    let sql = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) \
               INSERT INTO credit_records (id, user_id, amount, type, entity_type, entity_id, note) \
               SELECT printf('gift:bench-%s-%d', ?1, i), ?1, 5000, 'gift', 'signup', printf('bench-%s-%d', ?1, i), 'gift' FROM n";
    database.execute(sql, rusqlite::params![user, lots])?;
    Ok(())
}
