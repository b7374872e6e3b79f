//! What goes over the wire around the types of the shared crates: the frames of answers, and what a component writes straight from a statement.
//! The contract test holds every answer of the end-to-end suite to these: nothing that is answered may be missing here, nor the other way round.
#![allow(dead_code, reason = "they are described, not built")]

use std::collections::BTreeMap;

use catalogue::{HairColor, Hairstyle, Model};
use order::inbox::Listed as PaymentEvent;
use order::subscription::Plan;
use order::{Order, Product};
use problem::{Code, FieldError};
use serde::Serialize;
use serde_json::Value;
use session::{Listed as Session, SignedInAt};
use task::View;
use user::{Movement, Stats, User, WayIn};
use utoipa::ToSchema;

/// What went wrong (RFC 9457).
#[derive(ToSchema, Serialize)]
pub struct Problem {
    /// `about:blank`.
    #[serde(rename = "type")]
    kind: String,
    /// The same for every problem of this code.
    title: String,
    /// The HTTP status.
    status: u16,
    /// For people: what happened and what to do about it.
    detail: String,
    code: Code,
    /// To be quoted when it is reported; not there where nothing answered but the router.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
    /// Field by field, for `invalid_input`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

#[derive(ToSchema, Serialize)]
pub struct SessionAnswer {
    /// Null for a stranger.
    user: Option<User>,
    /// The balance.
    credits: i64,
}

#[derive(ToSchema, Serialize)]
pub struct SignedIn {
    user: User,
    /// The balance.
    credits: i64,
    /// For `Authorization: Bearer`, where there are no cookies.
    token: String,
}

#[derive(ToSchema, Serialize)]
pub struct Nonce {
    nonce: String,
    client_id: String,
}

/// Google's id token.
#[derive(ToSchema, Serialize)]
pub struct Credential {
    credential: String,
}

#[derive(ToSchema, Serialize)]
pub struct GoTo {
    /// Where the page has to go.
    url: String,
}

#[derive(ToSchema, Serialize)]
pub struct Sessions {
    sessions: Vec<Session>,
}

#[derive(ToSchema, Serialize)]
pub struct Identities {
    identities: Vec<WayIn>,
}

/// A photo.
#[derive(ToSchema, Serialize)]
pub struct Upload {
    id: String,
    key: String,
    /// Where its owner sees it.
    url: String,
    /// Bytes.
    size: i64,
    content_type: String,
    /// Pixels.
    width: i64,
    /// Pixels.
    height: i64,
    /// Hex.
    sha256: String,
    original_name: Option<String>,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds; then the photo is deleted.
    expires_at: i64,
}

#[derive(ToSchema, Serialize)]
pub struct Stored {
    uploads: Vec<Upload>,
}

#[derive(ToSchema, Serialize)]
pub struct UploadAnswer {
    upload: Upload,
}

/// A photo that is about to be put into the bucket.
#[derive(ToSchema, Serialize)]
pub struct Intended {
    content_type: String,
    /// Bytes.
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filename: Option<String>,
}

#[derive(ToSchema, Serialize)]
pub struct PresignedAnswer {
    upload: Presigned,
}

#[derive(ToSchema, Serialize)]
pub struct Presigned {
    id: String,
    put: Put,
}

/// The request that puts the photo into the bucket.
#[derive(ToSchema, Serialize)]
pub struct Put {
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    /// Unix seconds.
    expires_at: i64,
}

#[derive(ToSchema, Serialize)]
pub struct TaskAnswer {
    task: View,
}

#[derive(ToSchema, Serialize)]
pub struct Ordered {
    tasks: Vec<View>,
    credits: Spent,
}

#[derive(ToSchema, Serialize)]
pub struct Spent {
    spent: i64,
    /// What is left.
    balance: i64,
}

#[derive(ToSchema, Serialize)]
pub struct Hairstyles {
    hairstyles: Vec<Hairstyle>,
    models: Vec<Model>,
}

#[derive(ToSchema, Serialize)]
pub struct HairColors {
    hair_colors: Vec<HairColor>,
}

#[derive(ToSchema, Serialize)]
pub struct Products {
    products: Vec<Product>,
}

#[derive(ToSchema, Serialize)]
pub struct Purchase {
    /// One of `GET /api/products`.
    product_id: String,
}

#[derive(ToSchema, Serialize)]
pub struct OrderAnswer {
    order: Order,
}

#[derive(ToSchema, Serialize)]
pub struct Subscription {
    /// Null for somebody who never had a plan.
    subscription: Option<Plan>,
}

#[derive(ToSchema, Serialize)]
pub struct Profile {
    user: User,
    /// The balance.
    credits: i64,
}

#[derive(ToSchema, Serialize)]
pub struct Erased {
    erased: bool,
    /// Whether nothing is left anywhere.
    done: bool,
    /// Null where it could not be looked; the rest is removed all the same.
    left: Option<Left>,
    /// What stays, in words.
    kept: String,
}

/// What is left of somebody.
#[derive(ToSchema, Serialize)]
pub struct Left {
    rows: i64,
    files: i64,
    cache_entries: i64,
}

#[derive(ToSchema, Serialize)]
pub struct ExportedUpload {
    id: String,
    key: String,
    content_type: String,
    original_name: Option<String>,
    /// Bytes.
    size: Option<i64>,
    width: Option<i64>,
    height: Option<i64>,
    sha256: Option<String>,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds.
    expires_at: i64,
}

#[derive(ToSchema, Serialize)]
pub struct ExportedOrder {
    id: String,
    status: String,
    /// Cents.
    amount: i64,
    currency: String,
    credits: i64,
    product_id: Option<String>,
    payment_provider: Option<String>,
    payment_id: Option<String>,
    /// Unix seconds.
    paid_at: Option<i64>,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds.
    updated_at: i64,
}

#[derive(ToSchema, Serialize)]
pub struct ExportedSubscription {
    id: String,
    plan_type: String,
    billing_cycle: String,
    status: String,
    /// Unix seconds.
    enabled_at: Option<i64>,
    /// Unix seconds.
    expires_at: Option<i64>,
    /// Unix seconds.
    cancelled_at: Option<i64>,
    /// Unix seconds.
    created_at: i64,
}

/// What the moderation said about somebody's own words.
#[derive(ToSchema, Serialize)]
pub struct Verdict {
    provider_id: Option<String>,
    decision: String,
    /// Unix seconds.
    created_at: i64,
}

/// Everything that is kept about somebody.
#[derive(ToSchema, Serialize)]
pub struct Export {
    /// Unix seconds.
    exported_at: i64,
    user: User,
    credits: i64,
    identities: Vec<WayIn>,
    sessions: Vec<Session>,
    sign_ins: Vec<SignedInAt>,
    uploads: Vec<ExportedUpload>,
    tasks: Vec<View>,
    orders: Vec<ExportedOrder>,
    subscriptions: Vec<ExportedSubscription>,
    credit_history: Vec<Movement>,
    moderation_verdicts: Vec<Verdict>,
    /// Longest list; the lists of the API page through what is beyond.
    longest_list: i64,
}

#[derive(ToSchema, Serialize)]
pub struct UserWithCredits {
    id: String,
    email: String,
    name: String,
    picture: Option<String>,
    role: String,
    /// Unix seconds.
    created_at: i64,
    credits: i64,
}

#[derive(ToSchema, Serialize)]
pub struct Person {
    user: UserWithCredits,
    stats: Stats,
    identities: Vec<WayIn>,
}

#[derive(ToSchema, Serialize)]
pub struct UserAnswer {
    user: UserWithCredits,
}

#[derive(ToSchema, Serialize)]
pub struct Role {
    /// `user` or `admin`.
    role: String,
}

/// Credits for somebody: `user_id` or `email` says whom.
#[derive(ToSchema, Serialize)]
pub struct Gift {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// 1 to 10,000.
    credits: i64,
    /// The gift's own name: made twice with one key, it is given once.
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_in_days: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(ToSchema, Serialize)]
pub struct GiftAnswer {
    gift: Movement,
}

/// A task without what was asked for, which is between its owner and the provider.
#[derive(ToSchema, Serialize)]
pub struct TaskRow {
    id: String,
    task_no: String,
    user_id: String,
    /// Its owner's address.
    email: String,
    status: String,
    failure_reason: Option<String>,
    external_provider: Option<String>,
    external_task_id: Option<String>,
    price: i64,
    attempts: i64,
    /// Unix seconds.
    next_attempt_at: Option<i64>,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds.
    updated_at: i64,
    /// Unix seconds.
    completed_at: Option<i64>,
}

#[derive(ToSchema, Serialize)]
pub struct Events {
    events: Vec<PaymentEvent>,
    limit: i64,
    offset: i64,
}

#[derive(ToSchema, Serialize)]
pub struct EventAnswer {
    event: Option<PaymentEvent>,
}

#[derive(ToSchema, Serialize)]
pub struct Audit {
    /// Whether no rule is broken.
    clean: bool,
    rules: Vec<Rule>,
}

#[derive(ToSchema, Serialize)]
pub struct Rule {
    id: String,
    rule: String,
    /// Rows.
    looked_at: i64,
    /// Rows that break it.
    violations: i64,
    /// The first of them.
    offenders: Vec<String>,
    /// Of the admins' log: the hash of its last act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<String>,
}

#[derive(ToSchema, Serialize)]
pub struct Act {
    seq: i64,
    /// Unix seconds.
    at: i64,
    admin_id: String,
    /// Null: it was no person but the settings.
    admin_email: Option<String>,
    /// `gift`, `role`, `replay` or `invalidate`.
    action: String,
    /// Whom or what it is about.
    subject: String,
    /// Null: it is about no person.
    subject_email: Option<String>,
    detail: BTreeMap<String, Value>,
    /// Of this act and the one before.
    hash: String,
}

#[derive(ToSchema, Serialize)]
pub struct Alarm {
    id: String,
    kind: String,
    subject: String,
    message: String,
    /// Unix seconds.
    opened_at: i64,
    /// Unix seconds: when it was last found so.
    seen_at: i64,
    /// Unix seconds; null: it is open.
    closed_at: Option<i64>,
    /// How often the operator was told.
    told: i64,
    /// Unix seconds; null: not yet.
    told_at: Option<i64>,
}

#[derive(ToSchema, Serialize)]
pub struct JobRun {
    id: String,
    job: String,
    /// Unix seconds.
    started_at: i64,
    /// Unix seconds.
    ended_at: Option<i64>,
    outcome: String,
    /// What it did, in the job's own words.
    report: Option<BTreeMap<String, Value>>,
}

#[derive(ToSchema, Serialize)]
pub struct CacheStats {
    total_keys: u64,
    keys_by_prefix: BTreeMap<String, u64>,
}

/// Which entries: those whose key begins so.
#[derive(ToSchema, Serialize)]
pub struct Invalidation {
    prefix: String,
}

#[derive(ToSchema, Serialize)]
pub struct Invalidated {
    deleted: u64,
}

#[derive(ToSchema, Serialize)]
pub struct Health {
    /// `ok` or `degraded` with 200, `down` with 503.
    status: String,
    database: bool,
    storage: bool,
    cache: bool,
}

#[derive(ToSchema, Serialize)]
pub struct Live {
    status: String,
}

/// What became of a task whose provider called.
#[derive(ToSchema, Serialize)]
pub struct TaskHeard {
    outcome: String,
}

/// What became of a payment event.
#[derive(ToSchema, Serialize)]
pub struct EventHeard {
    outcome: String,
}

/// What a run did: counts by kind, in the job's own words.
#[derive(ToSchema, Serialize)]
pub struct Report {
    job: String,
    /// `already_running` and `not_due`: this call began no run.
    outcome: String,
    /// The run's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(flatten)]
    counts: BTreeMap<String, Value>,
}

/// How the product does, in figures of this minute.
#[derive(ToSchema, Serialize)]
pub struct Overview {
    /// Unix seconds.
    at: i64,
    people: PeopleFigures,
    tasks: TaskFigures,
    money: MoneyFigures,
    operation: OperationFigures,
}

#[derive(ToSchema, Serialize)]
pub struct PeopleFigures {
    users: i64,
    new_users_24h: i64,
    credits_granted_24h: i64,
    credits_spent_24h: i64,
    credits_outstanding: i64,
}

#[derive(ToSchema, Serialize)]
pub struct TaskFigures {
    /// By status.
    last_24h: BTreeMap<String, i64>,
    running: i64,
    spend_today: Spend,
    /// Of those that came to an end: the share with pictures, 0 to 1; null: none did.
    success_rate_24h: Option<f64>,
}

#[derive(ToSchema, Serialize)]
pub struct Spend {
    pictures: i64,
    /// Null: there is none.
    limit: Option<i64>,
}

#[derive(ToSchema, Serialize)]
pub struct MoneyFigures {
    /// By currency.
    revenue: BTreeMap<String, Revenue>,
    /// By status.
    orders_24h: BTreeMap<String, i64>,
    /// By status.
    subscriptions: BTreeMap<String, i64>,
    open_events: i64,
}

/// In the currency's smallest unit.
#[derive(ToSchema, Serialize)]
pub struct Revenue {
    payments_24h: i64,
    paid_24h: i64,
    payments_30d: i64,
    paid_30d: i64,
    refunded_30d: i64,
}

#[derive(ToSchema, Serialize)]
pub struct OperationFigures {
    open_alarms: i64,
    /// By component.
    errors_last_hour: BTreeMap<String, i64>,
    jobs: Vec<LastRun>,
}

/// The last run of a job.
#[derive(ToSchema, Serialize)]
pub struct LastRun {
    job: String,
    /// Unix seconds.
    started_at: i64,
    /// Unix seconds.
    ended_at: Option<i64>,
    outcome: String,
}

/// A page of a list, in its own name.
macro_rules! pages {
    ($($name:ident $field:ident: $item:ty;)*) => {$(
        #[derive(ToSchema, Serialize)]
        pub struct $name {
            $field: Vec<$item>,
            limit: i64,
            offset: i64,
            /// Leads to the next page; null on the last.
            next_cursor: Option<String>,
        }
    )*};
}

pages! {
    Uploads uploads: Upload;
    Tasks tasks: View;
    Orders orders: Order;
    History history: Movement;
    Users users: UserWithCredits;
    TaskRows tasks: TaskRow;
    Log log: Act;
    Alarms alarms: Alarm;
    JobRuns runs: JobRun;
}
