//! The app and the sandbox fit together without a setting.

use std::collections::BTreeMap;

#[test]
fn the_defaults_are_those_of_the_apps_manifest() {
    let manifest: toml::Table = include_str!("../../../spin.toml").parse().unwrap();
    let defaults: BTreeMap<&str, &str> = manifest["variables"]
        .as_table()
        .unwrap()
        .iter()
        .filter_map(|(name, variable)| Some((name.as_str(), variable.get("default")?.as_str()?)))
        .collect();
    for (name, value) in sandbox::default_variables() {
        assert_eq!(defaults.get(name.as_str()), Some(&value.as_str()), "{name} in spin.toml");
    }
}

#[tokio::test]
async fn a_sandbox_on_free_ports_names_the_same_variables() {
    let bench = crate::sandbox().await;
    let names: Vec<String> = bench.variables().into_keys().collect();
    assert_eq!(names, sandbox::default_variables().into_keys().collect::<Vec<_>>());
    assert_eq!(bench.variables()["s3_endpoint"], bench.places().s3);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    // The second of six ports is taken: the start fails and says which it was. Tests run side by side, so the first
    // port may be taken as well by then: another pair is tried.
    for _ in 0..20 {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let listen = ([127, 0, 0, 1], port - 1).into();
        let config = sandbox::Config { listen, dir: dir.path().into(), ..Default::default() };
        let error = sandbox::Sandbox::start(config).await.err().expect("the port is taken");
        let error = format!("{error:#}");
        if !error.contains("the control endpoint") {
            assert!(error.contains(&format!("127.0.0.1:{port} (s3)")), "{error}");
            return;
        }
    }
    panic!("no free pair of ports");
}

#[tokio::test]
async fn a_sandbox_that_was_shut_down_is_gone() {
    let bench = crate::sandbox().await;
    let address = bench.places().control.trim_start_matches("http://").to_owned();
    bench.sandbox.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
