//! Orders: what was bought, and the one step that settles it.

use database::{Error, Row, one, run};
use payment::{Checkout, Event};
use problem::Problem;
use serde::Serialize;

/// Something to buy.
#[derive(Serialize)]
pub struct Product {
    pub id: String,
    pub name: String,
    pub credits: i64,
    /// Cents, before tax.
    pub amount: i64,
    pub currency: String,
}

/// An order as its owner sees it.
#[derive(Clone, Serialize)]
pub struct Order {
    pub id: String,
    pub product_id: Option<String>,
    pub status: String,
    /// Cents, before tax.
    pub amount: i64,
    pub currency: String,
    pub credits: i64,
    /// Where to pay, while the order is pending.
    pub payment_url: Option<String>,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub paid_at: Option<i64>,
}

const COLUMNS: &str = "id, product_id, status, amount, currency, credits, iif(status = 'pending', payment_url, NULL), created_at, paid_at";

fn read(row: &Row) -> Order {
    Order {
        id: row.text(0),
        product_id: row.optional_text(1),
        status: row.text(2),
        amount: row.integer(3),
        currency: row.text(4),
        credits: row.integer(5),
        payment_url: row.optional_text(6),
        created_at: row.integer(7),
        paid_at: row.optional_integer(8),
    }
}

/// What is for sale.
///
/// # Errors
/// The database's.
pub async fn products() -> Result<Vec<Product>, Error> {
    let sql = "SELECT id, name, credits, amount, currency FROM products WHERE active = 1 ORDER BY position, id";
    let products = run(sql, vec![]).await?;
    let product =
        |row: &Row| Product { id: row.text(0), name: row.text(1), credits: row.integer(2), amount: row.integer(3), currency: row.text(4) };
    Ok(products.iter().map(product).collect())
}

/// An order that waits for its checkout.
pub struct Opened {
    pub id: String,
    pub provider_product_id: String,
    /// The buyer's address, for the checkout.
    pub email: String,
}

/// Writes the intent to buy: a pending order with the product's terms of this moment. `None`: no such product is for sale.
///
/// # Errors
/// The database's.
pub async fn open(user_id: &str, product_id: &str, now: i64) -> Result<Option<Opened>, Error> {
    let id = uuid::Uuid::now_v7().to_string();
    let sql = "INSERT INTO orders (id, user_id, amount, currency, credits, product_id, credits_valid_for, created_at, updated_at) \
               SELECT ?1, users.id, amount, currency, products.credits, products.id, valid_for, ?4, ?4 \
               FROM products JOIN users ON users.id = ?2 WHERE products.id = ?3 AND active = 1 \
               RETURNING id, (SELECT provider_product_id FROM products WHERE id = product_id), (SELECT email FROM users WHERE id = user_id)";
    let row = one(sql, vec![id.into(), user_id.into(), product_id.into(), now.into()]).await?;
    Ok(row.map(|row| Opened { id: row.text(0), provider_product_id: row.text(1), email: row.text(2) }))
}

/// Notes where an order is paid.
///
/// # Errors
/// The database's.
pub async fn attach(id: &str, checkout: &Checkout, payment_url: &str, now: i64) -> Result<Option<Order>, Error> {
    let sql = format!(
        "UPDATE orders SET checkout_id = ?2, payment_id = ?2, payment_url = ?3, updated_at = ?4 \
         WHERE id = ?1 AND status = 'pending' RETURNING {COLUMNS}"
    );
    let row = one(&sql, vec![id.into(), checkout.id.as_str().into(), payment_url.into(), now.into()]).await?;
    Ok(row.as_ref().map(read))
}

/// Gives up an order that has no checkout: nobody can pay it.
///
/// # Errors
/// The database's.
pub async fn cancel(id: &str, now: i64) -> Result<(), Error> {
    let sql = "UPDATE orders SET status = 'cancelled', updated_at = ?2 WHERE id = ?1 AND status = 'pending' AND checkout_id IS NULL";
    run(sql, vec![id.into(), now.into()]).await.map(drop)
}

