//! Two hosts, one libSQL server, one Redis, one bucket: what has happened on one of them is so on the other, at once.
//!
//! The whole suite runs like this with `cargo xtask test --stores shared`; these few run always. Where the servers cannot be had, they say
//! so and pass.

use e2e::{CRON_SECRET, Options, World, hosts};
use http::Method;
use serde_json::{Value, json};

/// A world with two hosts, or a line that says why there is none.
async fn two_hosts_with(options: Options) -> Option<World> {
    if let Err(why) = tokio::task::spawn_blocking(hosts::programs).await.unwrap() {
        println!("skipped: {why}");
        return None;
    }
    Some(World::with(Options { two_hosts: true, ..options }).await)
}

async fn two_hosts() -> Option<World> {
    two_hosts_with(Options::default()).await
}

/// The same path on one host or the other.
fn on(world: &World, host: usize, path: &str) -> String {
    world.host(host).join(path).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_a_photo_and_a_picture_are_the_same_on_both() {
    let Some(world) = two_hosts().await else { return };
    let ada = world.sign_in("ada@example.com").await;
    for host in [0, 1] {
        let session = ada.get(200, &on(&world, host, "/auth/session")).await.json();
        assert_eq!(session["user"]["email"], "ada@example.com");
        assert_eq!(session["credits"], 3);
    }
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    for host in [0, 1] {
        let task = ada.get(200, &on(&world, host, &format!("/api/tasks/{task}"))).await.json()["task"].clone();
        assert_eq!(task["status"], "completed");
        assert!(ada.download(&on(&world, host, task["result_urls"][0].as_str().unwrap())).await.len() > 100);
    }
    let order = ada.begin_purchase("credits-10").await;
    assert_eq!(ada.pay(&order).await["status"], "completed");
    assert_eq!(ada.credits().await, 12);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_out_on_one_host_is_out_on_the_other_at_once() {
    let Some(world) = two_hosts().await else { return };
    let ada = world.sign_in("ada@example.com").await;
    let token = ada.token().unwrap();
    let stranger = world.stranger();
    let me = |host: usize| stranger.request(Method::GET, &on(&world, host, "/api/me")).bearer_auth(&token);
    // Both have the session in their cache, which is one.
    for host in [0, 1, 0, 1] {
        stranger.send(200, me(host)).await;
    }
    ada.post(204, &on(&world, 0, "/auth/logout")).await;
    for host in [1, 0] {
        stranger.send(401, me(host)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_taken_once_whichever_host_is_asked() {
    let Some(world) = two_hosts().await else { return };
    let ada = world.sign_in("ada@example.com").await;
    let body = json!({"upload_id": ada.any_upload().await, "hairstyles": ["bob-cut"]});
    let ask = async |host: usize| {
        let request = ada.request(Method::POST, &on(&world, host, "/api/tasks")).header("idempotency-key", "one-picture").json(&body);
        ada.ask(request).await
    };
    let answers = futures::join!(ask(0), ask(1), ask(0), ask(1));
    let answers = [answers.0, answers.1, answers.2, answers.3];
    assert!(answers.iter().all(|answer| [202, 409].contains(&answer.status)), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.status == 202));
    let [first, second] = [ask(0).await.json(), ask(1).await.json()];
    assert_eq!(first["tasks"][0]["task_no"], second["tasks"][0]["task_no"]);
    assert_eq!(world.sql_number("SELECT count(*) FROM ai_tasks"), 1);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_credit_is_spent_once_whichever_hosts_are_asked() {
    let Some(world) = two_hosts().await else { return };
    let ada = world.sign_in("ada@example.com").await;
    world.db_leave_credits(&ada.id().await, 1);
    let body = json!({"upload_id": ada.any_upload().await, "hairstyles": ["bob-cut"]});
    let ask = async |number: usize| ada.ask(ada.request(Method::POST, &on(&world, number % 2, "/api/tasks")).json(&body)).await.status;
    let mut statuses = futures::future::join_all((0..10).map(ask)).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![202], vec![402; 9]].concat());
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_count_across_hosts() {
    let variables = [("rate_limit_per_hour".to_owned(), "4".to_owned())].into();
    let Some(world) = two_hosts_with(Options { variables, ..Options::default() }).await else { return };
    let ada = world.sign_in("ada@example.com").await;
    let mut statuses = Vec::new();
    for number in 0..8 {
        let request = ada.request(Method::POST, &on(&world, number % 2, "/api/orders")).json(&json!({"product_id": "credits-10"}));
        statuses.push(ada.ask(request).await.status);
    }
    assert_eq!(statuses, [vec![201; 4], vec![429; 4]].concat(), "{}", world.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_hosts_sweep_at_once_and_nothing_is_done_twice() {
    let Some(world) = two_hosts().await else { return };
    let ada = world.sign_in("ada@example.com").await;
    world.fault(sandbox::Fault::KieNoCallback);
    let tasks = ada.order(&["bob-cut", "quiff"]).await;
    let order = ada.begin_purchase("credits-10").await;
    world.db_tasks_are_due();
    world.db_payments_are_due();
    let stranger = world.stranger();
    let sweep = async |host: usize, path: &str| {
        let answer = stranger.ask(stranger.request(Method::POST, &on(&world, host, path)).bearer_auth(CRON_SECRET)).await;
        // Whoever comes second is told that somebody is at it.
        assert!([200, 409].contains(&answer.status), "{answer}{}", world.tail());
    };
    for path in ["/internal/cleanup", "/internal/tasks", "/internal/reconcile"] {
        futures::join!(sweep(0, path), sweep(1, path), sweep(0, path), sweep(1, path));
    }
    for task in &tasks {
        world
            .until("the sweeps to finish", async || {
                world.db_tasks_are_due();
                futures::join!(sweep(0, "/internal/tasks"), sweep(1, "/internal/tasks"));
                let task = ada.task(task).await;
                if task["status"] == "completed" { Ok(()) } else { Err(task.to_string()) }
            })
            .await;
    }
    assert_eq!(world.objects().iter().filter(|key| key.starts_with("result/")).count(), 2, "{:?}", world.objects());
    assert_eq!(ada.pay(&order).await["status"], "completed");
    assert_eq!(ada.credits().await, 11);
    world.assert_books_balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_down_costs_speed_and_nothing_else() {
    let Some(world) = two_hosts().await else { return };
    let ada = world.sign_in("ada@example.com").await;
    let task = ada.order_one().await;
    ada.wait_completed(&task).await;
    world.with_shared(|stores| stores.redis.kill());
    for host in [0, 1] {
        assert_eq!(ada.get(200, &on(&world, host, "/api/me")).await.json()["user"]["email"], "ada@example.com");
        assert_eq!(ada.get(200, &on(&world, host, &format!("/api/tasks/{task}"))).await.json()["task"]["status"], "completed");
        let health = ada.ask(ada.request(Method::GET, &on(&world, host, "/health"))).await.json();
        assert_ne!(health["status"], "ok", "{health}");
    }
    let second = ada.order_one().await;
    ada.wait_completed(&second).await;
    world.with_shared(|stores| stores.redis.resume()).unwrap();
    world.until("health", async || healthy(&world, &ada).await).await;
    world.assert_books_balance();
}

async fn healthy(world: &World, person: &e2e::Person) -> Result<(), String> {
    for host in [0, 1] {
        let answer = person.ask(person.request(Method::GET, &on(world, host, "/health"))).await;
        if answer.status != 200 || answer.json()["status"] != json!("ok") {
            return Err(answer.to_string());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_down_is_503_at_once_and_good_again_when_it_is_back() {
    let Some(world) = two_hosts().await else { return };
    let ada = world.sign_in("ada@example.com").await;
    let upload = ada.any_upload().await;
    world.with_shared(|stores| stores.sqld.kill());
    let body = json!({"upload_id": upload, "hairstyles": ["bob-cut"]});
    for host in [0, 1] {
        let answer = ada.ask(ada.request(Method::POST, &on(&world, host, "/api/tasks")).json(&body)).await;
        assert_eq!(answer.status, 503, "{answer}{}", world.tail());
        answer.problem("service_unavailable");
        assert!(!answer.header("retry-after").is_empty(), "{answer}");
    }
    world.with_shared(|stores| stores.sqld.resume()).unwrap();
    // The connections that the components kept are gone with the server; nobody notices.
    let task: Value = ada.post_json(202, &on(&world, 0, "/api/tasks"), &body).await.json();
    ada.wait_completed(task["tasks"][0]["task_no"].as_str().unwrap()).await;
    world.assert_books_balance();
    assert!(!world.logs().iter().any(|line| line.contains("\"trap\"")), "{}", world.tail());
}

/// How often a second something is answered with this status, by 16 clients on these hosts for four seconds.
async fn rate(world: &World, person: &e2e::Person, hosts: &[usize], expected: u16, ask: impl Fn(&str) -> reqwest::RequestBuilder) -> f64 {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(4);
    let (ask, person) = (&ask, &person);
    let client = async |number: usize| {
        let base = world.host(hosts[number % hosts.len()]).as_str().trim_end_matches('/');
        let (mut done, mut other) = (0_u32, 0_u32);
        while std::time::Instant::now() < end {
            if person.ask(ask(base)).await.status == expected { done += 1 } else { other += 1 }
        }
        (done, other)
    };
    let counts = futures::future::join_all((0..16).map(client)).await;
    let other: u32 = counts.iter().map(|count| count.1).sum();
    if other > 0 {
        println!("  ({other} were answered otherwise)");
    }
    f64::from(counts.iter().map(|count| count.0).sum::<u32>()) / 4.0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for docs/scaling.md"]
async fn how_much_one_host_and_two_hosts_do() {
    let variables: std::collections::BTreeMap<String, String> =
        [("signup_credits", "100000"), ("rate_limit_per_hour", "0"), ("daily_picture_limit", "0")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
    let options = |two_hosts| Options { two_hosts, variables: variables.clone(), ..Options::default() };
    for (what, two_hosts, hosts) in
        [("one host, files", false, &[0][..]), ("one host, shared stores", true, &[0]), ("two hosts, shared stores", true, &[0, 1])]
    {
        let world = World::with(options(two_hosts)).await;
        let ada = world.sign_in("ada@example.com").await;
        world.fault(sandbox::Fault::KieDelay { ms: 600_000 });
        let body = json!({"upload_id": ada.any_upload().await, "hairstyles": ["bob-cut"]});
        let sessions = rate(&world, &ada, hosts, 200, |base| ada.request(Method::GET, &format!("{base}/auth/session"))).await;
        let orders = rate(&world, &ada, hosts, 202, |base| ada.request(Method::POST, &format!("{base}/api/tasks")).json(&body)).await;
        println!("{what}: {sessions:.0} reads of a session, {orders:.0} orders of a picture a second");
    }
}
