//! Schedulers: whatever calls the sweeps calls all of them, and Spin's cron plugin does so by a component of its own, tried here as the
//! plugin would run it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};

use e2e::{CRON_SECRET, SWEEPS, World, root};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wasmtime::component::{Component, ComponentType, Lift, Linker, Lower, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// `spin-cron.toml`.
fn schedule() -> toml::Table {
    std::fs::read_to_string(root().join("spin-cron.toml")).unwrap().parse().unwrap()
}

/// The schedule's components and the paths each of them calls.
fn paths() -> BTreeMap<String, Vec<String>> {
    let words = |component: &toml::Value| component["variables"]["paths"].as_str().unwrap().split_whitespace().map(str::to_owned).collect();
    schedule()["component"].as_table().unwrap().iter().map(|(name, component)| (name.clone(), words(component))).collect()
}

#[test]
fn every_list_of_what_a_scheduler_calls_is_complete() {
    let routes: BTreeSet<String> = e2e::manifest()["trigger"]["http"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|trigger| trigger["route"].as_str().filter(|route| route.starts_with("/internal/")).map(str::to_owned))
        .collect();
    let sorted = |paths: Vec<&str>| {
        let set: BTreeSet<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(set.len(), paths.len(), "{paths:?}");
        set
    };
    assert_eq!(sorted(SWEEPS.to_vec()), routes, "tests/src/lib.rs");
    assert_eq!(sorted(paths().values().flatten().map(String::as_str).collect()), routes, "spin-cron.toml");
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (host, docs) = (read("host/src/main.rs"), read("docs/scheduling.md"));
    for route in routes {
        assert!(host.contains(&format!("\"{route}\",")), "{route} is not called by host/src/main.rs");
        assert!(docs.contains(&format!("| `{route}` |")), "{route} has no row in docs/scheduling.md");
    }
}

#[test]
fn the_schedule_has_a_manifest_of_its_own_and_reaches_nothing_but_the_app() {
    assert!(e2e::manifest()["trigger"].get("cron").is_none(), "spin up would need the plugin");
    let schedule = schedule();
    let triggers = schedule["trigger"].as_table().unwrap();
    assert_eq!(triggers.keys().collect::<Vec<_>>(), ["cron"]);
    let called: BTreeSet<&str> =
        triggers["cron"].as_array().unwrap().iter().map(|trigger| trigger["component"].as_str().unwrap()).collect();
    for trigger in triggers["cron"].as_array().unwrap() {
        let expression = trigger["cron_expression"].as_str().unwrap();
        assert_eq!(expression.split(' ').count(), 6, "{expression}: seconds first, no year");
    }
    for (name, component) in schedule["component"].as_table().unwrap() {
        assert!(called.contains(name.as_str()), "{name} is never called");
        assert_eq!(component["allowed_outbound_hosts"].as_array().unwrap(), &["{{ app_url }}".into()], "{name}");
        for right in ["sqlite_databases", "key_value_stores"] {
            assert!(component.get(right).is_none(), "{name}: {right}");
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Metadata {
    timestamp: u64,
}

#[derive(ComponentType, Lift, Debug)]
#[component(variant)]
enum CronError {
    #[component(name = "other")]
    Other(String),
}

#[derive(ComponentType, Lower)]
#[component(variant)]
#[allow(dead_code, reason = "a variant has all its cases")]
enum VariableError {
    #[component(name = "invalid-name")]
    InvalidName(String),
    #[component(name = "undefined")]
    Undefined(String),
    #[component(name = "provider")]
    Provider(String),
    #[component(name = "other")]
    Other(String),
}

/// What the plugin gives a component: WASI 0.2 and the variables of the manifest.
struct Host {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    variables: BTreeMap<String, String>,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: Default::default() }
    }
}

/// The component, compiled once.
fn component() -> &'static Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        let file = root().join(schedule()["component"]["every-minute"]["source"].as_str().unwrap());
        assert!(file.is_file(), "{} is missing: run `cargo xtask build scheduler` first", file.display());
        Component::from_file(&Engine::default(), file).unwrap()
    })
}

