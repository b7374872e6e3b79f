//! The power goes at every host call of every flow, before it takes effect and after; then time passes, the sweeps run, and the books
//! must be right, with nothing left half done.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::{Person, World, photos};
use futures::join;
use host::Moment;
use http::Method;
use sandbox::{Fault, PaymentEvent, Service};
use serde_json::{Value, json};

/// Something that happens to the product, cut off once.
trait Flow {
    /// What there is before.
    type Stage;
    /// The component that crashes.
    const COMPONENT: &str;
    async fn prepare(&self, world: &World) -> Self::Stage;
    /// The part that is cut off: any answer will do.
    async fn act(&self, world: &World, stage: &Self::Stage);
    /// What the client, the buyer or a provider does when the answer is lost.
    async fn repeat(&self, _world: &World, _stage: &Self::Stage) {}
    async fn check(&self, _world: &World, _stage: &Self::Stage) {}
}

/// Crashes at the first, second, third, ... call until the flow passes undisturbed.
async fn walk<F: Flow>(flow: F) {
    for call in (1..).step_by(2) {
        let both = async |call| join!(crash(&flow, call, Moment::Before), crash(&flow, call, Moment::After));
        let (this, next) = join!(both(call), both(call + 1));
        if next == (false, false) {
            // With nothing crashing in between, this was no test.
            assert!(call > 1 || this != (false, false), "the flow makes no call that could be cut off");
            return;
        }
        assert!(call < 100, "it goes on for ever");
    }
}

/// One crash; answers whether it came to it.
async fn crash<F: Flow>(flow: &F, call: u64, moment: Moment) -> bool {
    let world = World::new().await;
    let stage = flow.prepare(&world).await;
    world.crash_at(F::COMPONENT, call, moment);
    flow.act(&world, &stage).await;
    let crashed = world.crashed();
    eprintln!("{} call {call} {moment:?}: {}", F::COMPONENT, if crashed { "crashed" } else { "passed" });
    flow.repeat(&world, &stage).await;
    settle(&world).await;
    check(&world);
    flow.check(&world, &stage).await;
    crashed
}

/// Lets all deadlines pass and the sweeps run, until nothing is open.
async fn settle(world: &World) {
    // What the provider is still going to say.
    tokio::time::sleep(Duration::from_millis(150)).await;
    // Claims pass; then deadlines; then what was cut off is an hour old.
    for seconds in [200, 1_000, 4_000, 0] {
        world.db_time_passes(seconds);
        world.db_payments_are_due();
        world.sweep().await;
    }
}

fn texts(world: &World, sql: &str) -> BTreeSet<String> {
    world.sql(sql).into_iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
}

/// What is true whatever was cut off.
fn check(world: &World) {
    world.assert_books_balance();
    assert_eq!(texts(world, "SELECT task_no FROM ai_tasks WHERE status IN ('pending', 'processing')"), BTreeSet::new(), "{}", world.tail());
    assert_eq!(texts(world, "SELECT id FROM payment_events WHERE status = 'received'"), BTreeSet::new(), "{}", world.tail());
    let objects: BTreeSet<String> = world.objects().into_iter().collect();
    // What is promised is there, and what is there can be found.
    let results = texts(world, "SELECT substr(value, 8) FROM ai_tasks, json_each(result_urls)");
    assert!(results.is_subset(&objects), "{results:?} are promised, there are {objects:?}");
    let stored = texts(world, "SELECT key FROM uploads WHERE status = 'stored' AND expires_at > unixepoch()");
    let photos: BTreeSet<String> = objects.iter().filter(|key| key.starts_with("cache/")).cloned().collect();
    assert_eq!(photos, stored, "{}", world.tail());
    // One picture at the provider for one charge, at most.
    let ordered = world.control().kie_tasks().len();
    let charged = usize::try_from(world.sql_number("SELECT count(*) FROM ai_tasks")).unwrap();
    assert!(ordered <= charged, "{ordered} pictures were ordered for {charged} tasks");
    // Every payment has its order, and every paid order its payment.
    let payments = world.control().checkouts().iter().filter(|checkout| checkout.status == "completed").count();
    assert_eq!(world.sql_number("SELECT count(*) FROM orders WHERE paid_at IS NOT NULL"), i64::try_from(payments).unwrap());
    for checkout in world.control().checkouts().iter().filter(|checkout| checkout.status == "completed") {
        let id = checkout.request_id.as_deref().unwrap();
        let paid = format!("SELECT count(*) FROM orders WHERE id IN ('{id}', '{id}-{}') AND paid_at IS NOT NULL", checkout.checkout_id);
        assert!(world.sql_number(&paid) >= 1, "{id} was paid{}", world.tail());
    }
}

