//! creem's objects, as far as we need them.
//!
//! Every field beyond `id` may be missing in some event. A product, customer or order comes as an id or as a whole object; a time as
//! ISO text or as milliseconds. Statuses nobody has heard of are kept as they are.

use serde_json::Value;

/// A checkout.
#[derive(Clone, Debug)]
pub struct Checkout {
    /// `ch_...`
    pub id: String,
    /// `pending`, `processing`, `completed`, `expired`; others may come.
    pub status: String,
    /// Our order's id, as we gave it.
    pub request_id: Option<String>,
    /// Where the buyer pays.
    pub checkout_url: Option<String>,
    /// creem's product id.
    pub product: Option<String>,
    /// creem's order, once it is paid.
    pub paid: Option<PaidOrder>,
    /// `cust_...`
    pub customer: Option<String>,
    /// `sub_...`, for plans.
    pub subscription: Option<String>,
}

/// An order that creem says is paid.
#[derive(Clone, Debug)]
pub struct PaidOrder {
    /// `ord_...`
    pub id: String,
    /// `tran_...`
    pub transaction: Option<String>,
    /// Cents, with tax.
    pub amount_paid: Option<i64>,
}

impl Checkout {
    /// Reads the entity or the object of an event.
    #[must_use]
    pub fn read(object: &Value) -> Option<Self> {
        let order = &object["order"];
        // Only a whole order can say that it is paid.
        let paid = (order["status"] == "paid").then(|| text(&order["id"])).flatten();
        Some(Self {
            id: text(&object["id"])?,
            status: text(&object["status"]).unwrap_or_default(),
            request_id: text(&object["request_id"]),
            checkout_url: text(&object["checkout_url"]),
            product: id(&object["product"]),
            paid: paid.map(|id_| PaidOrder { id: id_, transaction: id(&order["transaction"]), amount_paid: order["amount_paid"].as_i64() }),
            customer: id(&object["customer"]).or_else(|| id(&order["customer"])),
            subscription: id(&object["subscription"]),
        })
    }
}

/// A subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// `sub_...`
    pub id: String,
    /// `active`, `trialing`, `past_due`, `unpaid`, `paused`, `scheduled_cancel`, `canceled`, `expired`; others may come.
    pub status: String,
    /// creem's product id.
    pub product: Option<String>,
    /// `cust_...`
    pub customer: Option<String>,
    /// Our order, from the metadata that its checkout handed on.
    pub order_id: Option<String>,
    /// `tran_...` of the newest payment.
    pub last_transaction: Option<String>,
    /// Unix seconds.
    pub period_start: Option<i64>,
    /// Unix seconds.
    pub period_end: Option<i64>,
    /// Unix seconds.
    pub next_billing_at: Option<i64>,
    /// Unix seconds. Says nothing unless the status is `canceled`.
    pub canceled_at: Option<i64>,
    /// Unix milliseconds: which of two news is the newer.
    pub updated_at: Option<i64>,
}

impl Subscription {
    /// Reads the entity or the object of an event.
    #[must_use]
    pub fn read(object: &Value) -> Option<Self> {
        Some(Self {
            id: text(&object["id"])?,
            status: text(&object["status"]).unwrap_or_default(),
            product: id(&object["product"]).or_else(|| text(&object["items"][0]["product_id"])),
            customer: id(&object["customer"]),
            order_id: text(&object["metadata"]["order_id"]),
            last_transaction: id(&object["last_transaction_id"]),
            period_start: seconds(&object["current_period_start_date"]),
            period_end: seconds(&object["current_period_end_date"]),
            next_billing_at: seconds(&object["next_transaction_date"]),
            canceled_at: seconds(&object["canceled_at"]),
            updated_at: millis(&object["updated_at"]),
        })
    }

