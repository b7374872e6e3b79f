//! The rights of `spin.toml` are kept at run time, and placeholders are good for this machine only.

use e2e::{Options, World, photos, product_with};
use http::Method;

fn component<'t>(manifest: &'t mut toml::Table, name: &str) -> &'t mut toml::Table {
    manifest["component"][name].as_table_mut().unwrap()
}

async fn world_with(change: impl FnOnce(&mut toml::Table) + Send + 'static) -> World {
    let runtime = tokio::task::spawn_blocking(move || product_with(change)).await.unwrap();
    World::with(Options { runtime: Some(runtime), ..Default::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_reaches_no_host_its_manifest_does_not_name() {
    let world = world_with(|manifest| {
        component(manifest, "upload").remove("allowed_outbound_hosts").unwrap();
    })
    .await;
    let ada = world.sign_in("ada@example.com").await;
    let answer = ada.send(503, ada.upload_request("image/jpeg", photos::read("portrait.jpg"))).await;
    answer.problem("storage_unavailable");
    assert_eq!(world.control().calls_to(sandbox::Service::S3).len(), 0);
    let refusals = world.events("not_allowed");
    let told = refusals.first().unwrap_or_else(|| panic!("nobody is told what is missing{}", world.tail()));
    assert_eq!(told["component"], "upload");
    let line = told["allow"].as_str().unwrap();
    for part in ["allowed_outbound_hosts", "[component.upload]", world.places().s3.as_str()] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_without_the_cache_asks_the_database() {
    let world = world_with(|manifest| {
        component(manifest, "account").remove("key_value_stores").unwrap();
    })
    .await;
    let ada = world.sign_in("ada@example.com").await;
    let answer = ada.get(200, "/api/me").await;
    assert_eq!(answer.json()["user"]["email"], "ada@example.com");
    assert!(world.events("cache_failed").len() == 1, "{}", world.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_without_the_database_says_it_is_its_own_fault() {
    let world = world_with(|manifest| {
        component(manifest, "account").remove("sqlite_databases").unwrap();
    })
    .await;
    let ada = world.sign_in("ada@example.com").await;
    ada.get(500, "/api/me").await.problem("internal");
    assert!(world.logs().iter().any(|line| line.contains("sqlite_databases")), "{}", world.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_not_given_is_named_in_the_log_only() {
    let world = world_with(|manifest| {
        component(manifest, "tasks")["variables"].as_table_mut().unwrap().remove("session_secret").unwrap();
    })
    .await;
    let answer = world.stranger().get(500, "/api/hairstyles").await;
    answer.problem("internal");
    assert!(!String::from_utf8_lossy(&answer.body).contains("session_secret"), "{answer}");
    assert!(world.logs().iter().any(|line| line.contains("session_secret")), "{}", world.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_placeholders_for_secrets_nothing_serves_strangers() {
    let placeholders = ["session_secret", "cron_secret", "data_encryption_key"].map(|name| (name, format!("loopback-only-{name}")));
    let variables = placeholders.map(|(name, value)| (name.to_owned(), value)).into();
    let world = World::with(Options { public_url: Some("https://app.example".into()), variables, ..Default::default() }).await;
    let everybody = [
        ("auth", Method::GET, "/auth/session"),
        ("upload", Method::GET, "/api/uploads"),
        ("upload", Method::GET, "/files/cache/u/1_a.jpg"),
        ("task-create", Method::GET, "/api/tasks"),
        ("tasks", Method::GET, "/api/hairstyles"),
        ("task-events", Method::GET, "/api/tasks/TASK_1/events"),
        ("task-callback", Method::POST, "/webhooks/kie/x"),
        ("orders", Method::GET, "/api/products"),
        ("order-webhook", Method::POST, "/webhooks/creem"),
        ("account", Method::GET, "/api/me"),
        ("admin", Method::GET, "/api/admin/audit"),
        ("cleanup-cron", Method::POST, "/internal/cleanup"),
        ("task-cron", Method::POST, "/internal/tasks"),
        ("reconcile-cron", Method::POST, "/internal/reconcile"),
        ("backup-cron", Method::POST, "/internal/backup"),
        ("alarm-cron", Method::POST, "/internal/alarms"),
        ("health", Method::GET, "/health/live"),
    ];
    let stranger = world.stranger();
    for (name, method, path) in everybody {
        let answer = stranger.send(500, stranger.request(method, path)).await;
        answer.problem("internal");
        assert!(!String::from_utf8_lossy(&answer.body).contains("loopback-only"), "{answer}");
        let line =
            world.events("request").into_iter().rfind(|line| line["component"] == name).unwrap_or_else(|| panic!("{name}{}", world.tail()));
        let cause = line["cause"].as_str().unwrap();
        assert!(cause.starts_with("variable ") && cause.contains("placeholder"), "{name}: {cause}");
        assert!(!cause.contains("loopback-only-"), "the value itself is not for the log: {cause}");
    }
}
