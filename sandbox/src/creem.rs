//! The payment provider, creem: checkouts with a page a person can click, subscriptions, transactions, moderation,
//! and signed webhooks with their repeats.
//!
//! Amounts are cents. Dates on entities are ISO texts; transactions, refunds, disputes and events carry milliseconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use http::StatusCode;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use crate::consent;
use crate::fault::Fault;
use crate::page::{escape, page};
use crate::signature;
use crate::world::{Post, Service, World, fresh_id, locked, now_ms, pause};

/// Something for sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Product {
    pub id: String,
    pub name: String,
    /// In cents.
    pub price: i64,
    pub period: Period,
}

/// How often a product is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Once,
    Month,
    Year,
}

impl Period {
    fn name(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Month => "every-month",
            Self::Year => "every-year",
        }
    }
    fn recurs(self) -> bool {
        self != Self::Once
    }
    fn after(self, start: Timestamp) -> Timestamp {
        let span = match self {
            Self::Once => return start,
            Self::Month => 1.month(),
            Self::Year => 1.year(),
        };
        start.to_zoned(TimeZone::UTC).checked_add(span).map_or(start, |end| end.timestamp())
    }
}

/// What the sandbox sells unless told otherwise.
#[must_use]
pub fn default_products() -> Vec<Product> {
    [
        ("prod_credits_10", "10 credits", 499, Period::Once),
        ("prod_credits_50", "50 credits", 1_999, Period::Once),
        ("prod_credits_200", "200 credits", 5_999, Period::Once),
        ("prod_basic_monthly", "Basic, monthly", 999, Period::Month),
        ("prod_pro_monthly", "Pro, monthly", 1_999, Period::Month),
        ("prod_premium_monthly", "Premium, monthly", 4_999, Period::Month),
        ("prod_basic_yearly", "Basic, yearly", 9_990, Period::Year),
        ("prod_pro_yearly", "Pro, yearly", 19_990, Period::Year),
        ("prod_premium_yearly", "Premium, yearly", 49_990, Period::Year),
    ]
    .into_iter()
    .map(|(id, name, price, period)| Product { id: id.into(), name: name.into(), price, period })
    .collect()
}

/// The provider's books.
pub(crate) struct Creem {
    products: Vec<Product>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    checkouts: BTreeMap<String, Checkout>,
    customers: BTreeMap<String, Customer>,
    subscriptions: BTreeMap<String, Subscription>,
    transactions: Vec<Transaction>,
    /// Events that were made, so that any can be sent again.
    events: Vec<Value>,
}

#[derive(Debug, Clone)]
struct Checkout {
    id: String,
    product: Product,
    units: i64,
    status: &'static str,
    request_id: Option<String>,
    success_url: Option<String>,
    email: Option<String>,
    custom_fields: Value,
    metadata: Value,
    created: Timestamp,
    order: Option<Order>,
    subscription: Option<String>,
}

#[derive(Debug, Clone)]
struct Order {
    id: String,
    customer: String,
    transaction: String,
    sub_total: i64,
    tax: i64,
    created: Timestamp,
}

#[derive(Debug, Clone)]
struct Customer {
    id: String,
    email: String,
    created: Timestamp,
}

#[derive(Debug, Clone)]
struct Subscription {
    id: String,
    checkout: String,
    product: Product,
    customer: String,
    item: String,
    units: i64,
    status: String,
    last_transaction: String,
    paid_at: Timestamp,
    period_start: Timestamp,
    period_end: Timestamp,
    canceled_at: Option<Timestamp>,
    created: Timestamp,
    updated: Timestamp,
    metadata: Value,
}

#[derive(Debug, Clone)]
struct Transaction {
    id: String,
    checkout: String,
    order: String,
    customer: String,
    product: String,
    subscription: Option<String>,
    amount: i64,
    tax: i64,
    refunded: i64,
    status: &'static str,
    period: Option<(Timestamp, Timestamp)>,
    created: Timestamp,
}

/// A checkout as tests and people may see it.
#[derive(Debug, Clone, Serialize)]
pub struct CheckoutView {
    pub checkout_id: String,
    pub status: String,
    pub product_id: String,
    pub request_id: Option<String>,
    pub email: Option<String>,
    /// In cents, with tax.
    pub amount: i64,
    pub order_id: Option<String>,
    pub subscription_id: Option<String>,
    pub metadata: Value,
    pub created_at: Timestamp,
}

/// A subscription as tests and people may see it.
#[derive(Debug, Clone, Serialize)]
pub struct SubscriptionView {
    pub subscription_id: String,
    pub checkout_id: String,
    pub product_id: String,
    pub status: String,
    pub current_period_end: Timestamp,
}

/// What can happen to a checkout, an order or a subscription. In JSON: `{"event":"refund","amount":200}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum PaymentEvent {
    /// The buyer pays the checkout (without a browser).
    Pay,
    /// The checkout is given up.
    ExpireCheckout,
    /// The next period is paid: `subscription.paid`.
    Renew,
    /// The period's end passed, the card failed: `subscription.past_due`.
    PastDue,
    /// `subscription.unpaid`.
    Unpaid,
    /// A trial begins: `subscription.trialing`.
    Trial,
    /// Nothing but news: `subscription.update`.
    Update,
    /// Ends with the period: `subscription.scheduled_cancel`.
    ScheduleCancel,
    /// Ends now: `subscription.canceled`.
    Cancel,
    /// `subscription.expired`.
    Expire,
    /// `subscription.paused`.
    Pause,
    /// Goes on after a pause or a planned end: `subscription.update`.
    Resume,
    /// `refund.created`.
    Refund {
        /// In cents; everything that is left by default.
        #[serde(default)]
        amount: Option<i64>,
        /// `succeeded` unless told.
        #[serde(default)]
        status: Option<String>,
    },
    /// `dispute.created`.
    Dispute,
    /// The dispute ends in the seller's favour. No event tells of it: the payment is just `paid` again.
    DisputeWon,
    /// The dispute ends in the buyer's favour; no event either.
    DisputeLost,
    /// Every event about it is sent again, with its old id.
    Resend,
}