    /// The object of a `subscription.*` event. The event's name tells the status better than the object does: the documented
    /// sample of an expired one says `active`, with a period that ends where it began.
    #[must_use]
    pub fn of_event(kind: &str, object: &Value) -> Option<Self> {
        let mut subscription = Self::read(object)?;
        match kind.strip_prefix("subscription.")? {
            "update" => {}
            "paid" => {
                if !matches!(subscription.status.as_str(), "scheduled_cancel" | "canceled") {
                    subscription.status = "active".into();
                }
            }
            status => subscription.status = status.into(),
        }
        if subscription.status == "expired" {
            (subscription.period_start, subscription.period_end, subscription.next_billing_at) = (None, None, None);
        }
        if kind != "subscription.paid" {
            subscription.last_transaction = None;
        }
        Some(subscription)
    }
}

/// The names of all events about a subscription that we know.
pub(crate) const SUBSCRIPTION_EVENTS: [&str; 10] = [
    "subscription.active",
    "subscription.paid",
    "subscription.trialing",
    "subscription.update",
    "subscription.past_due",
    "subscription.unpaid",
    "subscription.scheduled_cancel",
    "subscription.paused",
    "subscription.canceled",
    "subscription.expired",
];

/// A payment.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// `tran_...`
    pub id: String,
    /// `paid`, `refunded`, `partialRefund`, `chargedBack`, `chargeback`, `pending`, `declined`, ...
    pub status: String,
    /// Cents before tax: the product's price, or what an upgrade costs.
    pub amount: Option<i64>,
    /// Cents, with tax, less what was discounted.
    pub amount_paid: Option<i64>,
    /// Cents, in all.
    pub refunded_amount: Option<i64>,
    /// `ord_...`
    pub order: Option<String>,
    /// `sub_...`
    pub subscription: Option<String>,
    /// Unix seconds.
    pub period_start: Option<i64>,
    /// Unix seconds.
    pub period_end: Option<i64>,
}

impl Transaction {
    /// Reads the entity.
    #[must_use]
    pub fn read(object: &Value) -> Option<Self> {
        Some(Self {
            id: id(object)?,
            status: text(&object["status"]).unwrap_or_default(),
            amount: object["amount"].as_i64(),
            amount_paid: object["amount_paid"].as_i64(),
            refunded_amount: object["refunded_amount"].as_i64(),
            order: id(&object["order"]),
            subscription: id(&object["subscription"]),
            period_start: seconds(&object["period_start"]),
            period_end: seconds(&object["period_end"]),
        })
    }

    /// Whether the buyer's money has come, whatever became of it later.
    #[must_use]
    pub fn was_paid(&self) -> bool {
        matches!(self.status.as_str(), "paid" | "refunded" | "partialRefund") || self.is_disputed()
    }

    /// Whether the buyer's bank has taken it back, or is about to.
    #[must_use]
    pub fn is_disputed(&self) -> bool {
        matches!(self.status.as_str(), "chargeback" | "chargedBack")
    }
}

/// Money that was given back.
#[derive(Clone, Debug)]
pub struct Refund {
    /// `ref_...`
    pub id: String,
    /// `pending`, `succeeded`, `canceled`, `failed`.
    pub status: String,
    /// Cents.
    pub amount: i64,
    pub of: Back,
}

/// A payment that the buyer's bank disputes.
#[derive(Clone, Debug)]
pub struct Dispute {
    /// `disp_...`
    pub id: String,
    pub of: Back,
}

/// Which payment a refund or a dispute is about.
#[derive(Clone, Debug)]
pub struct Back {
    pub transaction: Transaction,
    /// `ord_...`
    pub order: Option<String>,
    /// `ch_...`
    pub checkout: Option<String>,
}

impl Back {
    fn read(object: &Value) -> Option<Self> {
        let transaction = Transaction::read(&object["transaction"])?;
        Some(Self { order: id(&object["order"]).or_else(|| transaction.order.clone()), checkout: id(&object["checkout"]), transaction })
    }
}