async fn ada(world: &World) -> Person {
    world.sign_in("ada@example.com").await
}

struct SignIn;
impl Flow for SignIn {
    type Stage = (Person, String);
    const COMPONENT: &str = "auth";
    async fn prepare(&self, world: &World) -> Self::Stage {
        let person = world.stranger();
        let back = person.begin_sign_in("google", "ada@example.com", "/").await;
        (person, back)
    }
    async fn act(&self, _: &World, (person, back): &Self::Stage) {
        person.ask(person.request(Method::GET, back)).await;
    }
    async fn repeat(&self, world: &World, _: &Self::Stage) {
        assert_eq!(ada(world).await.credits().await, 3);
    }
    async fn check(&self, world: &World, _: &Self::Stage) {
        assert_eq!(world.sql("SELECT count(*), sum(credits) FROM users"), [[json!(1), json!(3)]]);
        assert_eq!(world.sql_number("SELECT count(*) FROM user_auth"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in() {
    walk(SignIn).await;
}

struct Upload {
    as_form: bool,
}
impl Flow for Upload {
    type Stage = Person;
    const COMPONENT: &str = "upload";
    async fn prepare(&self, world: &World) -> Person {
        ada(world).await
    }
    async fn act(&self, _: &World, person: &Person) {
        let request = if self.as_form {
            let mut body = Vec::new();
            for photo in ["portrait.jpg", "portrait.png"] {
                body.extend(format!("--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{photo}\"\r\n\r\n").into_bytes());
                body.extend(photos::read(photo));
                body.extend(b"\r\n");
            }
            body.extend(b"--x--\r\n");
            person.request(Method::POST, "/api/uploads").header("content-type", "multipart/form-data; boundary=x").body(body)
        } else {
            person.upload_request("image/jpeg", photos::read("portrait.jpg"))
        };
        // The connection may break while the photo is still being sent.
        let _ = request.send().await;
    }
    async fn repeat(&self, _: &World, person: &Person) {
        person.upload("portrait.jpg").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploading_a_photo() {
    walk(Upload { as_form: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploading_a_form() {
    walk(Upload { as_form: true }).await;
}

struct OrderPictures {
    key: Option<&'static str>,
}
impl OrderPictures {
    async fn send(&self, person: &Person) -> u16 {
        let body = json!({"upload_id": person.any_upload().await, "hairstyles": ["bob-cut", "quiff"]});
        let request = person.request(Method::POST, "/api/tasks").json(&body);
        let request = if let Some(key) = self.key { request.header("idempotency-key", key) } else { request };
        person.ask(request).await.status
    }
}
impl Flow for OrderPictures {
    type Stage = Person;
    const COMPONENT: &str = "task-create";
    async fn prepare(&self, world: &World) -> Person {
        let person = ada(world).await;
        person.any_upload().await;
        person
    }
    async fn act(&self, _: &World, person: &Person) {
        self.send(person).await;
    }
    async fn repeat(&self, world: &World, person: &Person) {
        if self.key.is_some() {
            // The claim of the one that was cut off has passed.
            world.db_write("UPDATE idempotency_keys SET claimed_until = 0 WHERE status IS NULL", []);
            assert_eq!(self.send(person).await, 202);
            assert_eq!(world.sql_number("SELECT count(*) FROM ai_tasks"), 2, "{}", world.tail());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ordering_pictures() {
    walk(OrderPictures { key: None }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ordering_pictures_with_a_key_and_again() {
    walk(OrderPictures { key: Some("k") }).await;
}

struct Callback;
impl Flow for Callback {
    type Stage = Person;
    const COMPONENT: &str = "task-callback";
    async fn prepare(&self, world: &World) -> Person {
        let person = ada(world).await;
        person.any_upload().await;
        person
    }
    async fn act(&self, world: &World, person: &Person) {
        person.order_one().await;
        // The provider tries again as long as it is told nothing.
        let heard = async || if world.control().deliveries().is_empty() { Err("no callback yet".to_owned()) } else { Ok(()) };
        world.until("the callback", heard).await;
    }
    async fn check(&self, world: &World, person: &Person) {
        assert_eq!(world.sql_text("SELECT status FROM ai_tasks"), "completed", "{}", world.tail());
        assert_eq!(person.credits().await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hearing_from_the_ai_provider() {
    walk(Callback).await;
}

struct Cancel;
impl Flow for Cancel {
    type Stage = (Person, String);
    const COMPONENT: &str = "tasks";
    async fn prepare(&self, world: &World) -> Self::Stage {
        let person = ada(world).await;
        world.fault(Fault::KieCreateAnswers { code: 429, msg: None, http_status: None });
        let task = person.order_one().await;
        (person, task)
    }
    async fn act(&self, _: &World, (person, task): &Self::Stage) {
        person.ask(person.request(Method::POST, &format!("/api/tasks/{task}/cancel"))).await;
    }
    async fn check(&self, _: &World, (person, _): &Self::Stage) {
        assert_eq!(person.credits().await, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_task() {
    walk(Cancel).await;
}

/// Somebody looks at a picture whose callback got lost.
struct Read;
impl Flow for Read {
    type Stage = (Person, String);
    const COMPONENT: &str = "tasks";
    async fn prepare(&self, world: &World) -> Self::Stage {
        let person = ada(world).await;
        world.fault(Fault::KieNoCallback);
        let task = person.order_one().await;
        let drawn = async || if world.control().kie_tasks()[0].outcome.is_some() { Ok(()) } else { Err("at work".to_owned()) };
        world.until("the picture", drawn).await;
        world.db_tasks_are_due();
        (person, task)
    }
    async fn act(&self, _: &World, (person, task): &Self::Stage) {
        person.ask(person.request(Method::GET, &format!("/api/tasks/{task}"))).await;
    }
    async fn check(&self, world: &World, (person, task): &Self::Stage) {
        assert_eq!(person.task(task).await["status"], "completed", "{}", world.tail());
        assert_eq!(person.credits().await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_a_task_whose_callback_got_lost() {
    walk(Read).await;
}

struct Buy {
    product: &'static str,
    key: Option<&'static str>,
}
impl Flow for Buy {
    type Stage = Person;
    const COMPONENT: &str = "orders";
    async fn prepare(&self, world: &World) -> Person {
        ada(world).await
    }
    async fn act(&self, _: &World, person: &Person) {
        let request = person.request(Method::POST, "/api/orders").json(&json!({"product_id": self.product}));
        let request = if let Some(key) = self.key { request.header("idempotency-key", key) } else { request };
        person.ask(request).await;
    }
    async fn repeat(&self, world: &World, person: &Person) {
        world.db_write("UPDATE idempotency_keys SET claimed_until = 0 WHERE status IS NULL", []);
        self.act(world, person).await;
        // Somebody pays whatever page there is.
        for checkout in world.control().checkouts() {
            let _ = world.control().pay(&checkout.checkout_id).await;
        }
    }
    async fn check(&self, world: &World, _: &Person) {
        // One order for one key, however often it was sent; a page that nobody was shown makes no other.
        if self.key.is_some() {
            assert_eq!(world.sql_number("SELECT count(*) FROM orders WHERE id NOT LIKE '%-ch_%'"), 1, "{}", world.tail());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_an_order() {
    walk(Buy { product: "credits-10", key: None }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_an_order_with_a_key_and_again() {
    walk(Buy { product: "credits-10", key: Some("k") }).await;
}

/// An order that waits to be paid, and what then happens at the provider.
struct Webhooks {
    product: &'static str,
    events: &'static [PaymentEvent],
    credits: i64,
    /// Whether creem sends again what was not answered.
    again: bool,
}
impl Flow for Webhooks {
    type Stage = (Person, String);
    const COMPONENT: &str = "order-webhook";
    async fn prepare(&self, world: &World) -> Self::Stage {
        let person = ada(world).await;
        let order = person.begin_purchase(self.product).await["id"].as_str().unwrap().to_owned();
        (person, order)
    }
    async fn act(&self, world: &World, (_, order): &Self::Stage) {
        for event in self.events {
            world.control().fire(order, event.clone()).await.unwrap();
        }
    }
    async fn repeat(&self, world: &World, (_, order): &Self::Stage) {
        if self.again {
            world.control().fire(order, PaymentEvent::Resend).await.unwrap();
        }
    }
    async fn check(&self, _: &World, (person, _): &Self::Stage) {
        assert_eq!(person.credits().await, self.credits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hearing_of_a_payment_and_its_refund() {
    let events = &[PaymentEvent::Pay, PaymentEvent::Refund { amount: Some(250), status: None }, PaymentEvent::Dispute];
    walk(Webhooks { product: "credits-10", events, credits: 3, again: true }).await;
}

/// What was cut off comes to light by asking.
#[tokio::test(flavor = "multi_thread")]
async fn hearing_of_a_payment_and_its_refund_that_are_never_sent_again() {
    let events = &[PaymentEvent::Pay, PaymentEvent::Refund { amount: Some(250), status: None }];
    walk(Webhooks { product: "credits-10", events, credits: 8, again: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hearing_of_a_plan() {
    let events = &[PaymentEvent::Pay, PaymentEvent::Renew, PaymentEvent::ScheduleCancel];
    walk(Webhooks { product: "pro-monthly", events, credits: 123, again: true }).await;
}

struct Return {
    product: &'static str,
    credits: i64,
    reloads: bool,
}
impl Flow for Return {
    type Stage = (Person, String);
    const COMPONENT: &str = "orders";
    async fn prepare(&self, world: &World) -> Self::Stage {
        world.fault(Fault::CreemWebhookDrop);
        let person = ada(world).await;
        person.begin_purchase(self.product).await;
        let checkout = world.control().checkouts()[0].checkout_id.clone();
        let back = world.control().pay(&checkout).await.unwrap().return_url.unwrap();
        (person, back)
    }
    async fn act(&self, _: &World, (person, back): &Self::Stage) {
        person.ask(person.request(Method::GET, back)).await;
    }
    async fn repeat(&self, world: &World, stage: &Self::Stage) {
        if self.reloads {
            self.act(world, stage).await;
        }
    }
    async fn check(&self, _: &World, (person, _): &Self::Stage) {
        assert_eq!(person.credits().await, self.credits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coming_back_from_paying() {
    walk(Return { product: "credits-10", credits: 13, reloads: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coming_back_from_paying_a_plan_and_never_again() {
    walk(Return { product: "pro-monthly", credits: 63, reloads: false }).await;
}

struct CancelPlan;
impl Flow for CancelPlan {
    type Stage = Person;
    const COMPONENT: &str = "orders";
    async fn prepare(&self, world: &World) -> Person {
        let person = ada(world).await;
        let order = person.begin_purchase("pro-monthly").await;
        person.pay(&order).await;
        person
    }
    async fn act(&self, _: &World, person: &Person) {
        person.ask(person.request(Method::POST, "/api/subscription/cancel")).await;
    }
    async fn check(&self, world: &World, person: &Person) {
        // Whether it was cancelled or not, both sides say the same.
        let plan: Value = person.get(200, "/api/subscription").await.json()["subscription"].clone();
        let there = world.control().subscriptions()[0].status.clone();
        assert_eq!(plan["ends_with_period"], there == "scheduled_cancel", "{plan} and {there}");
        assert_eq!(person.credits().await, 63);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_plan() {
    walk(CancelPlan).await;
}

/// A photo whose week is over, one that was put into the bucket and never completed, and somebody whose files are still there.
struct Sweep;
impl Flow for Sweep {
    type Stage = Person;
    const COMPONENT: &str = "cleanup-cron";
    async fn prepare(&self, world: &World) -> Person {
        let person = ada(world).await;
        person.any_upload().await;
        let old = person.upload("portrait.png").await["id"].as_str().unwrap().to_owned();
        world.db_write("UPDATE uploads SET expires_at = unixepoch() - 1 WHERE id = ?1", [old]);
        put_directly(&person).await;
        world.db_write("UPDATE uploads SET created_at = created_at - 4000 WHERE status = 'pending'", []);
        let gone = world.sign_in("grace@example.com").await;
        let task = gone.order_one().await;
        gone.wait_completed(&task).await;
        world.storage_down();
        gone.delete(202, "/api/me").await;
        world.control().clear_faults();
        world.db_write("UPDATE erasures SET next_look_at = 0", []);
        person
    }
    async fn act(&self, _: &World, person: &Person) {
        let request = person.request(Method::POST, "/internal/cleanup").bearer_auth(e2e::CRON_SECRET);
        person.ask(request).await;
    }
    async fn check(&self, world: &World, _: &Person) {
        assert_eq!(world.objects().len(), 1, "{:?}{}", world.objects(), world.tail());
        assert_eq!(world.sql_number("SELECT count(*) FROM erasures WHERE done_at IS NOT NULL AND next_look_at IS NULL"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeping_up() {
    walk(Sweep).await;
}

/// Begins a direct upload and puts the file there; answers the address that completes it.
async fn put_directly(person: &Person) -> String {
    let file = photos::read("portrait.webp");
    let wish = json!({"content_type": "image/webp", "size": file.len()});
    let upload = person.post_json(201, "/api/uploads/presign", &wish).await.json()["upload"].clone();
    let bucket = person.world.stranger();
    let put = bucket.request(Method::PUT, upload["put"]["url"].as_str().unwrap()).header("content-type", "image/webp").body(file);
    bucket.send(200, put).await;
    format!("/api/uploads/{}/complete", upload["id"].as_str().unwrap())
}

struct Complete;
impl Flow for Complete {
    type Stage = (Person, String);
    const COMPONENT: &str = "upload";
    async fn prepare(&self, world: &World) -> Self::Stage {
        let person = ada(world).await;
        let path = put_directly(&person).await;
        (person, path)
    }
    async fn act(&self, _: &World, (person, path): &Self::Stage) {
        person.ask(person.request(Method::POST, path)).await;
    }
    async fn repeat(&self, world: &World, (person, path): &Self::Stage) {
        // Whoever was at it is dead, and the claim passes.
        world.db_time_passes(301);
        person.post(200, path).await;
    }
    async fn check(&self, world: &World, (person, _): &Self::Stage) {
        assert_eq!(person.get(200, "/api/uploads").await.json()["uploads"].as_array().unwrap().len(), 1);
        assert_eq!(world.objects().len(), 1, "what was put there is gone, the upload is there: {:?}", world.objects());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn completing_a_direct_upload() {
    walk(Complete).await;
}

struct Erase;
impl Flow for Erase {
    type Stage = (Person, String);
    const COMPONENT: &str = "account";
    async fn prepare(&self, world: &World) -> Self::Stage {
        let person = ada(world).await;
        let order = person.begin_purchase("credits-10").await;
        person.pay(&order).await;
        let task = person.order_one().await;
        person.wait_completed(&task).await;
        let id = person.id().await;
        (person, id)
    }
    async fn act(&self, _: &World, (person, _): &Self::Stage) {
        person.ask(person.request(Method::DELETE, "/api/me")).await;
    }
    async fn repeat(&self, world: &World, (person, id): &Self::Stage) {
        // Whoever is still signed in has lost nothing, and asks again.
        let answer = person.ask(person.request(Method::DELETE, "/api/me")).await;
        assert!(matches!(answer.status, 200 | 401), "{answer}");
        assert_eq!(world.sql_number(&format!("SELECT count(*) FROM erasures WHERE user_id = '{id}'")), 1);
    }
    async fn check(&self, world: &World, (person, id): &Self::Stage) {
        person.get(401, "/api/me").await;
        assert_eq!(world.objects(), Vec::<String>::new(), "{}", world.tail());
        assert_eq!(world.sql_number(&format!("SELECT count(*) FROM users WHERE id = '{id}' AND email LIKE 'erased-%'")), 1);
        assert_eq!(world.sql_number("SELECT count(*) FROM erasures WHERE done_at IS NOT NULL AND next_look_at IS NULL"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn erasing_somebody() {
    walk(Erase).await;
}

struct Gift;
impl Flow for Gift {
    type Stage = (Person, Value);
    const COMPONENT: &str = "admin";
    async fn prepare(&self, world: &World) -> Self::Stage {
        let person = ada(world).await;
        world.db_act("role", &person.id().await, &json!({"role": "admin"}), e2e::now());
        let gift = json!({"user_id": person.id().await, "credits": 5, "key": "sorry"});
        (person, gift)
    }
    async fn act(&self, _: &World, (person, gift): &Self::Stage) {
        person.ask(person.request(Method::POST, "/api/admin/gifts").json(gift)).await;
    }
    async fn repeat(&self, world: &World, stage: &Self::Stage) {
        self.act(world, stage).await;
    }
    async fn check(&self, world: &World, (person, _): &Self::Stage) {
        assert_eq!(person.credits().await, 8);
        assert_eq!(world.sql_number("SELECT count(*) FROM admin_log WHERE action = 'gift'"), 1);
        assert_eq!(person.get(200, "/api/admin/audit").await.json()["clean"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_credits() {
    walk(Gift).await;
}

struct OneTap;
impl Flow for OneTap {
    type Stage = (Person, Value);
    const COMPONENT: &str = "auth";
    async fn prepare(&self, world: &World) -> Self::Stage {
        let person = world.stranger();
        let nonce = Some(person.one_tap_nonce().await);
        let wish = sandbox::Credential { email: "ada@example.com".into(), nonce, ..sandbox::Credential::default() };
        let body = json!({"credential": world.control().google_credential(&wish)});
        (person, body)
    }
    async fn act(&self, _: &World, (person, body): &Self::Stage) {
        person.ask(person.request(Method::POST, "/auth/google").json(body)).await;
    }
    async fn check(&self, world: &World, _: &Self::Stage) {
        // The token is used up; the person comes again, and is one person.
        assert_eq!(ada(world).await.credits().await, 3);
        assert_eq!(world.sql_number("SELECT count(*) FROM users"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_with_googles_button() {
    walk(OneTap).await;
}

/// A task whose callback never came and one that the provider could not take yet.
struct SweepTasks;
impl Flow for SweepTasks {
    type Stage = Person;
    const COMPONENT: &str = "task-cron";
    async fn prepare(&self, world: &World) -> Person {
        let person = ada(world).await;
        world.fault(Fault::KieNoCallback);
        person.order_one().await;
        world.fault(Fault::KieCreateAnswers { code: 429, msg: None, http_status: None }.once());
        person.order(&["quiff"]).await;
        world.db_tasks_are_due();
        person
    }
    async fn act(&self, _: &World, person: &Person) {
        tokio::time::sleep(Duration::from_millis(120)).await;
        let request = person.request(Method::POST, "/internal/tasks").bearer_auth(e2e::CRON_SECRET);
        person.ask(request).await;
    }
    async fn check(&self, world: &World, person: &Person) {
        let (failed, credits) = (world.sql_number("SELECT count(*) FROM ai_tasks WHERE status = 'failed'"), person.credits().await);
        assert_eq!(credits, 1 + failed, "{}", world.tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeping_tasks() {
    walk(SweepTasks).await;
}

/// Nobody told of anything: a pack was paid and half refunded, a plan paid and renewed.
struct Reconcile;
impl Flow for Reconcile {
    type Stage = Person;
    const COMPONENT: &str = "reconcile-cron";
    async fn prepare(&self, world: &World) -> Person {
        world.fault(Fault::CreemWebhookDrop);
        let person = ada(world).await;
        let pack = person.begin_purchase("credits-10").await["id"].as_str().unwrap().to_owned();
        let plan = person.begin_purchase("pro-monthly").await["id"].as_str().unwrap().to_owned();
        let control = world.control();
        control.fire(&pack, PaymentEvent::Pay).await.unwrap();
        control.fire(&pack, PaymentEvent::Refund { amount: Some(250), status: None }).await.unwrap();
        control.fire(&plan, PaymentEvent::Pay).await.unwrap();
        control.fire(&plan, PaymentEvent::Renew).await.unwrap();
        world.db_payments_are_due();
        person
    }
    async fn act(&self, _: &World, person: &Person) {
        let request = person.request(Method::POST, "/internal/reconcile").bearer_auth(e2e::CRON_SECRET);
        person.ask(request).await;
    }
    async fn check(&self, world: &World, person: &Person) {
        assert_eq!(person.credits().await, 3 + 5 + 120, "{}", world.tail());
        assert!(world.heard(Service::Creem, "GET") > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reconciling() {
    walk(Reconcile).await;
}