/// Where the buyer goes after paying, and what was sent.
#[derive(Debug, Clone, Serialize)]
pub struct Paid {
    pub return_url: Option<String>,
    pub event_ids: Vec<String>,
}

impl Creem {
    pub(crate) fn new(products: Vec<Product>) -> Self {
        Self { products, books: Mutex::default() }
    }

    pub(crate) fn checkouts(&self) -> Vec<CheckoutView> {
        let mut checkouts: Vec<_> = locked(&self.books).checkouts.values().map(Checkout::view).collect();
        checkouts.sort_by_key(|c| c.created_at);
        checkouts
    }

    pub(crate) fn subscriptions(&self) -> Vec<SubscriptionView> {
        let books = locked(&self.books);
        let view = |s: &Subscription| SubscriptionView {
            subscription_id: s.id.clone(),
            checkout_id: s.checkout.clone(),
            product_id: s.product.id.clone(),
            status: s.status.clone(),
            current_period_end: s.period_end,
        };
        let mut subscriptions: Vec<_> = books.subscriptions.values().collect();
        subscriptions.sort_by_key(|s| s.created);
        subscriptions.into_iter().map(view).collect()
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        locked(&self.books).events.clone()
    }

    pub(crate) fn forget(&self) {
        *locked(&self.books) = Books::default();
    }

    fn product(&self, id: &str) -> Option<&Product> {
        self.products.iter().find(|p| p.id == id)
    }
}

impl Checkout {
    fn sub_total(&self) -> i64 {
        self.product.price * self.units
    }

    fn view(&self) -> CheckoutView {
        CheckoutView {
            checkout_id: self.id.clone(),
            status: self.status.to_owned(),
            product_id: self.product.id.clone(),
            request_id: self.request_id.clone(),
            email: self.email.clone(),
            amount: self.order.as_ref().map_or(self.sub_total(), |o| o.sub_total + o.tax),
            order_id: self.order.as_ref().map(|o| o.id.clone()),
            subscription_id: self.subscription.clone(),
            metadata: self.metadata.clone(),
            created_at: self.created,
        }
    }
}

pub(crate) fn router(world: &Arc<World>) -> Router {
    let api = Router::new()
        .route("/v1/checkouts", post(create_checkout).get(get_checkout))
        .route("/v1/products", get(get_product))
        .route("/v1/products/search", get(search_products))
        .route("/v1/subscriptions", get(get_subscription))
        .route("/v1/subscriptions/search", get(search_subscriptions))
        .route("/v1/subscriptions/{id}/cancel", post(cancel_subscription))
        .route("/v1/subscriptions/{id}/pause", post(pause_subscription))
        .route("/v1/subscriptions/{id}/resume", post(resume_subscription))
        .route("/v1/transactions", get(get_transaction))
        .route("/v1/transactions/search", get(search_transactions))
        .route("/v1/customers", get(get_customer))
        .route("/v1/customers/billing", post(billing_link))
        .route("/v1/moderation/prompt", post(moderate))
        .route("/v1/{*rest}", axum::routing::any(|| async { problem(404, &["Not Found"]) }))
        .layer(middleware::from_fn_with_state(Arc::clone(world), guard));
    Router::new()
        .merge(api)
        .route("/checkout/{id}", get(checkout_page))
        .route("/checkout/{id}/pay", post(pay_page))
        .route("/checkout/{id}/decline", post(decline_page))
        .fallback(|| async { problem(404, &["Not Found"]) })
        .with_state(Arc::clone(world))
}

/// Key check and API faults, before anything under `/v1`.
async fn guard(State(world): State<Arc<World>>, request: Request, next: Next) -> Response {
    match request.headers().get("x-api-key").and_then(|v| v.to_str().ok()) {
        None => return problem(401, &["Missing API key"]),
        Some(key) if key != world.credentials.creem_api_key => return problem(403, &["Forbidden"]),
        Some(_) => {}
    }
    let subject = format!("{} {}", request.method(), request.uri().path());
    let slow = world.faults.strike(&subject, |fault| match fault {
        Fault::CreemApiSlow { ms } => Some(*ms),
        _ => None,
    });
    if let Some(ms) = slow {
        pause(ms).await;
    }
    let told = world.faults.strike(&subject, |fault| match fault {
        Fault::CreemApiAnswers { status } => Some((*status, None)),
        Fault::CreemApiSays { status, msg } => Some((*status, Some(msg.clone()))),
        _ => None,
    });
    match told {
        Some((status, msg)) => problem(status, &[msg.as_deref().unwrap_or("As told by the sandbox")]),
        None => next.run(request).await,
    }
}

/// An error as creem words it.
fn problem(status: u16, messages: &[&str]) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let error = match status {
        // The real one says so for missing products too.
        400 | 404 => "Bad Request",
        _ => code.canonical_reason().unwrap_or("Error"),
    };
    let body = json!({
        "trace_id": fresh_id(""), "status": status, "error": error, "message": messages, "timestamp": now_ms(),
    });
    (code, Json(body)).into_response()
}

// --- checkouts --------------------------------------------------------------------------------------------------------

async fn create_checkout(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(&body) else {
        return problem(400, &["Unexpected token in JSON"]);
    };
    let checkout = match parse_checkout(&world, &fields) {
        Ok(checkout) => checkout,
        Err((status, message)) => return problem(status, &[&message]),
    };
    let answer = checkout_entity(&world, &checkout);
    let subject = format!("POST /v1/checkouts {answer}");
    locked(&world.creem.books).checkouts.insert(checkout.id.clone(), checkout);
    if world.faults.strikes(&subject, &Fault::CreemCheckoutAnswerLost) {
        return problem(500, &["As told by the sandbox: the checkout exists"]);
    }
    Json(answer).into_response()
}

