//! What the host promises its components, tried with a guest that misbehaves on demand (`host/probe`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use host::{App, AppConfig, Crash, HostCalls, KvLocation, LogSink, Moment, Runtime};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

const MANIFEST: &str = r#"
spin_manifest_version = 2
[application]
name = "probe"
[variables]
known = { default = "a value" }
[[trigger.http]]
route = "/..."
component = "probe"
[[trigger.http]]
route = "/with/:name"
component = "probe"
[[trigger.http]]
route = "/poor/..."
component = "poor"
[[trigger.http]]
route = "/fixed"
static_response = { status_code = 418, headers = { x-made-of = "toml" }, body = "short and stout" }
[component.probe]
source = "PROBE"
sqlite_databases = ["default"]
key_value_stores = ["default"]
allowed_outbound_hosts = ["http://127.0.0.1:1"]
[component.probe.variables]
known = "{{ known }}"
[component.poor]
source = "PROBE"
"#;

/// One compiled runtime for all tests.
fn runtime() -> Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let load = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("in a workspace");
        let wasm = root.join("target/wasm/wasm32-wasip2/release/probe.wasm");
        assert!(wasm.exists(), "{} is not there: run `cargo xtask build probe` first", wasm.display());
        let folder = tempfile::tempdir().expect("a folder").keep();
        let manifest = folder.join("spin.toml");
        std::fs::write(&manifest, MANIFEST.replace("PROBE", &wasm.display().to_string())).expect("written");
        Runtime::load_with(&manifest, &root.join("target/wasmtime-cache")).expect("the probe loads")
    };
    RUNTIME.get_or_init(load).clone()
}

struct Probe {
    app: App,
    log: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

async fn probe() -> Probe {
    probe_with(|_| {}).await
}

async fn probe_with(change: impl FnOnce(&mut AppConfig)) -> Probe {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Arc::default();
    let mut config = AppConfig {
        sqlite: BTreeMap::from([("default".to_owned(), PathBuf::from(folder.path()).join("a.db").into())]),
        key_value: BTreeMap::from([("default".to_owned(), KvLocation::Memory)]),
        access_log: LogSink::Capture(Arc::clone(&log)),
        ..AppConfig::default()
    };
    change(&mut config);
    Probe { app: runtime().start(config).await.expect("starts"), log, _folder: folder }
}

impl Probe {
    async fn get(&self, path: &str) -> Response<Bytes> {
        self.app.handle(Request::get(path).body(Bytes::new()).expect("a request")).await
    }

    async fn told(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}: {:?}", self.log());
        serde_json::from_slice(response.body()).expect("JSON")
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().expect("not poisoned").clone()
    }

