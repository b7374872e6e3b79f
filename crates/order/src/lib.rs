//! Buying: orders, the subscriptions that begin with one, and what the payment provider says about both.
//!
//! Whatever creem tells arrives in one of two ways: a webhook puts it into the [`inbox`], or we ask ([`reconcile`], the way back from
//! paying). Either way it is applied by the same statements: [`settle`] for a paid checkout, [`subscription::apply`] and
//! [`money_back`]. Each is one statement that finds its own effect done when it comes again, and files the event that brought it.

use database::{Error, Row, one, run};
use page::Page;
use payment::Checkout;
use serde::Serialize;

pub mod inbox;
pub mod money_back;
pub mod reconcile;
pub mod settle;
pub mod subscription;

/// Something to buy.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Product {
    pub id: String,
    pub name: String,
    /// `pack` (bought once) or `plan` (paid each period).
    pub kind: String,
    /// `basic`, `pro` or `premium`, for plans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_type: Option<String>,
    /// `monthly` or `yearly`, for plans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing_cycle: Option<String>,
    /// Of a plan: each month.
    pub credits: i64,
    /// Cents, before tax.
    pub amount: i64,
    pub currency: String,
}

/// An order as its owner sees it.
#[derive(Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// Cents that went back, with tax.
    pub refunded_amount: i64,
    /// Whether the buyer's bank disputes the payment; its credits are held back meanwhile.
    pub disputed: bool,
}

const COLUMNS: &str = "id, product_id, status, amount, currency, credits, iif(status = 'pending', payment_url, NULL), created_at, paid_at, \
    refunded_amount, disputed_at IS NOT NULL";

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
        refunded_amount: row.integer(9),
        disputed: row.integer(10) != 0,
    }
}

/// What is for sale.
///
/// # Errors
/// The database's.
pub async fn products() -> Result<Vec<Product>, Error> {
    let sql =
        "SELECT id, name, kind, plan_type, billing_cycle, credits, amount, currency FROM products WHERE active = 1 ORDER BY position, id";
    let products = run(sql, vec![]).await?;
    let product = |row: &Row| Product {
        id: row.text(0),
        name: row.text(1),
        kind: row.text(2),
        plan_type: row.optional_text(3),
        billing_cycle: row.optional_text(4),
        credits: row.integer(5),
        amount: row.integer(6),
        currency: row.text(7),
    };
    Ok(products.iter().map(product).collect())
}

/// An order that waits for its checkout.
pub struct Opened {
    pub id: String,
    pub provider_product_id: String,
    /// The buyer's address, for the checkout.
    pub email: String,
}

/// What came of the wish to buy.
pub enum Opening {
    Opened(Opened),
    /// The same request opened this order before it was cut off, and where to pay it is known.
    Continued(Order),
    /// Nothing of this id is for sale.
    NoProduct,
    /// One plan at a time.
    HasPlan,
}

/// Seconds until the provider is asked about an order that nothing was heard of.
const FIRST_LOOK: i64 = 120;

/// Writes the intent to buy: a pending order with the product's terms of this moment. A `work_id` becomes the order's id, so that a
/// request that was cut off goes on with the order it has opened.
///
/// # Errors
/// The database's.
pub async fn open(user_id: &str, product_id: &str, work_id: Option<&str>, now: i64) -> Result<Opening, Error> {
    let id = work_id.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned);
    let sql = "INSERT INTO orders (id, user_id, amount, currency, credits, product_id, credits_valid_for, created_at, updated_at, next_look_at) \
               SELECT ?1, users.id, amount, currency, products.credits, products.id, valid_for, ?4, ?4, ?5 \
               FROM products JOIN users ON users.id = ?2 WHERE products.id = ?3 AND active = 1 \
               AND (kind = 'pack' OR NOT EXISTS (SELECT 1 FROM subscriptions WHERE user_id = ?2 AND status = 'active')) \
               RETURNING id, (SELECT provider_product_id FROM products WHERE id = product_id), (SELECT email FROM users WHERE id = user_id)";
    let parameters = vec![id.into(), user_id.into(), product_id.into(), now.into(), (now + FIRST_LOOK).into()];
    match (one(sql, parameters).await, work_id) {
        (Ok(Some(row)), _) => return Ok(Opening::Opened(opened(&row))),
        (Ok(None), _) => {}
        // The order that this request opened before was given up since; another takes its place.
        (Err(Error::Taken(_)), Some(work_id)) => match resume(user_id, work_id).await? {
            Some(opening) => return Ok(opening),
            None => return Box::pin(open(user_id, product_id, None, now)).await,
        },
        (Err(error), _) => return Err(error),
    }
    let exists = one("SELECT 1 FROM products WHERE id = ?1 AND active = 1", vec![product_id.into()]).await?;
    Ok(if exists.is_some() { Opening::HasPlan } else { Opening::NoProduct })
}

fn opened(row: &Row) -> Opened {
    Opened { id: row.text(0), provider_product_id: row.text(1), email: row.text(2) }
}

/// Goes on with an order that was opened before its request was cut off: without a checkout it still needs one. `None`: there is none,
/// or it was given up.
///
/// # Errors
/// The database's.
pub async fn resume(user_id: &str, id: &str) -> Result<Option<Opening>, Error> {
    let sql = "SELECT orders.id, provider_product_id, email FROM orders JOIN products ON products.id = product_id \
               JOIN users ON users.id = user_id WHERE orders.id = ?1 AND user_id = ?2 AND status = 'pending' AND checkout_id IS NULL";
    if let Some(row) = one(sql, vec![id.into(), user_id.into()]).await? {
        return Ok(Some(Opening::Opened(opened(&row))));
    }
    Ok(by_id(user_id, id).await?.filter(|order| order.status != "cancelled").map(Opening::Continued))
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
pub async fn list(user_id: &str, page: &Page) -> Result<Vec<Order>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM orders WHERE user_id = ?1 AND (created_at, id) < (?4, ?5) ORDER BY created_at DESC, id DESC LIMIT ?2 OFFSET ?3"
    );
    let (created_at, id) = page.before();
    let parameters = vec![user_id.into(), page.limit.into(), page.offset.into(), created_at.into(), id.into()];
    Ok(run(&sql, parameters).await?.iter().map(read).collect())
}