fn parse_checkout(world: &World, fields: &Map<String, Value>) -> Result<Checkout, (u16, String)> {
    let bad = |message: &str| (400, message.to_owned());
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let product = text("product_id").ok_or_else(|| bad("product_id should not be empty"))?;
    let product = world.creem.product(&product).cloned().ok_or_else(|| (404, "Product not found".to_owned()))?;
    let units = match fields.get("units").filter(|v| !v.is_null()) {
        None => 1,
        Some(v) => v.as_i64().filter(|n| *n >= 1).ok_or_else(|| bad("units must not be less than 1"))?,
    };
    let email = match fields.get("customer").and_then(Value::as_object) {
        None => None,
        Some(customer) => {
            let get = |name: &str| customer.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
            match (get("id"), get("email")) {
                (Some(_), Some(_)) => {
                    return Err(bad("customer takes either id or email, not both"));
                }
                (Some(id), None) => {
                    let books = locked(&world.creem.books);
                    let known = books.customers.get(id).map(|c| c.email.clone());
                    Some(known.ok_or_else(|| (404, "Customer not found".to_owned()))?)
                }
                (None, Some(email)) if !email.contains('@') => {
                    return Err(bad("customer.email must be an email"));
                }
                (None, email) => email.map(str::to_owned),
            }
        }
    };
    let success_url = text("success_url");
    if success_url.as_deref().is_some_and(|u| !Url::parse(u).is_ok_and(|u| matches!(u.scheme(), "http" | "https"))) {
        return Err(bad("success_url must be a URL address"));
    }
    let metadata = fields.get("metadata").filter(|v| !v.is_null()).cloned();
    if metadata.as_ref().is_some_and(|v| !v.is_object()) {
        return Err(bad("metadata must be an object"));
    }
    Ok(Checkout {
        id: fresh_id("ch_"),
        product,
        units,
        status: "pending",
        request_id: text("request_id"),
        success_url,
        email,
        custom_fields: fields.get("custom_fields").filter(|v| v.is_array()).cloned().unwrap_or_else(|| json!([])),
        metadata: metadata.unwrap_or_else(|| json!({})),
        created: Timestamp::now(),
        order: None,
        subscription: None,
    })
}

async fn get_checkout(State(world): State<Arc<World>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let Some(id) = query.get("checkout_id") else {
        return problem(400, &["checkout_id should not be empty"]);
    };
    let checkout = locked(&world.creem.books).checkouts.get(id).cloned();
    match checkout {
        Some(checkout) => Json(checkout_entity(&world, &checkout)).into_response(),
        None => problem(404, &["Checkout not found"]),
    }
}

/// A checkout as the API gives it: product, customer and subscription are ids here, objects in events.
fn checkout_entity(world: &World, checkout: &Checkout) -> Value {
    let mut entity = json!({
        "id": checkout.id, "object": "checkout", "mode": MODE, "status": checkout.status, "product": checkout.product.id,
        "units": checkout.units, "checkout_url": format!("{}/checkout/{}", world.places.creem, checkout.id),
        "metadata": checkout.metadata, "custom_fields": checkout.custom_fields,
    });
    let fields = [("request_id", &checkout.request_id), ("success_url", &checkout.success_url), ("subscription", &checkout.subscription)];
    for (name, value) in fields {
        if let Some(value) = value {
            entity[name] = json!(value);
        }
    }
    if let Some(order) = &checkout.order {
        entity["order"] = order_object(checkout, order);
        entity["customer"] = json!(order.customer);
    }
    entity
}

const MODE: &str = "test";

fn iso(time: Timestamp) -> String {
    format!("{time:.3}")
}

fn product_object(world: &World, product: &Product) -> Value {
    json!({
        "id": product.id, "object": "product", "name": product.name, "description": product.name, "price": product.price,
        "currency": "USD", "billing_type": if product.period.recurs() { "recurring" } else { "onetime" },
        "billing_period": product.period.name(), "status": "active",
        "tax_mode": if world.settings().creem_tax_percent > 0 { "exclusive" } else { "inclusive" },
        "tax_category": "saas", "default_success_url": "",
        "created_at": "2026-04-01T00:00:00.000Z", "updated_at": "2026-04-01T00:00:00.000Z", "mode": MODE,
    })
}

fn customer_object(customer: &Customer) -> Value {
    let name = customer.email.split('@').next().unwrap_or_default();
    json!({
        "id": customer.id, "object": "customer", "email": customer.email, "name": name, "country": "SE",
        "created_at": iso(customer.created), "updated_at": iso(customer.created), "mode": MODE,
    })
}

fn order_object(checkout: &Checkout, order: &Order) -> Value {
    json!({
        "id": order.id, "object": "order", "customer": order.customer, "product": checkout.product.id,
        "transaction": order.transaction, "amount": order.sub_total, "sub_total": order.sub_total, "tax_amount": order.tax,
        "discount_amount": 0, "amount_due": order.sub_total + order.tax, "amount_paid": order.sub_total + order.tax,
        "currency": "USD", "status": "paid", "type": if checkout.product.period.recurs() { "recurring" } else { "onetime" },
        "created_at": iso(order.created), "updated_at": iso(order.created), "mode": MODE,
    })
}

fn transaction_object(transaction: &Transaction) -> Value {
    json!({
        "id": transaction.id, "object": "transaction", "amount": transaction.amount,
        "amount_paid": transaction.amount + transaction.tax, "currency": "USD",
        "type": if transaction.subscription.is_some() { "invoice" } else { "payment" },
        "tax_country": "SE", "tax_amount": transaction.tax, "status": transaction.status,
        "refunded_amount": transaction.refunded, "order": transaction.order, "subscription": transaction.subscription,
        "customer": transaction.customer,
        "description": if transaction.subscription.is_some() { "Subscription payment" } else { "Payment" },
        "period_start": transaction.period.map(|(start, _)| start.as_millisecond()),
        "period_end": transaction.period.map(|(_, end)| end.as_millisecond()),
        "created_at": transaction.created.as_millisecond(), "mode": MODE,
    })
}