    fn logged(&self, text: &str) -> bool {
        self.log().iter().any(|line| line.contains(text))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_reaches_what_its_manifest_names_and_nothing_else() {
    let probe = probe().await;
    assert_eq!(probe.told("/database?default").await, json!({"Ok": 1}));
    assert_eq!(probe.told("/store?default").await, json!({"Ok": ["b"]}));
    assert_eq!(probe.told("/variable?known").await, json!({"Ok": "a value"}));
    // Allowed, but nobody is there.
    assert!(probe.told("/fetch?http://127.0.0.1:1/").await["Err"].as_str().expect("refused").contains("ConnectionRefused"));

    assert!(probe.told("/database?other").await["Err"].is_string());
    assert!(probe.told("/store?other").await["Err"].is_string());
    assert!(probe.told("/variable?unknown").await["Err"].is_string());
    assert!(probe.told("/fetch?http://127.0.0.1:2/").await["Err"].as_str().expect("denied").contains("Denied"));
    for line in [
        r#"\"other\" to sqlite_databases of [component.probe]"#,
        r#"\"other\" to key_value_stores"#,
        "unknown = {{ unknown }}",
        r#"\"http://127.0.0.1:2\" to allowed_outbound_hosts"#,
    ] {
        assert!(probe.logged(line), "no line says {line}: {:#?}", probe.log());
    }
}

/// The probe makes three statements: a table, a row, a count.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_ends_an_instance_before_or_after_its_nth_call() {
    let probe = probe().await;
    let crash = |call, moment| probe.app.crash(Crash { component: Some("probe".into()), call, moment });
    assert_eq!(probe.told("/database?default").await, json!({"Ok": 1}));
    crash(2, Moment::Before);
    assert_eq!(probe.get("/database?default").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(probe.app.crashed());
    // The next request finds a fresh instance; the row of the one that crashed was never written.
    assert_eq!(probe.told("/database?default").await, json!({"Ok": 2}));
    crash(2, Moment::After);
    assert_eq!(probe.get("/database?default").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(probe.told("/database?default").await, json!({"Ok": 4}));
    // Beyond the last call nothing happens, and another component's calls don't count.
    crash(4, Moment::Before);
    assert_eq!(probe.told("/database?default").await, json!({"Ok": 5}));
    assert!(!probe.app.crashed());
    probe.app.crash(Crash { component: Some("poor".into()), call: 1, moment: Moment::Before });
    assert_eq!(probe.told("/database?default").await, json!({"Ok": 6}));
    assert!(!probe.app.crashed());
    // Key-value and outbound calls are calls, too.
    crash(3, Moment::Before);
    assert_eq!(probe.get("/store?default").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    crash(1, Moment::After);
    assert_eq!(probe.get("/fetch?http://127.0.0.1:1/").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(probe.app.crashed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_answers_500_is_logged_and_hurts_no_later_request() {
    let probe = probe().await;
    let response =
        probe.app.handle(Request::get("/panic").header("x-request-id", "the-bad-one").body(Bytes::new()).expect("a request")).await;
    assert_eq!((response.status(), response.body().len()), (StatusCode::INTERNAL_SERVER_ERROR, 0));
    assert_eq!(probe.told("/served").await, json!(1), "a new instance");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !probe.logged("\"event\":\"trap\"") && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let log = probe.log();
    assert!(
        log.iter().any(|line| line.contains("\"component_failed\"") && line.contains("the-bad-one") && line.contains("probe")),
        "{log:#?}"
    );
    assert!(log.iter().any(|line| line.contains("\"trap\"")), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("as asked")), "the guest's own words: {log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_serves_many_requests() {
    let probe = probe().await;
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(probe.told("/served").await.as_u64().expect("a number"));
    }
    assert!(most > 1, "every request had an instance of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_is_cut_and_others_are_served_meanwhile() {
    let probe = probe_with(|config| config.request_timeout = Duration::from_millis(300)).await;
    let (looping, _) = tokio::join!(probe.get("/forever"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(probe.told("/served").await, json!(1));
    });
    assert_eq!(looping.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_left_half_read_hangs_nobody() {
    let probe = probe_with(|config| config.request_timeout = Duration::from_secs(20)).await;
    assert_eq!(probe.told("/half-read").await, json!({"Ok": 0}));
    assert_eq!(probe.told("/database?default").await, json!({"Ok": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_calls_are_counted_for_the_request_that_made_them() {
    let probe = probe_with(|config| config.expose_counters = true).await;
    let calls = |response: &Response<Bytes>| *response.extensions().get::<HostCalls>().expect("counted");
    // Several at once in one instance: each must see its own.
    let (databases, stores) = tokio::join!(
        futures::future::join_all((0..8).map(|_| probe.get("/database?default"))),
        futures::future::join_all((0..8).map(|_| probe.get("/store?default"))),
    );
    for response in &databases {
        assert_eq!(calls(response), HostCalls { sqlite: 3, sqlite_opens: 1, ..HostCalls::default() });
        assert!(response.headers()["x-host-calls"].to_str().expect("text").starts_with("sqlite=3 kv=0"));
    }
    for response in &stores {
        assert_eq!(calls(response), HostCalls { kv: 4, ..HostCalls::default() });
    }
    assert_eq!(probe.app.call_counters().sqlite, 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_look_as_they_do_in_spin() {
    let probe = probe().await;
    let request = Request::get("/with/a%20name?x=1").header("host", "app.test").header("spin-client-addr", "6.6.6.6:1").body(Bytes::new());
    let response = probe.app.handle(request.expect("a request")).await;
    let seen: Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(seen, json!({"path": "/with/a%20name"}));
    let response = probe
        .app
        .handle(
            Request::get("/seen?x=1")
                .header("host", "app.test")
                .header("spin-client-addr", "6.6.6.6:1")
                .body(Bytes::new())
                .expect("a request"),
        )
        .await;
    let seen: Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(seen["uri"], "http://app.test/seen?x=1");
    let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).expect("pairs");
    let all = |name: &str| headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    // Appended after the forged one: the last value counts.
    assert_eq!(all("spin-client-addr"), ["6.6.6.6:1", "127.0.0.1:0"]);
    assert_eq!(all("spin-path-info"), ["/seen"]);
    assert_eq!(all("spin-full-url"), ["http://app.test/seen?x=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn static_answers_unknown_paths_and_large_bodies() {
    let probe = probe().await;
    let fixed = probe.get("/fixed").await;
    assert_eq!(
        (fixed.status().as_u16(), fixed.headers()["x-made-of"].as_bytes(), fixed.body().as_ref()),
        (418, b"toml".as_ref(), b"short and stout".as_ref())
    );
    let large = Request::post("/body").body(Bytes::from(vec![7; 30 << 20])).expect("a request");
    assert_eq!(probe.app.handle(large).await.body().as_ref(), b"31457280");
    assert_eq!(probe.get("/.well-known/spin/health").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_output_is_told_by_component() {
    let probe = probe().await;
    assert_eq!(probe.get("/grow?400").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    probe.told("/print").await;
    assert!(probe.logged("[probe] a line from the probe"), "{:#?}", probe.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_finish_when_the_door_closes() {
    let probe = probe().await;
    let server = probe.app.serve("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let address = server.addr();
    let client = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).expect("connects");
        stream.write_all(b"GET /sleep?500 HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.shutdown().await;
    let answer = client.join().expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("slept"), "{answer}");
    assert!(std::net::TcpStream::connect(address).is_err(), "the door is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_a_place_is_refused_at_the_start() {
    let error = runtime().start(AppConfig::default()).await.err().expect("no store is configured").to_string();
    assert!(error.contains("[sqlite_database.default]"), "{error}");
}