impl Refund {
    /// Reads the object of `refund.created`.
    #[must_use]
    pub fn read(object: &Value) -> Option<Self> {
        Some(Self {
            id: text(&object["id"])?,
            status: text(&object["status"]).unwrap_or_else(|| "succeeded".into()),
            amount: object["refund_amount"].as_i64()?,
            of: Back::read(object)?,
        })
    }
}

impl Dispute {
    /// Reads the object of `dispute.created`.
    #[must_use]
    pub fn read(object: &Value) -> Option<Self> {
        Some(Self { id: text(&object["id"])?, of: Back::read(object)? })
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// An id, plain or inside its object.
fn id(value: &Value) -> Option<String> {
    text(value).or_else(|| text(&value["id"]))
}

fn millis(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| clock::parse_millis(value.as_str()?))
}

fn seconds(value: &Value) -> Option<i64> {
    millis(value).map(|millis| millis.div_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_come_plain_or_inside_an_object() {
        let checkout = |product: Value, order: Value| {
            Checkout::read(&json!({"id": "ch_1", "status": "completed", "product": product, "order": order})).expect("a checkout")
        };
        let plain = checkout(json!("prod_1"), json!("ord_1"));
        assert_eq!((plain.product.as_deref(), plain.paid.is_some()), (Some("prod_1"), false));
        let whole =
            checkout(json!({"id": "prod_1"}), json!({"id": "ord_1", "status": "paid", "transaction": "tran_1", "amount_paid": 1250}));
        let paid = whole.paid.expect("paid");
        assert_eq!((whole.product.as_deref(), paid.id.as_str()), (Some("prod_1"), "ord_1"));
        assert_eq!((paid.transaction.as_deref(), paid.amount_paid), (Some("tran_1"), Some(1250)));
    }

    #[test]
    fn times_come_as_text_or_as_milliseconds() {
        let of = |start: Value| Subscription::read(&json!({"id": "sub_1", "current_period_start_date": start})).expect("one").period_start;
        assert_eq!(of(json!("2026-04-12T10:00:05.000Z")), Some(1_775_988_005));
        assert_eq!(of(json!(1_775_988_005_000_i64)), Some(1_775_988_005));
        assert_eq!(of(Value::Null), None);
    }

    #[test]
    fn the_events_name_tells_the_status() {
        // The documented sample of an expired subscription.
        let object = json!({
            "id": "sub_1", "status": "active", "last_transaction_id": "tran_1", "current_period_start_date": "2026-04-12T10:00:05.000Z",
            "current_period_end_date": "2026-04-12T10:00:05.000Z", "next_transaction_date": "2026-05-12T10:00:05.000Z",
        });
        let expired = Subscription::of_event("subscription.expired", &object).expect("one");
        assert_eq!((expired.status.as_str(), expired.period_end, expired.last_transaction), ("expired", None, None));
        let paid = Subscription::of_event("subscription.paid", &object).expect("one");
        assert_eq!((paid.status.as_str(), paid.last_transaction.as_deref()), ("active", Some("tran_1")));
        // A payment of a period that is the last one changes nothing about that.
        let ending = json!({"id": "sub_1", "status": "scheduled_cancel", "last_transaction_id": "tran_2"});
        assert_eq!(Subscription::of_event("subscription.paid", &ending).expect("one").status, "scheduled_cancel");
    }

    #[test]
    fn a_refund_names_its_payment() {
        let object = json!({
            "id": "ref_1", "status": "succeeded", "refund_amount": 400,
            "transaction": {"id": "tran_1", "amount": 1000, "amount_paid": 1250, "status": "partialRefund", "refunded_amount": 650},
            "order": {"id": "ord_1"}, "checkout": "ch_1",
        });
        let refund = Refund::read(&object).expect("a refund");
        assert_eq!((refund.amount, refund.of.transaction.refunded_amount, refund.of.order.as_deref()), (400, Some(650), Some("ord_1")));
        assert!(refund.of.transaction.was_paid() && !refund.of.transaction.is_disputed());
        assert!(Refund::read(&json!({"id": "ref_1", "refund_amount": 1})).is_none());
    }
}