/// A subscription with everything creem may put into it; [`subscription_event`] takes away what an event leaves out.
fn subscription_object(world: &World, books: &Books, subscription: &Subscription) -> Value {
    let customer = books.customers.get(&subscription.customer).map(customer_object).unwrap_or_default();
    json!({
        "id": subscription.id, "object": "subscription", "product": product_object(world, &subscription.product), "customer": customer,
        "items": [{ "id": subscription.item, "object": "subscription_item", "product_id": subscription.product.id,
            "price_id": format!("pprice_{}", subscription.product.id.trim_start_matches("prod_")), "units": subscription.units, "mode": MODE }],
        "collection_method": "charge_automatically", "status": subscription.status,
        "last_transaction_id": subscription.last_transaction, "last_transaction_date": iso(subscription.paid_at),
        "next_transaction_date": iso(subscription.period_end),
        "current_period_start_date": iso(subscription.period_start), "current_period_end_date": iso(subscription.period_end),
        "canceled_at": subscription.canceled_at.map(iso),
        "created_at": iso(subscription.created), "updated_at": iso(subscription.updated),
        "metadata": subscription.metadata, "mode": MODE,
    })
}

/// The short form of a subscription inside other objects: ids instead of objects.
fn subscription_short(subscription: &Subscription) -> Value {
    json!({
        "id": subscription.id, "object": "subscription", "product": subscription.product.id, "customer": subscription.customer,
        "collection_method": "charge_automatically", "status": subscription.status, "canceled_at": subscription.canceled_at.map(iso),
        "created_at": iso(subscription.created), "updated_at": iso(subscription.updated), "metadata": subscription.metadata, "mode": MODE,
    })
}

// --- paying -----------------------------------------------------------------------------------------------------------

async fn checkout_page(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    show_checkout(&world, &id, "")
}

fn show_checkout(world: &World, id: &str, notice: &str) -> Response {
    let Some(checkout) = locked(&world.creem.books).checkouts.get(id).cloned() else {
        return (StatusCode::NOT_FOUND, page("No such checkout", "")).into_response();
    };
    let tax = checkout.sub_total() * world.settings().creem_tax_percent / 100;
    let total = checkout.sub_total() + tax;
    let every = match checkout.product.period {
        Period::Once => "",
        Period::Month => " a month",
        Period::Year => " a year",
    };
    let price = format!("<p class=price>${}.{:02}<small>{every}</small></p>", total / 100, total % 100);
    let body = match checkout.status {
        "pending" => {
            let email = escape(checkout.email.as_deref().unwrap_or("buyer@example.com"));
            let id = escape(id);
            format!(
                "{price}{notice}<form method=post action=\"/checkout/{id}/pay\"><label for=email>E-mail</label>\
                 <input id=email name=email value=\"{email}\"><button class=main>Pay</button></form>\
                 <form method=post action=\"/checkout/{id}/decline\"><button class=plain>Decline the card</button></form>"
            )
        }
        status => format!("{price}<p class=good>This checkout is {status}.</p>"),
    };
    page(&checkout.product.name, &body).into_response()
}

async fn decline_page(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    show_checkout(&world, &id, "<p class=bad>Your card was declined.</p>")
}

async fn pay_page(State(world): State<Arc<World>>, Path(id): Path<String>, form: Bytes) -> Response {
    let email = consent::parameters(&form).remove("email").filter(|e| e.contains('@'));
    match pay(&world, &id, email).await {
        Ok(paid) => match paid.return_url {
            Some(url) => Redirect::to(&url).into_response(),
            None => page("Thank you", "<p class=good>Paid. There is no address to return to.</p>").into_response(),
        },
        Err(FireError::NotFound) => (StatusCode::NOT_FOUND, page("No such checkout", "")).into_response(),
        Err(FireError::Refused(_)) => show_checkout(&world, &id, ""),
    }
}

/// Why an event could not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FireError {
    /// No checkout, order, subscription, transaction or request of that id.
    NotFound,
    /// It cannot happen to this one now.
    Refused(String),
}

