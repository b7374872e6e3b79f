//! `spin.toml` says of each component exactly what it may do.

use std::collections::{BTreeMap, BTreeSet};

use e2e::root;

type Rights = (&'static str, bool, bool, &'static [&'static str], &'static [&'static str]);

const BUCKET: [&str; 5] = ["s3_endpoint", "s3_region", "s3_bucket", "s3_access_key_id", "s3_secret_access_key"];

/// Component, database, key-value, hosts, variables beside `public_url`; `"bucket"` stands for what is needed to sign for the bucket.
const RIGHTS: [Rights; 17] = [
    (
        "auth",
        true,
        true,
        &["google_token_base_url", "google_certs_base_url", "github_base_url", "github_api_url"],
        &[
            "session_secret",
            "data_encryption_key",
            "trusted_proxy",
            "rate_limit_per_hour",
            "signup_credits",
            "signups_per_address",
            "google_base_url",
            "google_token_base_url",
            "google_certs_base_url",
            "google_client_id",
            "google_client_secret",
            "github_base_url",
            "github_api_url",
            "github_client_id",
            "github_client_secret",
        ],
    ),
    (
        "upload",
        true,
        true,
        &["s3_endpoint"],
        &["session_secret", "data_encryption_key", "trusted_proxy", "rate_limit_per_hour", "upload_max_bytes", "bucket"],
    ),
    // It signs a link to the photo for the provider, and cannot reach the bucket itself.
    (
        "task-create",
        true,
        true,
        &["kie_base_url", "creem_base_url"],
        &[
            "session_secret",
            "data_encryption_key",
            "trusted_proxy",
            "rate_limit_per_hour",
            "daily_picture_limit",
            "creem_base_url",
            "creem_api_key",
            "kie_base_url",
            "kie_api_key",
            "bucket",
        ],
    ),
    // Whoever looks at a picture whose callback got lost brings it home.
    (
        "tasks",
        true,
        true,
        &["kie_base_url", "kie_result_host", "s3_endpoint"],
        &[
            "session_secret",
            "data_encryption_key",
            "trusted_proxy",
            "rate_limit_per_hour",
            "kie_base_url",
            "kie_result_host",
            "kie_api_key",
            "bucket",
        ],
    ),
    // It reads and reaches nobody.
    ("task-events", true, true, &[], &["session_secret", "data_encryption_key", "trusted_proxy", "rate_limit_per_hour"]),
    // It has no part in sessions.
    (
        "task-callback",
        true,
        true,
        &["kie_base_url", "kie_result_host", "s3_endpoint"],
        &["data_encryption_key", "kie_base_url", "kie_result_host", "kie_api_key", "kie_webhook_hmac_key", "bucket"],
    ),
    (
        "orders",
        true,
        true,
        &["creem_base_url"],
        &["session_secret", "data_encryption_key", "trusted_proxy", "rate_limit_per_hour", "creem_base_url", "creem_api_key"],
    ),
    // Reaches nothing but the database.
    ("order-webhook", true, false, &[], &["creem_webhook_secret"]),
    // Erasing somebody reaches their files.
    ("account", true, true, &["s3_endpoint"], &["session_secret", "data_encryption_key", "trusted_proxy", "rate_limit_per_hour", "bucket"]),
    ("cleanup-cron", true, true, &["s3_endpoint"], &["cron_secret", "bucket"]),
    (
        "task-cron",
        true,
        true,
        &["kie_base_url", "kie_result_host", "s3_endpoint"],
        &["cron_secret", "data_encryption_key", "kie_base_url", "kie_result_host", "kie_api_key", "bucket"],
    ),
    (
        "admin",
        true,
        true,
        &[],
        &["session_secret", "data_encryption_key", "trusted_proxy", "rate_limit_per_hour", "admin_emails", "daily_picture_limit"],
    ),
    // It probes the bucket, and posts to one place that the operator names.
    (
        "alarm-cron",
        true,
        true,
        &["s3_endpoint", "alarm_webhook_host"],
        &[
            "cron_secret",
            "alarm_webhook_url",
            "alarm_webhook_host",
            "alarm_webhook_secret",
            "alarm_errors_per_five_minutes",
            "daily_picture_limit",
            "bucket",
        ],
    ),
    ("reconcile-cron", true, true, &["creem_base_url"], &["cron_secret", "creem_base_url", "creem_api_key"]),
    // It reads everything and can open nothing that is sealed for others: it holds no session secret and reaches nobody but the bucket.
    ("backup-cron", true, false, &["s3_endpoint"], &["cron_secret", "data_encryption_key", "bucket"]),
    ("health", true, true, &["s3_endpoint"], &["bucket"]),
    // Pages for everybody. The bucket's address is for their policy.
    ("web", false, false, &[], &["s3_endpoint"]),
];

fn variables_of(rights: &Rights) -> BTreeSet<String> {
    let named = rights.4.iter().flat_map(|name| if *name == "bucket" { BUCKET.to_vec() } else { vec![*name] });
    named.chain(["public_url"]).map(str::to_owned).collect()
}

fn strings(component: &toml::Value, key: &str) -> BTreeSet<String> {
    let list = component.get(key).and_then(toml::Value::as_array);
    list.into_iter().flatten().map(|entry| entry.as_str().unwrap().to_owned()).collect()
}

fn components() -> BTreeMap<String, toml::Value> {
    e2e::manifest()["component"].as_table().unwrap().iter().map(|(name, component)| (name.clone(), component.clone())).collect()
}

#[test]
fn every_component_has_the_rights_it_needs_and_no_other() {
    let components = components();
    let names: BTreeSet<_> = components.keys().map(String::as_str).collect();
    assert_eq!(names, RIGHTS.iter().map(|rights| rights.0).collect(), "a component without a line in this table, or the other way round");
    for rights in &RIGHTS {
        let (name, database, cache, hosts, _) = rights;
        let component = &components[*name];
        let one = |yes: bool| if yes { BTreeSet::from(["default".to_owned()]) } else { BTreeSet::new() };
        assert_eq!(strings(component, "sqlite_databases"), one(*database), "{name}: sqlite_databases");
        assert_eq!(strings(component, "key_value_stores"), one(*cache), "{name}: key_value_stores");
        let hosts: BTreeSet<_> = hosts.iter().map(|host| format!("{{{{ {host} }}}}")).collect();
        assert_eq!(strings(component, "allowed_outbound_hosts"), hosts, "{name}: allowed_outbound_hosts");
        let variables: BTreeSet<_> = component["variables"].as_table().unwrap().keys().cloned().collect();
        assert_eq!(variables, variables_of(rights), "{name}: variables");
        let known = ["source", "sqlite_databases", "key_value_stores", "allowed_outbound_hosts", "variables", "build"];
        for key in component.as_table().unwrap().keys() {
            assert!(known.contains(&key.as_str()), "{name}: {key} may be another right");
        }
    }
}

#[test]
fn a_component_is_given_variables_under_their_own_names() {
    let application = e2e::manifest()["variables"].as_table().unwrap().clone();
    for (name, component) in components() {
        for (variable, template) in component["variables"].as_table().unwrap() {
            assert_eq!(template.as_str(), Some(format!("{{{{ {variable} }}}}").as_str()), "{name}");
            assert!(application.contains_key(variable), "{name}: {variable} is no variable of the application");
        }
    }
}

#[test]
fn every_variable_of_the_application_is_used_by_somebody() {
    let used: BTreeSet<String> = RIGHTS.iter().flat_map(variables_of).collect();
    let application: BTreeSet<String> = e2e::manifest()["variables"].as_table().unwrap().keys().cloned().collect();
    assert_eq!(application, used);
}

#[test]
fn what_is_secret_is_marked_so_and_its_default_good_for_this_machine_only() {
    for (name, variable) in e2e::manifest()["variables"].as_table().unwrap() {
        let marked = variable.get("secret").and_then(toml::Value::as_bool).unwrap_or_default();
        // Whoever knows the address of a webhook may post to it.
        let sounds_secret = ["secret", "_key", "key_id", "hmac", "webhook_url"].iter().any(|sign| name.contains(sign));
        assert_eq!(marked, sounds_secret, "{name}");
        if marked {
            // What may be left out is left out by default.
            let default = variable["default"].as_str().unwrap();
            assert!(default.starts_with("loopback-only-") || (default.is_empty() && name.starts_with("alarm_webhook_")), "{name}");
        }
    }
}

#[test]
fn a_component_reads_exactly_the_variables_it_is_given() {
    for (name, component) in components() {
        let source = std::fs::read_to_string(root().join(format!("components/{name}/src/lib.rs"))).unwrap();
        let (_, list) = source.split_once("settings: &[").unwrap_or_else(|| panic!("{name} names no settings"));
        let (list, _) = list.split_once(']').unwrap();
        let read: BTreeSet<String> =
            list.split(',').map(|entry| entry.trim().trim_matches('"').to_owned()).filter(|entry| !entry.is_empty()).collect();
        let given: BTreeSet<String> = component["variables"].as_table().unwrap().keys().cloned().collect();
        assert_eq!(read, given, "{name}: `settings` in its source and [component.{name}.variables]");
        let called = format!("name: \"{name}\"");
        assert!(source.contains(&called), "{name} calls itself otherwise in its log lines");
    }
}