/// One order of a user.
///
/// # Errors
/// The database's.
pub async fn by_id(user_id: &str, id: &str) -> Result<Option<Order>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE id = ?1 AND user_id = ?2");
    Ok(one(&sql, vec![id.into(), user_id.into()]).await?.as_ref().map(read))
}

/// A user's orders, newest first.
///
/// # Errors
/// The database's.
pub async fn list(user_id: &str, limit: i64, offset: i64) -> Result<Vec<Order>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE user_id = ?1 ORDER BY created_at DESC, id DESC LIMIT ?2 OFFSET ?3");
    Ok(run(&sql, vec![user_id.into(), limit.into(), offset.into()]).await?.iter().map(read).collect())
}

/// What settling came to, for the log and the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The credits were granted now.
    Now,
    /// The credits were granted before.
    Before,
    /// Not paid (yet): nothing to do.
    NotPaid,
    /// Paid, and there is no order that it could settle: unknown, given up, or for another product. A person has to look.
    Unmatched,
}

/// Settles the order of a paid checkout: payment, grant and completion in one statement, once however often it is asked.
/// Both the webhook and the return page come here.
///
/// # Errors
/// The database's.
pub async fn settle(checkout: &Checkout, now: i64) -> Result<Settled, Error> {
    let (Some(order_id), Some(paid), Some(product)) = (&checkout.request_id, checkout.paid_order(), checkout.product_id()) else {
        return Ok(if checkout.paid_order().is_some() { Settled::Unmatched } else { Settled::NotPaid });
    };
    // The checkout may be unknown to us (the link was lost after it was opened); then the reference we gave it counts. An order
    // that was settled before is found too, and left as it is. `RETURNING` shows the row before the trigger that completes the
    // order has run: without a time of payment yet, it was this statement that paid it.
    let sql = "UPDATE orders SET status = iif(status = 'pending', 'paid', status), checkout_id = ?2, \
                   payment_id = iif(status = 'pending', ?3, payment_id), updated_at = iif(status = 'pending', ?5, updated_at) \
               WHERE id = ?1 AND status NOT IN ('cancelled', 'expired') AND (checkout_id IS NULL OR checkout_id = ?2) \
               AND EXISTS (SELECT 1 FROM products WHERE id = product_id AND provider_product_id = ?4) RETURNING paid_at IS NULL";
    let parameters = vec![order_id.as_str().into(), checkout.id.as_str().into(), paid.into(), product.into(), now.into()];
    Ok(match one(sql, parameters).await? {
        Some(row) if row.integer(0) != 0 => Settled::Now,
        Some(_) => Settled::Before,
        None => Settled::Unmatched,
    })
}

/// Puts an event into the inbox before anything is done about it. Answers whether it is already dealt with.
///
/// # Errors
/// The database's.
pub async fn receive(event: &Event, payload: &str, now: i64) -> Result<bool, Error> {
    let sql = "INSERT INTO payment_events (id, type, payload, received_at) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (id) DO UPDATE SET deliveries = deliveries + 1 RETURNING status";
    let parameters = vec![event.id.as_str().into(), event.kind.as_str().into(), payload.into(), now.into()];
    Ok(one(sql, parameters).await?.is_some_and(|row| row.text(0) != "received"))
}

/// Notes what became of an event.
///
/// # Errors
/// The database's.
pub async fn file(event_id: &str, status: &'static str, outcome: &str, now: i64) -> Result<(), Error> {
    let sql = "UPDATE payment_events SET status = ?2, outcome = ?3, processed_at = ?4 WHERE id = ?1 AND status = 'received'";
    run(sql, vec![event_id.into(), status.into(), outcome.into(), now.into()]).await.map(drop)
}

/// The checkout inside a `checkout.completed` event.
///
/// # Errors
/// `invalid_input` for an object that is none.
pub fn checkout_of(event: &Event) -> Result<Checkout, Problem> {
    serde_json::from_value(event.object.clone()).map_err(|error| Problem::invalid("object", "The checkout cannot be read.").because(error))
}