impl std::fmt::Display for FireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("nothing has this id"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for FireError {}

/// A buyer pays: order, customer, transaction, maybe a subscription; then the events; then the way back.
pub(crate) async fn pay(world: &Arc<World>, id: &str, email: Option<String>) -> Result<Paid, FireError> {
    let tax_percent = world.settings().creem_tax_percent;
    let (events, checkout) = {
        let mut books = locked(&world.creem.books);
        let books = &mut *books;
        let checkout = books.checkouts.get_mut(id).ok_or(FireError::NotFound)?;
        if checkout.status != "pending" {
            return Err(FireError::Refused(format!("the checkout is {}", checkout.status)));
        }
        let email = checkout.email.clone().or(email).unwrap_or_else(|| "buyer@example.com".into());
        let now = Timestamp::now();
        let customer = match books.customers.values().find(|c| c.email == email) {
            Some(customer) => customer.id.clone(),
            None => {
                let id = fresh_id("cust_");
                books.customers.insert(id.clone(), Customer { id: id.clone(), email: email.clone(), created: now });
                id
            }
        };
        let sub_total = checkout.sub_total();
        let order = Order {
            id: fresh_id("ord_"),
            customer: customer.clone(),
            transaction: fresh_id("tran_"),
            sub_total,
            tax: sub_total * tax_percent / 100,
            created: now,
        };
        checkout.email = Some(email);
        checkout.status = "completed";
        let period_end = checkout.product.period.after(now);
        let subscription = checkout.product.period.recurs().then(|| Subscription {
            id: fresh_id("sub_"),
            checkout: checkout.id.clone(),
            product: checkout.product.clone(),
            customer: customer.clone(),
            item: fresh_id("sitem_"),
            units: checkout.units,
            status: "active".into(),
            last_transaction: order.transaction.clone(),
            paid_at: now,
            period_start: now,
            period_end,
            canceled_at: None,
            created: now,
            updated: now,
            metadata: checkout.metadata.clone(),
        });
        books.transactions.push(Transaction {
            id: order.transaction.clone(),
            checkout: checkout.id.clone(),
            order: order.id.clone(),
            customer,
            product: checkout.product.id.clone(),
            subscription: subscription.as_ref().map(|s| s.id.clone()),
            amount: order.sub_total,
            tax: order.tax,
            refunded: 0,
            status: "paid",
            period: subscription.as_ref().map(|s| (s.period_start, s.period_end)),
            created: now,
        });
        checkout.subscription = subscription.as_ref().map(|s| s.id.clone());
        checkout.order = Some(order);
        let checkout = checkout.clone();
        if let Some(subscription) = &subscription {
            books.subscriptions.insert(subscription.id.clone(), subscription.clone());
        }
        let mut events = vec![event("checkout.completed", completed_object(world, books, &checkout))];
        if let Some(subscription) = &subscription {
            events.push(subscription_event(world, books, subscription, "subscription.active"));
            events.push(subscription_event(world, books, subscription, "subscription.paid"));
        }
        books.events.extend(events.iter().cloned());
        (events, checkout)
    };
    let event_ids = ids(&events);
    let return_url = return_url(world, &checkout);
    announce(world, events, checkout.success_url.as_deref()).await;
    Ok(Paid { return_url, event_ids })
}

fn completed_object(world: &World, books: &Books, checkout: &Checkout) -> Value {
    let mut object = json!({
        "id": checkout.id, "object": "checkout", "status": "completed", "units": checkout.units,
        "product": product_object(world, &checkout.product), "custom_fields": checkout.custom_fields,
        "metadata": checkout.metadata, "mode": MODE,
    });
    if let Some(request_id) = &checkout.request_id {
        object["request_id"] = json!(request_id);
    }
    if let Some(success_url) = &checkout.success_url {
        object["success_url"] = json!(success_url);
    }
    if let Some(order) = &checkout.order {
        object["order"] = order_object(checkout, order);
        object["customer"] = books.customers.get(&order.customer).map(customer_object).unwrap_or_default();
    }
    if let Some(subscription) = checkout.subscription.as_ref().and_then(|id| books.subscriptions.get(id)) {
        object["subscription"] = subscription_short(subscription);
    }
    object
}

/// Where the buyer goes, with what the real redirect carries, in its order, signed.
fn return_url(world: &World, checkout: &Checkout) -> Option<String> {
    let mut url = match &checkout.success_url {
        Some(url) => Url::parse(url).ok()?,
        None => world.app_url()?,
    };
    let order = checkout.order.as_ref()?;
    let none = String::new();
    let parameters: Vec<(&str, &str)> = [
        ("request_id", checkout.request_id.as_ref().unwrap_or(&none)),
        ("checkout_id", &checkout.id),
        ("order_id", &order.id),
        ("customer_id", &order.customer),
        ("subscription_id", checkout.subscription.as_ref().unwrap_or(&none)),
        ("product_id", &checkout.product.id),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (name, value.as_str()))
    .collect();
    let wrong = world.faults.strikes(checkout.success_url.as_deref().unwrap_or_default(), &Fault::CreemReturnWrongSignature);
    let key = if wrong { "not-the-key" } else { world.credentials.creem_api_key.as_str() };
    let signature = signature::creem_return(&parameters, key);
    url.query_pairs_mut().extend_pairs(parameters).append_pair("signature", &signature);
    Some(url.into())
}

// --- events -----------------------------------------------------------------------------------------------------------

fn event(kind: &str, object: Value) -> Value {
    json!({ "id": fresh_id("evt_"), "eventType": kind, "created_at": now_ms(), "object": object })
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().filter_map(|e| e["id"].as_str()).map(str::to_owned).collect()
}

/// The `subscription.*` events leave out different fields; these are the differences their documentation shows.
fn subscription_event(world: &World, books: &Books, subscription: &Subscription, kind: &str) -> Value {
    let mut object = subscription_object(world, books, subscription);
    const TRANSACTION: [&str; 3] = ["last_transaction_id", "last_transaction_date", "next_transaction_date"];
    const PERIOD: [&str; 2] = ["current_period_start_date", "current_period_end_date"];
    let left_out: Vec<&str> = match kind {
        "subscription.paid" => vec!["items"],
        "subscription.active" => ["items", "metadata"].into_iter().chain(TRANSACTION).chain(PERIOD).collect(),
        "subscription.trialing" | "subscription.update" | "subscription.paused" => TRANSACTION.to_vec(),
        "subscription.expired" => vec![],
        _ => vec!["next_transaction_date"],
    };
    if let Some(fields) = object.as_object_mut() {
        for name in left_out {
            fields.remove(name);
        }
        match kind {
            // As in the documented samples: nobody may conclude anything from these fields.
            "subscription.active" => {
                fields.insert("canceled_at".into(), json!(iso(subscription.created)));
            }
            "subscription.expired" => {
                fields.insert("status".into(), json!("active"));
                fields.insert("current_period_end_date".into(), json!(iso(subscription.period_start)));
            }
            _ => {}
        }
    }
    event(kind, object)
}

/// Makes something happen to the checkout, order, subscription, transaction or request that has this id.
pub(crate) async fn fire(world: &Arc<World>, id: &str, what: PaymentEvent) -> Result<Paid, FireError> {
    if what == PaymentEvent::Pay {
        let checkout = find_checkout(&locked(&world.creem.books), id).ok_or(FireError::NotFound)?;
        return pay(world, &checkout.id, None).await;
    }
    let (events, success_url) = {
        let mut books = locked(&world.creem.books);
        let checkout = find_checkout(&books, id).ok_or(FireError::NotFound)?;
        let events = happen(world, &mut books, &checkout, id, what)?;
        (events, checkout.success_url)
    };
    let event_ids = ids(&events);
    announce(world, events, success_url.as_deref()).await;
    Ok(Paid { return_url: None, event_ids })
}

fn find_checkout(books: &Books, id: &str) -> Option<Checkout> {
    let by_transaction = books.transactions.iter().find(|t| t.id == id).map(|t| t.checkout.as_str());
    let is_it = |c: &&Checkout| {
        c.id == id
            || c.request_id.as_deref() == Some(id)
            || c.subscription.as_deref() == Some(id)
            || c.order.as_ref().is_some_and(|o| o.id == id)
            || by_transaction == Some(c.id.as_str())
    };
    books.checkouts.values().find(is_it).cloned()
}

fn happen(world: &World, books: &mut Books, checkout: &Checkout, id: &str, what: PaymentEvent) -> Result<Vec<Value>, FireError> {
    let events = match what {
        PaymentEvent::Pay => Vec::new(),
        PaymentEvent::ExpireCheckout => {
            if checkout.status != "pending" {
                return Err(FireError::Refused(format!("the checkout is {}", checkout.status)));
            }
            if let Some(checkout) = books.checkouts.get_mut(&checkout.id) {
                checkout.status = "expired";
            }
            Vec::new()
        }
        PaymentEvent::Resend => {
            let about = |e: &&Value| {
                let text = e["object"].to_string();
                text.contains(&format!("\"{}\"", checkout.id))
                    || checkout.subscription.as_ref().is_some_and(|s| text.contains(&format!("\"{s}\"")))
            };
            return Ok(books.events.iter().filter(about).cloned().collect());
        }
        PaymentEvent::Refund { amount, status } => {
            vec![refund(books, checkout, id, amount, status)?]
        }
        PaymentEvent::Dispute => vec![dispute(books, checkout, id)?],
        PaymentEvent::DisputeWon | PaymentEvent::DisputeLost => {
            end_dispute(books, checkout, id, what == PaymentEvent::DisputeWon)?;
            Vec::new()
        }
        change => vec![change_subscription(world, books, checkout, change)?],
    };
    books.events.extend(events.iter().cloned());
    Ok(events)
}

fn change_subscription(world: &World, books: &mut Books, checkout: &Checkout, change: PaymentEvent) -> Result<Value, FireError> {
    let no_subscription = || FireError::Refused("this checkout has no subscription".into());
    let id = checkout.subscription.as_ref().ok_or_else(no_subscription)?;
    let subscription = books.subscriptions.get_mut(id).ok_or_else(no_subscription)?;
    let now = Timestamp::now();
    subscription.updated = now;
    let kind = match change {
        PaymentEvent::Renew => {
            // The next period begins where the last one ended, whatever the clock says: tests need not wait a month.
            subscription.status = "active".into();
            subscription.canceled_at = None;
            subscription.period_start = subscription.period_end;
            subscription.period_end = subscription.product.period.after(subscription.period_start);
            subscription.last_transaction = fresh_id("tran_");
            subscription.paid_at = now;
            let amount = subscription.product.price * subscription.units;
            books.transactions.push(Transaction {
                id: subscription.last_transaction.clone(),
                checkout: checkout.id.clone(),
                order: checkout.order.as_ref().map(|o| o.id.clone()).unwrap_or_default(),
                customer: subscription.customer.clone(),
                product: subscription.product.id.clone(),
                subscription: Some(subscription.id.clone()),
                amount,
                tax: amount * world.settings().creem_tax_percent / 100,
                refunded: 0,
                status: "paid",
                period: Some((subscription.period_start, subscription.period_end)),
                created: now,
            });
            "subscription.paid"
        }
        PaymentEvent::PastDue => {
            subscription.status = "past_due".into();
            "subscription.past_due"
        }
        PaymentEvent::Unpaid => {
            subscription.status = "unpaid".into();
            "subscription.unpaid"
        }
        PaymentEvent::Trial => {
            subscription.status = "trialing".into();
            "subscription.trialing"
        }
        PaymentEvent::ScheduleCancel => {
            subscription.status = "scheduled_cancel".into();
            "subscription.scheduled_cancel"
        }
        PaymentEvent::Cancel => {
            subscription.status = "canceled".into();
            subscription.canceled_at = Some(now);
            "subscription.canceled"
        }
        PaymentEvent::Expire => {
            subscription.status = "expired".into();
            "subscription.expired"
        }
        PaymentEvent::Pause => {
            subscription.status = "paused".into();
            "subscription.paused"
        }
        PaymentEvent::Resume => {
            if !matches!(subscription.status.as_str(), "paused" | "scheduled_cancel") {
                return Err(FireError::Refused(format!("a subscription that is {} cannot be resumed", subscription.status)));
            }
            subscription.status = "active".into();
            "subscription.update"
        }
        _ => "subscription.update",
    };
    let subscription = subscription.clone();
    Ok(subscription_event(world, books, &subscription, kind))
}

/// The payment an id means: the one of that id, else the last one of its checkout.
fn payment_of<'a>(books: &'a mut Books, checkout: &Checkout, id: &str) -> Result<&'a mut Transaction, FireError> {
    let exact = books.transactions.iter().position(|t| t.id == id);
    let last = || books.transactions.iter().rposition(|t| t.checkout == checkout.id);
    let place = exact.or_else(last).ok_or_else(|| FireError::Refused("nothing has been paid".into()))?;
    Ok(&mut books.transactions[place])
}

