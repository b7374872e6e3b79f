//! `/internal/alarms`: what goes wrong is told once when it begins, once a day while it lasts, and once when it is over.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use e2e::{Answer, CRON_SECRET, Options, Person, World, now, product_with};
use http::Method;
use sandbox::Fault;
use serde_json::{Value, json};

const SECRET: &str = "e2e-alarm-secret-31c9";
const PATH: &str = "/services/T0/B0/e2e-webhook-path-77aa";

/// Whoever is told: a webhook that keeps what it is sent.
#[derive(Clone)]
struct Receiver {
    host: String,
    heard: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    answers: Arc<AtomicU16>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Self { host, heard: Arc::default(), answers: Arc::new(AtomicU16::new(204)) };
        let hear = async |State(receiver): State<Receiver>, headers: HeaderMap, body: String| {
            let status = receiver.answers.load(Ordering::SeqCst);
            if status < 400 {
                receiver.heard.lock().unwrap().push((headers, body));
            }
            StatusCode::from_u16(status).unwrap()
        };
        let app = axum::Router::new().route(PATH, axum::routing::post(hear)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        receiver
    }

    fn variables(&self) -> Vec<(String, String)> {
        let own = [
            ("alarm_webhook_url", format!("{}{PATH}", self.host)),
            ("alarm_webhook_host", self.host.clone()),
            ("alarm_webhook_secret", SECRET.to_owned()),
        ];
        own.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn refuse(&self, status: u16) {
        self.answers.store(status, Ordering::SeqCst);
    }

    /// What was heard since the last time, each alarm as `state kind subject`.
    fn news(&self) -> Vec<String> {
        let bodies: Vec<_> = self.heard.lock().unwrap().drain(..).map(|(_, body)| body).collect();
        let messages = bodies.iter().map(|body| serde_json::from_str::<Value>(body).unwrap());
        messages.flat_map(|message| message["alarms"].as_array().unwrap().clone()).map(|alarm| line(&alarm)).collect()
    }
}

fn line(alarm: &Value) -> String {
    ["state", "kind", "subject"].map(|field| alarm[field].as_str().unwrap().to_owned()).join(" ")
}

async fn world() -> (World, Receiver) {
    let receiver = Receiver::start().await;
    let world = World::with(Options { variables: receiver.variables().into_iter().collect(), ..Options::default() }).await;
    (world, receiver)
}

/// A scheduler's call, whatever comes of it.
async fn call(world: &World) -> Answer {
    let scheduler = world.stranger();
    scheduler.ask(scheduler.request(Method::POST, "/internal/alarms").bearer_auth(CRON_SECRET)).await
}

/// One that should go well.
async fn look(world: &World) -> Value {
    let answer = call(world).await;
    assert_eq!(answer.status, 200, "{answer}{}", world.tail());
    answer.json()
}

/// Lets so many seconds pass for all alarms.
fn time_passes(world: &World, seconds: i64) {
    world.db_write(
        "UPDATE alarms SET opened_at = opened_at - ?1, seen_at = seen_at - ?1, tell_at = tell_at - ?1, told_at = told_at - ?1",
        [seconds],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_is_well_nobody_hears_anything() {
    let (world, receiver) = world().await;
    let report = look(&world).await;
    assert_eq!((&report["wrong"], &report["opened"], &report["told"]), (&json!(0), &json!(0), &json!(0)), "{report}");
    assert!(report["checks"].as_u64().unwrap() > 30, "{report}");
    assert_eq!(receiver.news(), [""; 0]);
    assert_eq!(world.sql_number("SELECT count(*) FROM alarms"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_told_once_then_daily_and_when_it_is_back() {
    let (world, receiver) = world().await;
    world.storage_down();
    assert_eq!(look(&world).await["told"], 1);
    let (headers, body) = receiver.heard.lock().unwrap()[0].clone();
    assert_eq!(receiver.news(), ["opened store_down storage"]);

    // For people with Slack or Discord, for programs, and signed.
    let message: Value = serde_json::from_str(&body).unwrap();
    assert!(
        message["text"].as_str().unwrap().contains("ALARM: store_down (storage): The storage does not answer as it should."),
        "{message}"
    );
    assert_eq!(message["text"], message["content"]);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(
        headers["x-alarm-signature"].to_str().unwrap(),
        format!("sha256={}", sandbox::signature::creem_webhook(SECRET, body.as_bytes()))
    );
    assert!(headers["traceparent"].to_str().unwrap().starts_with("00-"));

    for _ in 0..3 {
        look(&world).await;
    }
    assert_eq!(receiver.news(), [""; 0], "it was told");
    time_passes(&world, 86_401);
    look(&world).await;
    look(&world).await;
    assert_eq!(receiver.news(), ["still_open store_down storage"]);

    world.control().clear_faults();
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0], "it may go again at once");
    time_passes(&world, 601);
    look(&world).await;
    look(&world).await;
    assert_eq!(receiver.news(), ["resolved store_down storage"]);
    assert_eq!(world.sql_number("SELECT count(*) FROM alarms WHERE tell_at IS NULL AND closed_at IS NOT NULL AND told = 3"), 1);

    // The same trouble later is another alarm.
    world.storage_down();
    look(&world).await;
    assert_eq!(receiver.news(), ["opened store_down storage"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_and_goes_is_one_alarm() {
    let (world, receiver) = world().await;
    for _ in 0..3 {
        world.storage_down();
        look(&world).await;
        world.control().clear_faults();
        look(&world).await;
    }
    assert_eq!(receiver.news(), ["opened store_down storage"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_could_not_be_told_is_told_by_the_next_run() {
    let (world, receiver) = world().await;
    world.storage_down();
    for status in [500, 429, 404] {
        receiver.refuse(status);
        let answer = call(&world).await;
        assert_eq!((answer.status, &answer.json()["untold"]), (503, &json!(1)), "the scheduler hears of it: {answer}");
    }
    assert_eq!(world.events("alarms_not_told").len(), 3);
    receiver.refuse(204);
    look(&world).await;
    look(&world).await;
    assert_eq!(receiver.news(), ["opened store_down storage"]);
    // Neither is its end lost.
    world.control().clear_faults();
    time_passes(&world, 601);
    receiver.refuse(503);
    assert_eq!(call(&world).await.status, 503);
    receiver.refuse(204);
    look(&world).await;
    assert_eq!(receiver.news(), ["resolved store_down storage"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_look_at_once_tell_once() {
    let (world, receiver) = world().await;
    world.storage_down();
    let answers = futures::future::join_all((0..6).map(|_| call(&world))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(receiver.news(), ["opened store_down storage"]);
    // And one that dies while it tells leaves it to another, a minute later.
    world.db_write("UPDATE alarms SET teller = 'dead', told = 0, tell_at = ?1", [now() + 60]);
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0]);
    time_passes(&world, 61);
    look(&world).await;
    assert_eq!(receiver.news(), ["opened store_down storage"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_alarms_are_in_the_log() {
    let world = World::new().await;
    world.storage_down();
    assert_eq!(look(&world).await["told"], 1);
    look(&world).await;
    let alarms = world.events("alarm");
    assert_eq!(alarms.iter().map(line).collect::<Vec<_>>(), ["opened store_down storage"]);
    assert_eq!(alarms[0]["level"], "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_place_that_the_manifest_allows_is_posted_to() {
    let receiver = Receiver::start().await;
    let elsewhere = [("alarm_webhook_url".to_owned(), format!("{}{PATH}", receiver.host))].into();
    let world = World::with(Options { variables: elsewhere, ..Options::default() }).await;
    world.storage_down();
    assert_eq!(call(&world).await.status, 503);
    let told = world.events("alarms_not_told");
    assert!(told[0]["cause"].as_str().unwrap().contains("alarm_webhook_host"), "{told:?}");
    assert!(!world.logs().iter().any(|line| line.contains("e2e-webhook-path")), "who knows the address may post to it{}", world.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_that_fail_are_an_alarm_and_a_few_are_not() {
    let receiver = Receiver::start().await;
    let variables = receiver.variables().into_iter().chain([("alarm_errors_per_five_minutes".to_owned(), "3".to_owned())]).collect();
    let world = World::with(Options { variables, ..Options::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::CreemApiAnswers { status: 500 });
    let buy = async || ada.post_json(502, "/api/orders", &json!({"product_id": "credits-10"})).await;
    for _ in 0..3 {
        buy().await;
    }
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0]);
    buy().await;
    assert_eq!(world.sql("SELECT component, sum(errors) FROM request_errors GROUP BY component"), [[json!("orders"), json!(4)]]);
    look(&world).await;
    assert_eq!(receiver.news(), ["opened error_rate requests"]);
    // Refusals are no errors.
    ada.post_json(422, "/api/orders", &json!({"product_id": "none"})).await;
    assert_eq!(world.sql_number("SELECT sum(errors) FROM request_errors"), 4);
    world.db_write("UPDATE request_errors SET minute = minute - 5", []);
    time_passes(&world, 601);
    look(&world).await;
    assert_eq!(receiver.news(), ["resolved error_rate requests"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_account_is_empty_is_told() {
    let (world, receiver) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::KieCreateAnswers { code: 402, msg: None, http_status: None }.once());
    ada.order_one().await;
    look(&world).await;
    assert_eq!(receiver.news(), ["opened provider_out_of_credits kie"]);
    world.db_write("UPDATE signals SET seen_at = seen_at - 1801", []);
    time_passes(&world, 601);
    look(&world).await;
    assert_eq!(receiver.news(), ["resolved provider_out_of_credits kie"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_our_key_is_told() {
    let receiver = Receiver::start().await;
    let keys = ["kie_api_key", "creem_api_key"].map(|name| (name.to_owned(), "of another environment".to_owned()));
    let variables = receiver.variables().into_iter().chain(keys).collect();
    let world = World::with(Options { variables, ..Options::default() }).await;
    let ada = world.sign_in("ada@example.com").await;
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0]);
    ada.order_one().await;
    look(&world).await;
    assert_eq!(receiver.news(), ["opened provider_refuses_key kie"]);
    ada.post_json(502, "/api/orders", &json!({"product_id": "credits-10"})).await.problem("provider_unavailable");
    look(&world).await;
    assert_eq!(receiver.news(), ["opened provider_refuses_key creem"]);
    world.db_write("UPDATE signals SET seen_at = seen_at - 1801", []);
    time_passes(&world, 601);
    look(&world).await;
    assert_eq!(receiver.news().len(), 2, "both are over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_left_alone_is_told() {
    let (world, receiver) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    world.fault(Fault::CreemApiAnswers { status: 503 });
    for _ in 0..5 {
        ada.post_json(502, "/api/orders", &json!({"product_id": "credits-10"})).await;
    }
    look(&world).await;
    assert_eq!(receiver.news(), ["opened provider_left_alone creem"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_should_be_over_and_is_not_is_told() {
    let (world, receiver) = world().await;
    world.fault(Fault::KieNoCallback);
    let ada = world.sign_in("ada@example.com").await;
    ada.order_one().await;
    world.db_write("UPDATE ai_tasks SET created_at = created_at - 3601", []);
    world.db_write("INSERT INTO erasures (user_id, asked_at, next_look_at) VALUES ('somebody', 1, 1)", []);
    look(&world).await;
    let mut news = receiver.news();
    news.sort();
    assert_eq!(news, ["opened audit_violated I7a", "opened erasure_cut_off erasures", "opened overdue O1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_rule_of_the_books_is_told_and_looked_for_once_an_hour() {
    let (world, receiver) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    look(&world).await;
    let due = "SELECT count(*) FROM json_each((SELECT position FROM job_runs WHERE job = 'alarms' ORDER BY rowid DESC LIMIT 1), '$.due') WHERE value > unixepoch() + 3500";
    // And the admins' log.
    assert_eq!(world.sql_number(due), i64::try_from(audit::INVARIANTS.len() + 1).unwrap());
    // Somebody with the keys to the database tampers with it.
    tamper(&world);
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0], "within the hour it is not looked again");
    rules_move(&world, -3_700);
    look(&world).await;
    let news = receiver.news();
    assert!(news.contains(&"opened audit_violated I1a".to_owned()), "{news:?}");
    let (_, open) = overview(&world, &ada).await;
    let words = open.to_string();
    assert!(
        words.contains("GET /api/admin/audit") && !words.contains("ada@") && !words.contains(&ada.id().await),
        "nothing about persons: {words}"
    );
    // What was not looked at stays open.
    time_passes(&world, 3_600);
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0]);
}

/// Moves the time at which each rule is audited next.
fn rules_move(world: &World, seconds: i64) {
    world.db_write("DROP TRIGGER IF EXISTS job_runs_end_once", []);
    let sql = "UPDATE job_runs SET position = json_set(position, '$.due', \
                   json((SELECT json_group_object(key, value + ?1) FROM json_each(position, '$.due')))) WHERE position IS NOT NULL";
    world.db_write(sql, [seconds]);
}

/// Breaks a rule of the books.
fn tamper(world: &World) {
    world.db_write("DROP TRIGGER IF EXISTS credit_lots_mirror", []);
    world.db_write("UPDATE credit_lots SET remaining = remaining - 1", []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_rule_is_told_wherever_the_look_at_it_was_cut_off() {
    let (world, receiver) = world().await;
    world.sign_in("ada@example.com").await;
    tamper(&world);
    // It is the first rule: found by about the fifteenth call of the look.
    for at in 1..=30 {
        world.db_write("DELETE FROM job_runs", []);
        world.db_write("DELETE FROM alarms", []);
        world.crash_at("alarm-cron", at, host::Moment::Before);
        call(&world).await;
        assert!(world.crashed(), "{at}");
        // The lease of the one that was cut off passes.
        world.db_write("UPDATE job_runs SET leased_until = started_at WHERE outcome = 'running'", []);
        look(&world).await;
        assert_eq!(world.sql_number("SELECT count(*) FROM alarms WHERE subject = 'I1a'"), 1, "cut off at call {at}");
        time_passes(&world, 61);
        look(&world).await;
        let news = receiver.news();
        assert!(news.contains(&"opened audit_violated I1a".to_owned()), "cut off at call {at}: {news:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_the_admins_that_was_changed_or_cut_is_told() {
    let (world, receiver) = world().await;
    for number in 0..3 {
        world.db_act("cache", &format!("prefix-{number}"), &json!({"deleted": 0}), now());
    }
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0]);
    // It grows.
    world.db_act("cache", "prefix-3", &json!({"deleted": 0}), now());
    rules_move(&world, -3_700);
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0]);
    // What is left of it is a chain.
    world.db_write("DROP TRIGGER admin_log_no_delete", []);
    world.db_write("DELETE FROM admin_log WHERE seq = 4", []);
    rules_move(&world, -3_700);
    look(&world).await;
    assert_eq!(receiver.news(), ["opened audit_violated L1"]);
    // Another act in its place does not hide it, and the alarm stays.
    world.db_act("cache", "prefix-4", &json!({"deleted": 0}), now());
    rules_move(&world, -3_700);
    time_passes(&world, 601);
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0]);

    let (world, receiver) = self::world().await;
    world.db_act("cache", "prefix", &json!({"deleted": 0}), now());
    world.db_write("DROP TRIGGER admin_log_no_update", []);
    world.db_write("UPDATE admin_log SET subject = 'another'", []);
    look(&world).await;
    assert_eq!(receiver.news(), ["opened audit_violated L1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_a_month_ahead_keeps_no_rule_from_being_audited() {
    let (world, receiver) = world().await;
    world.sign_in("ada@example.com").await;
    look(&world).await;
    rules_move(&world, 30 * 86_400);
    tamper(&world);
    look(&world).await;
    let news = receiver.news();
    assert!(news.contains(&"opened audit_violated I1a".to_owned()), "{news:?}");
}

/// The key figures and the open alarms, as an admin sees them.
async fn overview(world: &World, person: &Person) -> (Value, Value) {
    world.db_write("UPDATE users SET role = 'admin'", []);
    (person.get(200, "/api/admin/overview").await.json(), person.get(200, "/api/admin/alarms?state=open").await.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_run_or_fails_is_told() {
    let (world, receiver) = world().await;
    let run = |id: &str, job: &str, ago: i64, outcome: &str| {
        let sql = "INSERT INTO job_runs (id, job, started_at, leased_until) VALUES (?1, ?2, ?3, ?3 + 1)";
        world.db_write(sql, (id, job, now() - ago));
        world.db_write("UPDATE job_runs SET ended_at = started_at, outcome = ?2 WHERE id = ?1", (id, outcome));
    };
    // Somebody has watched for long.
    run("a", "alarms", 30 * 3_600, "done");
    run("b", "tasks", 60, "done");
    run("c", "cleanup", 27 * 3_600, "done");
    run("d", "reconcile", 3 * 3_600, "done");
    for (number, outcome) in ["failed", "cut_off", "failed"].into_iter().enumerate() {
        run(&format!("e{number}"), "reconcile", 3_600 - i64::try_from(number).unwrap(), outcome);
    }
    look(&world).await;
    let mut news = receiver.news();
    news.sort();
    assert_eq!(news, ["opened job_failing reconcile", "opened job_late backup", "opened job_late cleanup"]);
    // A backup that a wrong clock has put into next month is none, and three that failed after it are the last ones.
    run("f", "backup", -30 * 86_400, "done");
    run("g", "tasks", -30 * 86_400, "done");
    for number in 0..3 {
        run(&format!("h{number}"), "tasks", 10, "failed");
    }
    time_passes(&world, 601);
    look(&world).await;
    assert_eq!(receiver.news(), ["opened job_failing tasks"], "the backup is late as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cleanup_found_lost_or_would_not_believe_is_told() {
    let (world, receiver) = world().await;
    let cleaned = |id: &str, walk: Value| {
        world.db_write(
            "INSERT INTO job_runs (id, job, started_at, leased_until) VALUES (?1, 'cleanup', unixepoch(), unixepoch() + 1)",
            [id],
        );
        let report = json!({"walk": walk}).to_string();
        world.db_write("UPDATE job_runs SET ended_at = started_at, outcome = 'done', report = ?2 WHERE id = ?1", (id, report));
    };
    cleaned("a", json!({"doubted": 0, "lost_results": 0, "round_ended": true}));
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0]);
    // A large bucket is walked by several runs, and what the first one found is not forgotten by the others.
    cleaned("b", json!({"doubted": 101, "lost_results": 0, "round_ended": false}));
    cleaned("c", json!({"doubted": 0, "lost_results": 2, "round_ended": false}));
    cleaned("d", json!({"doubted": 0, "lost_results": 0, "round_ended": true}));
    look(&world).await;
    let mut news = receiver.news();
    news.sort();
    assert_eq!(news, ["opened cleanup_doubts bucket", "opened results_lost pictures"]);
    cleaned("e", json!({"error": "storage_unavailable"}));
    time_passes(&world, 601);
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0], "it has not been walked anew");
    cleaned("f", json!({"doubted": 0, "lost_results": 0, "round_ended": true}));
    time_passes(&world, 601);
    look(&world).await;
    let mut news = receiver.news();
    news.sort();
    assert_eq!(news, ["resolved cleanup_doubts bucket", "resolved results_lost pictures"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_comes_to_no_end_is_told_though_somebody_sweeps() {
    let (world, receiver) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    ada.any_upload().await;
    // The bucket takes everything and removes nothing.
    for method in ["POST", "DELETE"] {
        world.fault(Fault::S3Answers { status: 403, method: Some(method.into()), prefix: None });
    }
    ada.delete(202, "/api/me").await;
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0], "it has an hour");
    world.db_write("UPDATE erasures SET asked_at = asked_at - 3601, next_look_at = 0", []);
    let scheduler = world.stranger();
    let sweep = async || scheduler.ask(scheduler.request(Method::POST, "/internal/cleanup").bearer_auth(CRON_SECRET)).await;
    sweep().await;
    assert!(world.sql_number("SELECT next_look_at > unixepoch() FROM erasures") == 1, "the sweep went on with it{}", world.tail());
    look(&world).await;
    assert_eq!(receiver.news(), ["opened erasure_cut_off erasures"]);
    world.control().clear_faults();
    world.db_write("UPDATE erasures SET next_look_at = 0", []);
    sweep().await;
    time_passes(&world, 601);
    look(&world).await;
    assert_eq!(receiver.news(), ["resolved erasure_cut_off erasures"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_between_two_looks_are_counted_however_late_the_second_is() {
    let (world, receiver) = world().await;
    look(&world).await;
    // The look was a while ago, and twenty-one requests failed in the minute after it; then all went well.
    let later = |seconds: i64| {
        world.db_write("DELETE FROM request_errors", []);
        world.db_write("UPDATE job_runs SET started_at = started_at - ?1", [seconds]);
    };
    let at = now();
    let failed = |ago: i64, errors: i64| {
        let sql = "INSERT INTO request_errors (minute, component, errors) VALUES (?1, 'orders', ?2)";
        world.db_write(sql, [(at - ago) / 60, errors]);
    };
    for (ago, subject) in [(400, "five minutes"), (1_500, "twenty-five minutes")] {
        later(ago);
        failed(ago - 60, 21);
        look(&world).await;
        assert_eq!(receiver.news(), ["opened error_rate requests"], "{subject}");
        later(0);
        time_passes(&world, 601);
        look(&world).await;
        assert_eq!(receiver.news(), ["resolved error_rate requests"], "{subject}");
    }
    // As many as are borne in five minutes may fail in each five of a quarter of an hour.
    later(1_000);
    for number in 1..=15 {
        failed(number * 60, 4);
    }
    // What a clock that is a month ahead has counted is not of today.
    failed(-30 * 86_400, 1_000);
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_day_s_last_picture_is_told() {
    let receiver = Receiver::start().await;
    let variables = receiver.variables().into_iter().chain([("daily_picture_limit".to_owned(), "1".to_owned())]).collect();
    let world = World::with(Options { variables, ..Options::default() }).await;
    world.sign_in("ada@example.com").await.order_one().await;
    look(&world).await;
    assert_eq!(receiver.news(), ["opened daily_limit_reached pictures"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_nothing_is_told_all_the_same() {
    let receiver = Receiver::start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let cache = folder.path().join("kv.db");
    let key_value = Some(host::KvLocation::File(cache.clone()));
    let world = World::with(Options { key_value, variables: receiver.variables().into_iter().collect(), ..Options::default() }).await;
    let writer = world.db_hold_the_pen();
    let answer = call(&world).await;
    answer.problem("service_unavailable");
    assert_eq!(receiver.news(), ["opened store_down database"]);
    // Once.
    assert_eq!(call(&world).await.status, 503);
    assert_eq!(receiver.news(), [""; 0]);
    drop(writer);
    look(&world).await;
    assert_eq!(receiver.news(), [""; 0], "it may go again at once");
    // Ten minutes later.
    let store = rusqlite::Connection::open(&cache).unwrap();
    store.busy_timeout(e2e::PATIENCE).unwrap();
    let earlier = "UPDATE spin_key_value SET value = CAST(json_set(CAST(value AS TEXT), '$.value[0].seen_at', unixepoch() - 601) AS BLOB) WHERE key = 'temp:outage'";
    assert_eq!(store.execute(earlier, []).unwrap(), 1);
    look(&world).await;
    look(&world).await;
    assert_eq!(receiver.news(), ["resolved store_down database"]);
    let open = world.sql("SELECT kind, subject, told FROM alarms WHERE closed_at IS NOT NULL AND tell_at IS NULL");
    assert_eq!(open, [[json!("store_down"), json!("database"), json!(2)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_fails_is_told_too() {
    let receiver = Receiver::start().await;
    let variables = receiver.variables().into_iter().chain([("alarm_errors_per_five_minutes".to_owned(), "many".to_owned())]).collect();
    let world = World::with(Options { variables, ..Options::default() }).await;
    assert_eq!(call(&world).await.status, 500);
    assert_eq!(receiver.news(), [""; 0], "once may have been a moment's trouble");
    for _ in 0..2 {
        assert_eq!(call(&world).await.status, 500);
    }
    assert_eq!(receiver.news(), ["opened alarms_failing alarms"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_fails_now_and_then_is_not_told() {
    let (world, receiver) = world().await;
    for _ in 0..2 {
        // A table away is a database that answers and a look that fails.
        world.db_write("ALTER TABLE signals RENAME TO signals_elsewhere", []);
        assert_eq!(call(&world).await.status, 500);
        world.db_write("ALTER TABLE signals_elsewhere RENAME TO signals", []);
        look(&world).await;
    }
    assert_eq!(receiver.news(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_trouble_without_rows_is_told_beside_the_first() {
    let (world, receiver) = world().await;
    world.db_write("ALTER TABLE signals RENAME TO signals_elsewhere", []);
    for _ in 0..2 {
        assert_eq!(call(&world).await.status, 500);
    }
    assert_eq!(receiver.news(), ["opened alarms_failing alarms"]);
    // The worse one comes while the first is known.
    let writer = world.db_hold_the_pen();
    for _ in 0..2 {
        assert_eq!(call(&world).await.status, 503);
    }
    assert_eq!(receiver.news(), ["opened store_down database"]);
    drop(writer);
    assert_eq!(call(&world).await.status, 500);
    assert_eq!(receiver.news(), [""; 0], "both were told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_down_is_told() {
    let receiver = Receiver::start().await;
    let without_cache = |manifest: &mut toml::Table| {
        manifest["component"]["alarm-cron"].as_table_mut().unwrap().remove("key_value_stores").unwrap();
    };
    let runtime = tokio::task::spawn_blocking(move || product_with(without_cache)).await.unwrap();
    let options = Options { runtime: Some(runtime), variables: receiver.variables().into_iter().collect(), ..Options::default() };
    let world = World::with(options).await;
    look(&world).await;
    look(&world).await;
    assert_eq!(receiver.news(), ["opened store_down cache"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_scheduler_may_look() {
    let (world, _) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    ada.post(401, "/internal/alarms").await.problem("unauthenticated");
    ada.get(405, "/internal/alarms").await.problem("method_not_allowed");
    assert_eq!(world.sql_number("SELECT count(*) FROM job_runs"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_long_over_is_forgotten() {
    let (world, _) = world().await;
    let sql =
        "INSERT INTO alarms (id, kind, subject, message, opened_at, seen_at, closed_at, tell_at) VALUES (?1, 'k', 's', 'm', 1, 1, ?2, ?3)";
    world.db_write(sql, ("over", Some(2), None::<i64>));
    world.db_write("INSERT INTO request_errors (minute, component, errors) VALUES (1, 'c', 5)", []);
    look(&world).await;
    assert_eq!(world.sql_number("SELECT (SELECT count(*) FROM alarms) + (SELECT count(*) FROM request_errors)"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_see_how_the_product_does() {
    let (world, _) = world().await;
    world.fault(Fault::CreemWebhookDrop);
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    ada.begin_purchase("credits-50").await;
    let done = ada.order_one().await;
    ada.wait_completed(&done).await;
    world.fault(Fault::KieFail { code: 501, msg: None }.once());
    let failed = ada.order_one().await;
    ada.wait_failed(&failed).await;
    world.fault(Fault::CreemApiAnswers { status: 500 }.once());
    ada.post_json(502, "/api/orders", &json!({"product_id": "credits-10"})).await;
    world.storage_down();
    look(&world).await;

    let (figures, open) = overview(&world, &ada).await;
    let people = &figures["people"];
    assert_eq!((&people["users"], &people["new_users_24h"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&people["credits_granted_24h"], &people["credits_spent_24h"], &people["credits_outstanding"]),
        (&json!(13), &json!(1), &json!(12))
    );
    let tasks = &figures["tasks"];
    assert_eq!((&tasks["last_24h"], &tasks["running"]), (&json!({"completed": 1, "failed": 1}), &json!(0)));
    assert_eq!((&tasks["success_rate_24h"], &tasks["spend_today"]), (&json!(0.5), &json!({"pictures": 2, "limit": 5_000})));
    let money = &figures["money"];
    let paid = world.sql_number("SELECT amount_paid FROM orders WHERE status = 'completed'");
    assert_eq!(
        money["revenue"]["USD"],
        json!({"payments_24h": 1, "paid_24h": paid, "payments_30d": 1, "paid_30d": paid, "refunded_30d": 0})
    );
    assert_eq!((&money["orders_24h"]["completed"], &money["orders_24h"]["pending"]), (&json!(1), &json!(1)));
    assert_eq!((&money["subscriptions"], &money["open_events"]), (&json!({}), &json!(0)));
    let operation = &figures["operation"];
    assert_eq!((&operation["open_alarms"], &operation["errors_last_hour"]), (&json!(1), &json!({"orders": 1})));
    assert_eq!((&operation["jobs"][0]["job"], &operation["jobs"][0]["outcome"]), (&json!("alarms"), &json!("done")));

    assert_eq!(open["alarms"].as_array().unwrap().iter().map(|alarm| alarm["subject"].clone()).collect::<Vec<_>>(), ["storage"]);
    assert_eq!(ada.get(200, "/api/admin/alarms?state=closed").await.json()["alarms"], json!([]));
    ada.get(422, "/api/admin/alarms?state=lost").await.problem("invalid_input");
    let runs = ada.get(200, "/api/admin/jobs?limit=1").await.json();
    assert_eq!((&runs["runs"][0]["job"], &runs["runs"][0]["report"]["told"]), (&json!("alarms"), &json!(1)));
    look(&world).await;
    let newest = ada.get(200, "/api/admin/jobs?job=alarms&limit=1").await.json();
    let cursor = newest["next_cursor"].as_str().unwrap();
    let before = ada.get(200, &format!("/api/admin/jobs?job=alarms&cursor={cursor}")).await.json();
    assert_eq!(before["runs"][0]["id"], runs["runs"][0]["id"]);
    assert_eq!(ada.get(200, "/api/admin/jobs?job=none").await.json()["runs"], json!([]));
    // The figures are those of the minute.
    assert_eq!(overview(&world, &ada).await.0, figures);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_two_weeks_are_told_day_by_day() {
    let (world, _) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    world.sign_in("bob@example.com").await;
    let order = ada.begin_purchase("credits-10").await;
    ada.pay(&order).await;
    for _ in 0..3 {
        let task = ada.order_one().await;
        ada.wait_completed(&task).await;
    }
    // One of each long ago, and one five days ago.
    let tasks = "SELECT id FROM ai_tasks ORDER BY created_at, id LIMIT 1 OFFSET";
    world.db_write(&format!("UPDATE ai_tasks SET created_at = created_at - 20 * 86400 WHERE id = ({tasks} 0)"), []);
    world.db_write(&format!("UPDATE ai_tasks SET created_at = created_at - 5 * 86400 WHERE id = ({tasks} 1)"), []);
    world.db_write("UPDATE users SET created_at = created_at - 20 * 86400 WHERE email = 'bob@example.com'", []);
    world.db_write("UPDATE orders SET paid_at = paid_at - 5 * 86400", []);
    let number = |sql: &str| world.sql_number(sql);
    let (figures, _) = overview(&world, &ada).await;
    let mut by_day = figures["tasks"]["by_day"].as_array().unwrap().clone();
    by_day.sort_by_key(|entry| entry["day"].as_i64());
    let days = [1, 2].map(|offset| number(&format!("SELECT created_at / 86400 FROM ai_tasks ORDER BY created_at LIMIT 1 OFFSET {offset}")));
    assert_eq!(by_day, days.map(|day| json!({"day": day, "status": "completed", "number": 1})), "{figures}");
    let joined = number("SELECT created_at / 86400 FROM users WHERE email = 'ada@example.com'");
    assert_eq!(figures["people"]["by_day"], json!([{"day": joined, "new_users": 1}]));
    let (day, paid) = (number("SELECT paid_at / 86400 FROM orders"), number("SELECT amount_paid FROM orders"));
    assert_eq!(figures["money"]["by_day"], json!([{"day": day, "currency": "USD", "payments": 1, "paid": paid}]));
    assert_eq!(figures["money"]["revenue"]["USD"]["payments_24h"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_s_payments_are_revenue_once() {
    let (world, _) = world().await;
    let ada = world.sign_in("ada@example.com").await;
    let order = ada.begin_purchase("basic-monthly").await;
    ada.pay(&order).await;
    let paid = world.sql_number("SELECT sum(amount_paid) FROM subscription_periods");
    let (figures, _) = overview(&world, &ada).await;
    assert_eq!(figures["money"]["revenue"]["USD"]["paid_24h"], json!(paid), "{figures}");
    assert_eq!(figures["money"]["revenue"]["USD"]["payments_24h"], 1);
    assert_eq!(figures["money"]["subscriptions"], json!({"active": 1}));
}