/// One tick: an instance of its own, as the plugin makes it.
async fn tick(app: &str, secret: &str, paths: &[String]) -> Result<(), String> {
    let component = tokio::task::spawn_blocking(component).await.unwrap();
    let engine = component.engine();
    let mut linker = Linker::<Host>::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).unwrap();
    let mut variables = linker.instance("fermyon:spin/variables@2.0.0").unwrap();
    variables
        .func_wrap("get", |store, (name,): (String,)| {
            let value = store.data().variables.get(&name).cloned();
            Ok((value.ok_or(VariableError::Undefined(name)),))
        })
        .unwrap();
    let variables = [("app_url", app.to_owned()), ("cron_secret", secret.to_owned()), ("paths", paths.join("\n"))];
    let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let host = Host { wasi: WasiCtxBuilder::new().build(), http: WasiHttpCtx::new(), table: ResourceTable::new(), variables };
    let mut store = Store::new(engine, host);
    let instance = linker.instantiate_async(&mut store, component).await.unwrap();
    let event = instance.get_typed_func::<(Metadata,), (Result<(), CronError>,)>(&mut store, "handle-cron-event").unwrap();
    let (result,) = event.call_async(&mut store, (Metadata { timestamp: 1_800_000_000 },)).await.unwrap();
    result.map_err(|CronError::Other(text)| text)
}

/// A server that answers every request with this status and keeps what was asked: request line and `authorization`.
async fn listener(status: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heard) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && connection.read_buf(&mut head).await.unwrap_or_default() > 0 {}
                let head = String::from_utf8_lossy(&head).into_owned();
                let lines: Vec<&str> =
                    head.lines().filter(|line| line.contains("HTTP/") || line.to_lowercase().starts_with("authorization")).collect();
                kept.lock().unwrap().push(lines.join(" "));
                let _ =
                    connection.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await;
            });
        }
    });
    (address, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cron_plugins_component_calls_what_the_schedule_names_and_nothing_else() {
    for (name, paths) in paths() {
        let (app, heard) = listener("200 OK").await;
        // With a slash at its end, and the secret while it is being exchanged.
        tick(&format!("{app}/"), " new-secret, old-secret", &paths).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut heard = heard.lock().unwrap().clone();
        heard.sort();
        let mut expected: Vec<String> = paths.iter().map(|path| format!("POST {path} HTTP/1.1 authorization: Bearer new-secret")).collect();
        expected.sort();
        assert_eq!(heard, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cron_plugins_component_tells_what_went_wrong_and_not_the_secret() {
    let paths = ["/internal/cleanup".to_owned(), "/internal/tasks".to_owned()];
    let (app, heard) = listener("503 Service Unavailable").await;
    let told = tick(&app, "the-secret", &paths).await.unwrap_err();
    assert_eq!(told, "/internal/cleanup: status 503; /internal/tasks: status 503");
    assert_eq!(heard.lock().unwrap().len(), 2, "one that fails does not keep the others from being called");
    let nobody = tick("http://127.0.0.1:1", "the-secret", &paths).await.unwrap_err();
    assert!(nobody.contains("/internal/tasks") && !nobody.contains("the-secret"), "{nobody}");
    let strange = tick("127.0.0.1:1", "the-secret", &paths).await.unwrap_err();
    assert!(strange.contains("app_url") && !strange.contains("the-secret"), "{strange}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_of_the_cron_plugin_runs_the_sweeps() {
    let world = World::new().await;
    for paths in paths().values() {
        tick(world.address().as_str(), CRON_SECRET, paths).await.unwrap();
    }
    let runs = world.sql("SELECT job, outcome FROM job_runs ORDER BY job");
    assert_eq!(runs.len(), SWEEPS.len());
    assert!(runs.contains(&vec![json!("cleanup"), json!("done")]), "{runs:?}");
    let told = tick(world.address().as_str(), "wrong", &["/internal/cleanup".to_owned()]).await.unwrap_err();
    assert_eq!(told, "/internal/cleanup: status 401");
}