fn refund(books: &mut Books, checkout: &Checkout, id: &str, amount: Option<i64>, status: Option<String>) -> Result<Value, FireError> {
    let payment = payment_of(books, checkout, id)?;
    let paid = payment.amount + payment.tax;
    let left = paid - payment.refunded;
    let amount = amount.unwrap_or(left);
    if amount <= 0 || amount > left {
        return Err(FireError::Refused(format!("between 1 and {left} cents can be refunded")));
    }
    let status = status.unwrap_or_else(|| "succeeded".into());
    if status == "succeeded" {
        payment.refunded += amount;
        payment.status = if payment.refunded == paid { "refunded" } else { "partialRefund" };
    }
    let payment = payment.clone();
    let mut object = json!({
        "id": fresh_id("ref_"), "object": "refund", "status": status, "refund_amount": amount, "refund_currency": "USD",
        "reason": "requested_by_customer", "created_at": now_ms(), "mode": MODE,
    });
    add_context(books, checkout, &payment, &mut object, true);
    Ok(event("refund.created", object))
}

fn dispute(books: &mut Books, checkout: &Checkout, id: &str) -> Result<Value, FireError> {
    let payment = payment_of(books, checkout, id)?;
    payment.status = "chargeback";
    let payment = payment.clone();
    let mut object = json!({
        "id": fresh_id("disp_"), "object": "dispute", "amount": payment.amount + payment.tax, "currency": "USD",
        "created_at": now_ms(), "mode": MODE,
    });
    add_context(books, checkout, &payment, &mut object, false);
    Ok(event("dispute.created", object))
}

