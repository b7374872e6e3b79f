//! `deploy/` says what spin.toml needs: every setting without a default fit for the world, and who calls each job.

use std::collections::BTreeSet;
use std::fs;

use yaml_rust2::{Yaml, YamlLoader};

fn read(path: &str) -> String {
    fs::read_to_string(e2e::root().join("deploy").join(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

fn documents(path: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&read(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

fn text<'a>(yaml: &'a Yaml, path: &[&str]) -> &'a str {
    let found = path.iter().fold(yaml, |yaml, key| &yaml[*key]);
    found.as_str().unwrap_or_else(|| panic!("no text at {path:?} in {yaml:?}"))
}

fn keys(yaml: &Yaml) -> BTreeSet<String> {
    yaml.as_hash().into_iter().flatten().filter_map(|(key, _)| key.as_str().map(str::to_owned)).collect()
}

fn set<const N: usize>(words: [&str; N]) -> BTreeSet<String> {
    words.map(str::to_owned).into()
}

/// The variables of spin.toml that a deployment must set, and whether each is a secret.
fn placeholders() -> Vec<(String, bool)> {
    let manifest = e2e::manifest();
    let variables = manifest["variables"].as_table().unwrap();
    let is_placeholder = |default: &str| default.starts_with("loopback-only") || default.starts_with("http://127.0.0.1");
    let needed = variables.iter().filter(|(_, variable)| variable.get("default").and_then(toml::Value::as_str).is_some_and(is_placeholder));
    needed.map(|(name, variable)| (name.clone(), variable.get("secret").and_then(toml::Value::as_bool) == Some(true))).collect()
}

/// The jobs: what follows `/internal/` in the routes of spin.toml.
fn jobs() -> BTreeSet<String> {
    let manifest = e2e::manifest();
    let triggers = manifest["trigger"]["http"].as_array().unwrap();
    triggers.iter().filter_map(|trigger| trigger["route"].as_str()?.strip_prefix("/internal/").map(str::to_owned)).collect()
}

#[test]
fn a_spinapp_has_every_setting_and_the_secret_ones_from_a_secret() {
    let documents = documents("kubernetes/spinapp.yaml");
    let kinds: Vec<_> = documents.iter().map(|document| text(document, &["kind"])).collect();
    assert_eq!(kinds, ["ConfigMap", "Secret", "SpinApp"]);
    let [config, secret, app] = documents.try_into().unwrap();
    assert_eq!(text(&app, &["apiVersion"]), "core.spinkube.dev/v1alpha1");
    // The fields of the resource's definition that are used here; the cluster drops what it does not know.
    let spec = &app["spec"];
    assert!(
        keys(spec).is_subset(&set(["image", "executor", "replicas", "checks", "resources", "runtimeConfig", "variables"])),
        "{:?}",
        keys(spec)
    );
    assert_eq!(keys(&spec["checks"]), set(["liveness", "readiness"]));
    assert_eq!(keys(&spec["runtimeConfig"]), set(["keyValueStores", "sqliteDatabases"]));
    assert!(spec["replicas"].as_i64().unwrap() >= 2);
    assert_eq!(text(spec, &["checks", "liveness", "httpGet", "path"]), "/health/live");
    assert_eq!(text(spec, &["checks", "readiness", "httpGet", "path"]), "/health");

    let known = e2e::manifest()["variables"].as_table().unwrap().clone();
    let variables = spec["variables"].as_vec().unwrap();
    for variable in variables {
        let name = text(variable, &["name"]);
        assert!(known.contains_key(name), "spin.toml has no variable {name}");
        let (kind, holder, data) = if known[name].get("secret").is_some() {
            ("secretKeyRef", &secret, &secret["stringData"])
        } else {
            ("configMapKeyRef", &config, &config["data"])
        };
        let reference = &variable["valueFrom"][kind];
        assert_eq!(text(reference, &["name"]), text(holder, &["metadata", "name"]), "{name}");
        let key = text(reference, &["key"]);
        assert!(data[key].as_str().is_some(), "{name}: nothing has the key {key}");
    }
    let named: BTreeSet<&str> = variables.iter().map(|variable| text(variable, &["name"])).collect();
    for (name, _) in placeholders() {
        assert!(named.contains(name.as_str()), "spinapp.yaml does not set {name}");
    }
    for (store, kind, options) in [("sqliteDatabases", "libsql", vec!["url", "token"]), ("keyValueStores", "redis", vec!["url"])] {
        let stores = spec["runtimeConfig"][store].as_vec().unwrap();
        assert_eq!((stores.len(), text(&stores[0], &["name"]), text(&stores[0], &["type"])), (1, "default", kind));
        let given = stores[0]["options"].as_vec().unwrap();
        assert_eq!(given.iter().map(|option| text(option, &["name"])).collect::<Vec<_>>(), options);
        for option in given {
            let key = text(option, &["valueFrom", "secretKeyRef", "key"]);
            assert!(secret["stringData"][key].as_str().is_some(), "the secret has no key {key}");
        }
    }
}

#[test]
fn every_job_is_called_in_a_cluster_and_on_a_machine() {
    let mut called = BTreeSet::new();
    for job in documents("kubernetes/cronjobs.yaml") {
        assert_eq!((text(&job, &["apiVersion"]), text(&job, &["kind"])), ("batch/v1", "CronJob"));
        assert_eq!(text(&job, &["spec", "concurrencyPolicy"]), "Forbid");
        assert_eq!(text(&job, &["spec", "schedule"]).split(' ').count(), 5);
        let container = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(text(&container["env"][0], &["valueFrom", "secretKeyRef", "key"]), "cron-secret");
        let command = container["args"][0].as_str().unwrap();
        assert!(command.contains("authorization: Bearer") && command.contains("--request POST"), "{command}");
        called.insert(command.rsplit('/').next().unwrap().trim().to_owned());
    }
    assert_eq!(called, jobs(), "cronjobs.yaml and spin.toml part");

    let timers = fs::read_dir(e2e::root().join("deploy/systemd")).unwrap().flatten();
    let timers: BTreeSet<String> = timers
        .filter_map(|file| file.file_name().to_str()?.strip_prefix("ai-hairstyle-")?.strip_suffix(".timer").map(str::to_owned))
        .collect();
    assert_eq!(timers, jobs(), "the timers and spin.toml part");
    for timer in &timers {
        let unit = read(&format!("systemd/ai-hairstyle-{timer}.timer"));
        assert!(unit.contains("OnCalendar=") && unit.contains(&format!("Unit=ai-hairstyle-job@{timer}.service")), "{unit}");
    }
}

#[test]
fn the_environment_of_a_service_has_every_setting() {
    let environment = read("systemd/environment");
    let manifest = e2e::manifest();
    let set: BTreeSet<String> = environment
        .lines()
        .filter_map(|line| line.strip_prefix("SPIN_VARIABLE_")?.split_once('=').map(|(name, _)| name.to_lowercase()))
        .collect();
    for name in &set {
        assert!(manifest["variables"].as_table().unwrap().contains_key(name), "spin.toml has no variable {name}");
    }
    for (name, _) in placeholders() {
        assert!(set.contains(&name), "deploy/systemd/environment does not set {name}");
    }
    assert!(!environment.contains("loopback-only") && !environment.contains("127.0.0.1"), "{environment}");
}

#[test]
fn the_examples_of_stores_are_read_by_the_host() {
    let config = host::RuntimeConfig::load(&e2e::root().join("deploy/runtime-config.shared.toml")).unwrap();
    assert!(matches!(config.sqlite["default"], host::SqliteLocation::Libsql { .. }));
    assert!(matches!(config.key_value["default"], host::KvLocation::Redis { .. }));
    host::RuntimeConfig::load(&e2e::root().join("runtime-config.toml")).unwrap();
}

#[test]
fn the_checklist_names_every_setting_and_every_job() {
    let checklist = fs::read_to_string(e2e::root().join("docs/production.md")).unwrap();
    for (name, _) in placeholders() {
        assert!(checklist.contains(&format!("`{name}`")), "docs/production.md does not name {name}");
    }
    for job in jobs() {
        assert!(checklist.contains(&format!("/internal/{job}")), "docs/production.md does not name /internal/{job}");
    }
    // The proxy of the recipe keeps jobs from the world and lets a request of four photos through.
    let proxy = read("systemd/nginx.conf");
    assert!(proxy.contains("location /internal/ { return 404; }") && proxy.contains("client_max_body_size 45m;"), "{proxy}");
}