fn end_dispute(books: &mut Books, checkout: &Checkout, id: &str, won: bool) -> Result<(), FireError> {
    let payment = payment_of(books, checkout, id)?;
    if payment.status != "chargeback" {
        return Err(FireError::Refused(format!("the payment is {}, not disputed", payment.status)));
    }
    payment.status = match (won, payment.refunded) {
        (false, _) => "chargedBack",
        (true, 0) => "paid",
        (true, refunded) if refunded < payment.amount + payment.tax => "partialRefund",
        (true, _) => "refunded",
    };
    Ok(())
}

/// What a refund or a dispute is about. A dispute's checkout comes without request id and metadata, as documented.
fn add_context(books: &Books, checkout: &Checkout, payment: &Transaction, object: &mut Value, known: bool) {
    object["transaction"] = transaction_object(payment);
    let mut short = json!({ "id": checkout.id, "object": "checkout", "status": "completed", "mode": MODE });
    if known {
        short["metadata"] = checkout.metadata.clone();
        if let Some(request_id) = &checkout.request_id {
            short["request_id"] = json!(request_id);
        }
    }
    object["checkout"] = short;
    if let Some(order) = &checkout.order {
        object["order"] = json!({
            "id": order.id, "object": "order", "customer": order.customer, "product": checkout.product.id, "amount": order.sub_total,
            "currency": "USD", "status": "paid", "type": if checkout.product.period.recurs() { "recurring" } else { "onetime" }, "mode": MODE,
        });
        object["customer"] = books.customers.get(&order.customer).map(customer_object).unwrap_or_default();
    }
    if let Some(subscription) = checkout.subscription.as_ref().and_then(|id| books.subscriptions.get(id)) {
        object["subscription"] = subscription_short(subscription);
    }
}

/// Sends any event, signed as creem does, and waits for the first try of it.
pub(crate) async fn send_raw(world: &Arc<World>, event: Value) {
    announce(world, vec![event], None).await;
}

/// How long a buyer's redirect waits for the first tries of the webhooks: a script that pays finds its credits at once,
/// while a webhook that is told to be late still lets the buyer go first.
const FIRST_TRIES: Duration = Duration::from_secs(3);

/// Delivers events that belong together, one after the other, repeats apart. Returns after the first try of each,
/// or when that takes too long.
async fn announce(world: &Arc<World>, mut events: Vec<Value>, success_url: Option<&str>) {
    let subject = events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    if events.len() > 1 && world.faults.strikes(&subject, &Fault::CreemWebhookReorder) {
        events.reverse();
    }
    let Some(url) = webhook_url(world, success_url) else {
        world.say(|| "creem  has nowhere to send webhooks: no app URL is set".to_owned());
        return;
    };
    let late = world.faults.strike(&subject, |fault| match fault {
        Fault::CreemWebhookDelay { ms } => Some(*ms),
        _ => None,
    });
    let (done, first_tries) = tokio::sync::oneshot::channel();
    let sender = Arc::clone(world);
    world.spawn(async move {
        pause(late.unwrap_or_default()).await;
        for event in events {
            begin_delivery(&sender, event, url.clone()).await;
        }
        let _ = done.send(());
    });
    if late.is_none() {
        let _ = tokio::time::timeout(FIRST_TRIES, first_tries).await;
    }
}

fn webhook_url(world: &World, success_url: Option<&str>) -> Option<Url> {
    let app = world.app_url().or_else(|| success_url.and_then(|u| Url::parse(u).ok()))?;
    app.join("/webhooks/creem").ok()
}

/// The first try of an event, with its copies; repeats go on in the background.
async fn begin_delivery(world: &Arc<World>, event: Value, url: Url) {
    let id = event["id"].as_str().unwrap_or_default().to_owned();
    let what = event["eventType"].as_str().unwrap_or_default().to_owned();
    let body = event.to_string();
    if world.faults.strikes(&body, &Fault::CreemWebhookDrop) {
        return;
    }
    let signature = if world.faults.strikes(&body, &Fault::CreemWebhookNoSignature) {
        None
    } else if world.faults.strikes(&body, &Fault::CreemWebhookWrongSignature) {
        Some(signature::creem_webhook("not-the-secret", body.as_bytes()))
    } else {
        Some(signature::creem_webhook(&world.credentials.creem_webhook_secret, body.as_bytes()))
    };
    let copies = world.faults.strike(&body, |fault| match fault {
        Fault::CreemWebhookDuplicate { copies } => Some(*copies),
        _ => None,
    });
    let webhook = Arc::new(Webhook { id, what, url, body, signature });
    let tries = (0..copies.unwrap_or(1)).map(|_| {
        let webhook = Arc::clone(&webhook);
        async move {
            if !webhook.send(world, 1).await {
                let sender = Arc::clone(world);
                world.spawn(async move { webhook.repeat(&sender).await });
            }
        }
    });
    futures::future::join_all(tries).await;
}

struct Webhook {
    id: String,
    what: String,
    url: Url,
    body: String,
    signature: Option<String>,
}

impl Webhook {
    async fn send(&self, world: &World, attempt: u32) -> bool {
        let headers = self.signature.iter().map(|s| ("creem-signature", s.clone())).collect();
        let post = Post {
            service: Service::Creem,
            what: &self.what,
            id: &self.id,
            url: self.url.clone(),
            headers,
            body: self.body.clone(),
            attempt,
            timeout: Duration::from_secs(15),
        };
        world.deliver(post).await
    }

    /// creem's ladder: 30 s, 1 min, 5 min, 1 h; then it gives up.
    async fn repeat(&self, world: &World) {
        for (attempt, seconds) in (2..).zip([30.0, 60.0, 300.0, 3_600.0]) {
            let speed = world.settings().creem_retry_speed.max(0.001);
            tokio::time::sleep(Duration::from_secs_f64(seconds / speed)).await;
            if self.send(world, attempt).await {
                return;
            }
        }
    }
}

// --- the rest of the API ----------------------------------------------------------------------------------------------

async fn get_product(State(world): State<Arc<World>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    match query.get("product_id") {
        Some(id) => match world.creem.product(id) {
            Some(product) => Json(product_object(&world, product)).into_response(),
            None => problem(404, &["Product not found"]),
        },
        None => search_products(State(world), Query(query)).await,
    }
}

async fn search_products(State(world): State<Arc<World>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let items = world.creem.products.iter().map(|p| product_object(&world, p)).collect();
    paged(items, &query)
}

/// One page of a list, in creem's envelope.
fn paged(items: Vec<Value>, query: &BTreeMap<String, String>) -> Response {
    let number = |name: &str, default: usize| query.get(name).and_then(|v| v.parse().ok()).filter(|n| *n > 0).unwrap_or(default);
    let (current, size) = (number("page_number", 1), number("page_size", 10).min(100));
    let total = items.len();
    let pages = total.div_ceil(size);
    let items: Vec<Value> = items.into_iter().skip((current - 1) * size).take(size).collect();
    let pagination = json!({
        "total_records": total, "total_pages": pages, "current_page": current,
        "next_page": (current < pages).then_some(current + 1), "prev_page": (current > 1).then_some(current - 1),
    });
    Json(json!({ "items": items, "pagination": pagination })).into_response()
}

fn subscription_answer(world: &World, id: &str) -> Response {
    let books = locked(&world.creem.books);
    match books.subscriptions.get(id) {
        Some(subscription) => Json(subscription_object(world, &books, subscription)).into_response(),
        None => problem(404, &["Subscription not found"]),
    }
}

async fn get_subscription(State(world): State<Arc<World>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    match query.get("subscription_id") {
        Some(id) => subscription_answer(&world, id),
        None => problem(400, &["subscription_id should not be empty"]),
    }
}

async fn search_subscriptions(State(world): State<Arc<World>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let items = {
        let books = locked(&world.creem.books);
        books.subscriptions.values().map(|s| subscription_object(&world, &books, s)).collect()
    };
    paged(items, &query)
}

async fn cancel_subscription(State(world): State<Arc<World>>, Path(id): Path<String>, body: Bytes) -> Response {
    let wish: Value = serde_json::from_slice(&body).unwrap_or_default();
    let change = match (wish["mode"].as_str(), wish["onExecute"].as_str()) {
        (Some("immediate"), Some("pause")) => PaymentEvent::Pause,
        (Some("immediate"), _) => PaymentEvent::Cancel,
        (None | Some("scheduled"), _) => PaymentEvent::ScheduleCancel,
        (Some(_), _) => {
            return problem(400, &["mode must be one of the following values: immediate, scheduled"]);
        }
    };
    let status = locked(&world.creem.books).subscriptions.get(&id).map(|s| s.status.clone());
    if status.is_some_and(|s| s == "canceled") {
        return problem(400, &["Subscription is already canceled"]);
    }
    ask_for(&world, &id, change).await
}

async fn pause_subscription(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    ask_for(&world, &id, PaymentEvent::Pause).await
}

async fn resume_subscription(State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    ask_for(&world, &id, PaymentEvent::Resume).await
}

/// A change somebody asked for through the API: it is made at once, its event comes on its own.
async fn ask_for(world: &Arc<World>, id: &str, change: PaymentEvent) -> Response {
    let made = {
        let mut books = locked(&world.creem.books);
        if !books.subscriptions.contains_key(id) {
            return problem(404, &["Subscription not found"]);
        }
        match find_checkout(&books, id) {
            Some(checkout) => happen(world, &mut books, &checkout, id, change).map(|events| (events, checkout.success_url)),
            None => Err(FireError::NotFound),
        }
    };
    match made {
        Ok((events, success_url)) => {
            let sender = Arc::clone(world);
            world.spawn(async move { announce(&sender, events, success_url.as_deref()).await });
            subscription_answer(world, id)
        }
        Err(e) => problem(400, &[&e.to_string()]),
    }
}

async fn get_transaction(State(world): State<Arc<World>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let Some(id) = query.get("transaction_id") else {
        return problem(400, &["transaction_id should not be empty"]);
    };
    match locked(&world.creem.books).transactions.iter().find(|t| t.id == *id) {
        Some(transaction) => Json(transaction_object(transaction)).into_response(),
        None => problem(404, &["Transaction not found"]),
    }
}

async fn search_transactions(State(world): State<Arc<World>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let wanted = |name: &str, value: &str| query.get(name).is_none_or(|v| v == value);
    let items = locked(&world.creem.books)
        .transactions
        .iter()
        .rev()
        .filter(|t| wanted("customer_id", &t.customer) && wanted("order_id", &t.order) && wanted("product_id", &t.product))
        .map(transaction_object)
        .collect();
    paged(items, &query)
}

async fn get_customer(State(world): State<Arc<World>>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let books = locked(&world.creem.books);
    let found = books.customers.values().find(|c| query.get("customer_id") == Some(&c.id) || query.get("email") == Some(&c.email));
    match found {
        Some(customer) => Json(customer_object(customer)).into_response(),
        None => problem(404, &["Customer not found"]),
    }
}

async fn billing_link(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let wish: Value = serde_json::from_slice(&body).unwrap_or_default();
    let known = wish["customer_id"].as_str().is_some_and(|id| locked(&world.creem.books).customers.contains_key(id));
    if !known {
        return problem(404, &["Customer not found"]);
    }
    let link = format!("{}/my-orders/login/{}", world.places.creem, fresh_id(""));
    Json(json!({ "customer_portal_link": link })).into_response()
}

/// Allows every prompt but those that carry a mark: `[deny]` or `[flag]`.
async fn moderate(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let wish: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(prompt) = wish["prompt"].as_str().filter(|p| !p.is_empty()) else {
        return problem(400, &["prompt should not be empty"]);
    };
    let decision = match prompt {
        p if p.contains("[deny]") => "deny",
        p if p.contains("[flag]") => "flag",
        _ => "allow",
    };
    let mut result = json!({
        "id": fresh_id("mod_"), "object": "moderation_result", "prompt": prompt, "decision": decision, "usage": { "units": 1 },
    });
    let told = world.faults.strike(prompt, |fault| match fault {
        Fault::CreemModerationDecides { decision } => Some(decision.clone()),
        _ => None,
    });
    if let Some(told) = told {
        result["decision"] = json!(told);
    }
    if let Some(external_id) = wish["external_id"].as_str() {
        result["external_id"] = json!(external_id);
    }
    Json(result).into_response()
}
