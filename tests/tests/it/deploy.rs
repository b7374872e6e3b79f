//! `deploy/` says what spin.toml needs: every setting without a default fit for the world, and who calls each job. What it has a shell do is
//! done here, with stand-ins for the programs that would reach outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;
use serde_json::json;
use tempfile::TempDir;
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

/// The files of `deploy/systemd` whose names end so.
fn units(end: &str) -> BTreeSet<String> {
    let files = fs::read_dir(e2e::root().join("deploy/systemd")).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).filter(|name| name.ends_with(end)).collect()
}

/// The values that a unit gives to a key.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The words of a command line as systemd splits them (EXTRACT_UNQUOTE and EXTRACT_CUNESCAPE): a backslash escapes inside of either quotes as
/// well, and quotes may be empty.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut rest = line.chars();
    while let Some(read) = rest.next() {
        match read {
            '\\' => {
                let escaped = rest.next().filter(|escaped| "\\\"'".contains(*escaped));
                word.get_or_insert_default().push(escaped.unwrap_or_else(|| panic!("an escape that is not known here: {line}")));
            }
            _ if quote == Some(read) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(read);
                word.get_or_insert_default();
            }
            ' ' if quote.is_none() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(read),
        }
    }
    assert!(quote.is_none(), "a quote that does not end: {line}");
    words.extend(word);
    words
}

/// What systemd executes for a unit, `%i` being this.
fn command(unit: &str, instance: &str) -> Vec<String> {
    let lines = values(unit, "ExecStart");
    assert_eq!(lines.len(), 1, "{unit}");
    split(lines[0])
        .iter()
        .map(|word| {
            // What stands for itself is doubled; everything else that begins so is put in by systemd.
            let word = word.replace("%%", "\0").replace("%i", instance);
            assert!(!word.contains('%'), "a specifier that is not known here: {word}");
            let word = word.replace('\0', "%").replace("$$", "\0");
            assert!(!word.contains('$'), "systemd would put in a variable: {word}");
            word.replace('\0', "$")
        })
        .collect()
}

/// Runs what is to be given to a shell, with stand-ins for what reaches outside, and returns what each was called with, a word a line.
struct Shell {
    folder: TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl Shell {
    fn new<const N: usize>(environment: [(&'static str, &'static str); N]) -> Self {
        Self { folder: TempDir::new().unwrap(), environment: environment.into() }
    }

    /// Returns the code it ended with. `curl` ends with this one.
    fn run(&self, command: &[String], curl: i32) -> i32 {
        let [shell, flag, script] = command else { panic!("no shell: {command:?}") };
        assert_eq!((shell.as_str(), flag.as_str()), ("/bin/sh", "-c"));
        for file in ["curl", "stdin", "systemctl"] {
            fs::write(self.folder.path().join(file), "").unwrap();
        }
        let stand_ins = "curl() { printf '%s\n' \"$@\" > curl; cat > stdin; return \"$CURL\"; }\n\
                         systemctl() { printf '%s\n' \"$@\" > systemctl; }\n";
        let mut running = Command::new(shell);
        running.args([flag, &format!("{stand_ins}{script}")]).current_dir(self.folder.path());
        running.env_clear().env("PATH", "/usr/bin:/bin").env("CURL", curl.to_string()).envs(self.environment.iter().copied());
        running.status().unwrap().code().unwrap()
    }

    fn told(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    /// Runs a call of a job, which has to be of this kind, and returns its address and how long it may take.
    fn call(&self, command: &[String]) -> (String, i64) {
        assert_eq!(self.run(command, 0), 0);
        assert_eq!(self.told("stdin"), "authorization: Bearer new", "{command:?}");
        let told = self.told("curl");
        let words: Vec<&str> = told.lines().collect();
        let [first @ .., "--max-time", seconds, "--header", "@-", "--request", "POST", url] = words.as_slice() else { panic!("{told}") };
        assert_eq!(first, ["--fail-with-body", "--silent", "--show-error"]);
        assert_eq!(self.run(command, 22), 22, "a job that failed looks as if it had not");
        ((*url).to_owned(), seconds.parse().unwrap())
    }
}

/// The options of `spin up` among these words, each with its value.
fn options(words: &[String]) -> Vec<(&str, &str)> {
    let (_, given) = words.split_at(words.iter().position(|word| word == "up").unwrap() + 1);
    given.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect()
}

fn option<'a>(options: &[(&str, &'a str)], name: &str) -> &'a str {
    options.iter().find(|(option, _)| *option == name).unwrap_or_else(|| panic!("no {name} in {options:?}")).1
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
        keys(spec).is_subset(&set([
            "image",
            "executor",
            "replicas",
            "checks",
            "invocationLimits",
            "resources",
            "runtimeConfig",
            "variables"
        ])),
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
    // While the secret is exchanged it is a list, of which the first one is sent.
    let cluster = Shell::new([("CRON_SECRET", "new,old")]);
    let mut called = BTreeSet::new();
    for job in documents("kubernetes/cronjobs.yaml") {
        assert_eq!((text(&job, &["apiVersion"]), text(&job, &["kind"])), ("batch/v1", "CronJob"));
        assert_eq!(text(&job, &["spec", "concurrencyPolicy"]), "Forbid");
        assert_eq!(text(&job, &["spec", "schedule"]).split(' ').count(), 5);
        let run = &job["spec"]["jobTemplate"]["spec"];
        let container = &run["template"]["spec"]["containers"][0];
        assert_eq!(text(&container["env"][0], &["name"]), "CRON_SECRET");
        assert_eq!(text(&container["env"][0], &["valueFrom", "secretKeyRef", "key"]), "cron-secret");
        let words = ["command", "args"].map(|key| container[key].as_vec().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()));
        let words: Vec<String> = words.into_iter().flatten().collect();
        assert!(!words.concat().contains("$("), "the cluster would put in a variable: {words:?}");
        let (url, seconds) = cluster.call(&words);
        assert!(seconds < run["activeDeadlineSeconds"].as_i64().unwrap(), "{url}");
        called.insert(url.strip_prefix("http://ai-hairstyle/internal/").unwrap().to_owned());
    }
    assert_eq!(called, jobs(), "cronjobs.yaml and spin.toml part");

    let service = read("systemd/ai-hairstyle-job@.service");
    let machine = Shell::new([("SPIN_VARIABLE_CRON_SECRET", "new,old")]);
    assert!(read("systemd/environment").contains("\nSPIN_VARIABLE_CRON_SECRET="));
    let app = command(&read("systemd/ai-hairstyle.service"), "");
    let timers: BTreeSet<String> =
        units(".timer").iter().filter_map(|name| name.strip_prefix("ai-hairstyle-")?.strip_suffix(".timer").map(str::to_owned)).collect();
    assert_eq!(timers, jobs(), "the timers and spin.toml part");
    for timer in &timers {
        let unit = read(&format!("systemd/ai-hairstyle-{timer}.timer"));
        assert!(unit.contains("OnCalendar=") && unit.contains(&format!("Unit=ai-hairstyle-job@{timer}.service")), "{unit}");
        let (url, _) = machine.call(&command(&service, timer));
        assert_eq!(url, format!("http://{}/internal/{timer}", option(&options(&app), "--listen")));
    }
}

#[test]
fn timers_come_when_they_are_due_and_not_within_the_minute_that_systemd_takes() {
    for timer in units(".timer") {
        assert_eq!(values(&read(&format!("systemd/{timer}")), "AccuracySec"), ["1s"], "{timer}");
    }
}

#[test]
fn the_watchdog_restarts_a_server_that_does_not_answer_and_no_other() {
    let (watchdog, server) = (read("systemd/sqld-watchdog.service"), read("systemd/sqld.service"));
    let words = command(&watchdog, "");
    let shell = Shell::new([("SQLD_TOKEN", "a.token")]);
    // Answered; not listening, which systemd sees by itself; another token; no answer in time.
    for (curl, restarts) in [(0, ""), (7, ""), (22, ""), (28, "restart\nsqld.service\n")] {
        assert_eq!((shell.run(&words, curl), shell.told("systemctl").as_str()), (curl, restarts));
    }
    assert_eq!(shell.told("stdin"), "authorization: Bearer a.token");
    let told = shell.told("curl");
    let words: Vec<&str> = told.lines().collect();
    let [first @ .., "--max-time", "5", "--header", "@-", "--json", body, url] = words.as_slice() else { panic!("{told}") };
    assert_eq!(first, ["--fail", "--silent", "--show-error", "--output", "/dev/null"]);

    let server = command(&server, "");
    let at = server.iter().position(|word| word == "--http-listen-addr").unwrap();
    assert_eq!(*url, format!("http://{}/v3/pipeline", server[at + 1]));
    let body = read(&format!("systemd/{}", body.strip_prefix("@/etc/sqld/").unwrap()));
    let statement = json!({"type": "execute", "stmt": {"sql": "DELETE FROM schema_migrations WHERE 0"}});
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), json!({"requests": [statement, {"type": "close"}]}));
}

#[test]
fn nothing_is_written_where_a_service_may_only_read() {
    for name in ["ai-hairstyle", "sqld"] {
        let unit = read(&format!("systemd/{name}.service"));
        let home = format!("/var/lib/{name}");
        assert_eq!(values(&unit, "ProtectSystem"), ["strict"]);
        // Strict includes /tmp.
        assert_eq!((values(&unit, "PrivateTmp"), values(&unit, "WorkingDirectory")), (vec!["true"], vec![home.as_str()]), "{name}");
        assert_eq!(values(&unit, "StateDirectory")[0].split(' ').next(), Some(name));
    }
    let unit = read("systemd/ai-hairstyle.service");
    assert!(values(&unit, "Environment").contains(&"HOME=/var/lib/ai-hairstyle"), "Spin keeps compiled components there: {unit}");
    let words = command(&unit, "");
    let options = options(&words);
    assert_eq!(option(&options, "--state-dir"), "/var/lib/ai-hairstyle/.spin");
    // The stores of one machine: the cache beside the configuration, the database below the working directory.
    let configured = Path::new(option(&options, "--runtime-config-file"));
    assert_eq!(configured.parent().unwrap(), Path::new("/var/lib/ai-hairstyle"));
    let config = host::RuntimeConfig::load(&e2e::root().join("runtime-config.toml")).unwrap();
    assert!(matches!(&config.sqlite["default"], host::SqliteLocation::File(path) if path == Path::new(".spin/ai-hairstyle.db")));
    assert!(matches!(&config.key_value["default"], host::KvLocation::File(path) if *path == e2e::root().join(".spin/key-value.db")));
    assert!(values(&unit, "StateDirectory")[0].split(' ').any(|folder| folder == "ai-hairstyle/.spin"));
}

#[test]
fn the_log_is_written_once_and_not_into_files_that_only_grow() {
    let words = command(&read("systemd/ai-hairstyle.service"), "");
    let container = read("container/Containerfile");
    let started = container.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    let started: Vec<String> = serde_json::from_str(started).unwrap();
    for words in [&words, &started] {
        assert_eq!(option(&options(words), "--log-dir"), "", "{words:?}");
    }
    assert_eq!(option(&options(&words), "--max-instance-memory"), option(&options(&started), "--max-instance-memory"));
}

#[test]
fn the_commands_of_the_readme_put_everything_where_the_units_look_for_it() {
    let readme = read("README.md");
    let commands = readme.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    let root = TempDir::new().unwrap();
    let at = |path: &str| PathBuf::from(format!("{}{path}", root.path().display()));
    fs::create_dir_all(at("/etc/systemd/system")).unwrap();
    fs::create_dir_all(at("/etc/nginx/conf.d")).unwrap();
    let mut commands = commands.replace(" -o ai-hairstyle -g ai-hairstyle", "");
    for folder in ["/etc/", "/opt/", "/var/lib/"] {
        commands = commands.replace(&format!(" {folder}"), &format!(" {}{folder}", root.path().display()));
    }
    // The database is made by another program; here it is a file.
    let stand_ins = "set -eu\nuseradd() { :; }\nchown() { test -e \"$2\"; }\ncargo() { : > \"$4\"; }\n\
                     systemctl() { printf '%s\\n' \"$*\" >> \"$TOLD\"; }\n";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{stand_ins}{commands}")]).current_dir(e2e::root()).env("TOLD", at("/told"));
    assert!(shell.status().unwrap().success(), "{commands}");

    let unit = read("systemd/ai-hairstyle.service");
    let words = command(&unit, "");
    let options = options(&words);
    let manifest = at(option(&options, "--from"));
    assert!(manifest.is_file() && at(option(&options, "--runtime-config-file")).is_file());
    for (id, component) in e2e::manifest()["component"].as_table().unwrap() {
        assert!(manifest.with_file_name(component["source"].as_str().unwrap()).is_file(), "{id}");
    }
    assert!(at(values(&unit, "EnvironmentFile")[0]).is_file());
    for name in units(".service").union(&units(".timer")).filter(|name| name.starts_with("ai-hairstyle")) {
        assert!(at("/etc/systemd/system").join(name).is_file(), "{name}");
    }
    let told = fs::read_to_string(at("/told")).unwrap();
    let enabled: BTreeSet<&str> = told.lines().filter_map(|line| line.strip_prefix("enable --now ai-hairstyle")).collect();
    let timers: BTreeSet<String> = jobs().iter().map(|job| format!("-{job}.timer")).chain([".service".to_owned()]).collect();
    assert_eq!(enabled, timers.iter().map(String::as_str).collect());
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

/// The variables that a recipe sets, with their values: those of the environment file, and those of the SpinApp.
fn recipes() -> [(&'static str, BTreeMap<String, String>); 2] {
    let environment = read("systemd/environment");
    let lines = environment.lines().filter_map(|line| line.strip_prefix("SPIN_VARIABLE_")?.split_once('='));
    let machine = lines.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let [config, secret, app] = documents("kubernetes/spinapp.yaml").try_into().unwrap();
    let variables = app["spec"]["variables"].as_vec().unwrap().iter().map(|variable| {
        let from = |kind: &str, data: &Yaml| variable["valueFrom"][kind]["key"].as_str().map(|key| text(data, &[key]).to_owned());
        let value = from("secretKeyRef", &secret["stringData"]).or_else(|| from("configMapKeyRef", &config["data"]));
        (text(variable, &["name"]).to_owned(), value.unwrap())
    });
    [("systemd/environment", machine), ("kubernetes/spinapp.yaml", variables.collect())]
}

#[test]
fn what_a_recipe_leaves_to_be_filled_in_the_app_refuses() {
    let known = e2e::manifest()["variables"].as_table().unwrap().clone();
    for (recipe, variables) in recipes() {
        for (name, value) in &variables {
            let default = known[name]["default"].as_str().unwrap();
            let in_capitals = value.split(|letter: char| !letter.is_ascii_uppercase()).any(|word| word.len() > 3);
            if in_capitals || default.starts_with("loopback-only") {
                assert!(config::is_placeholder(value), "{recipe}: {name} is {value}, and the app would take it");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_recipe_as_it_is_nothing_is_served() {
    for (recipe, mut variables) in recipes() {
        let public_url = variables.remove("public_url");
        let world = e2e::World::with(e2e::Options { public_url, variables, ..Default::default() }).await;
        let stranger = world.stranger();
        for (method, path) in [
            (Method::GET, "/auth/session"),
            (Method::GET, "/api/uploads"),
            (Method::GET, "/api/hairstyles"),
            (Method::GET, "/api/products"),
            (Method::POST, "/webhooks/creem"),
            (Method::POST, "/webhooks/kie/x"),
            (Method::POST, "/internal/cleanup"),
            (Method::GET, "/health"),
        ] {
            stranger.send(500, stranger.request(method, path)).await.problem("internal");
        }
        for line in world.events("request") {
            let cause = line["cause"].as_str().unwrap();
            assert!(cause.starts_with("variable ") && cause.contains("placeholder"), "{recipe}: {cause}");
        }
    }
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
    // The distributions' nginx (1.22, 1.24) has no directive of its own for it, and does not start with one.
    assert!(proxy.contains("listen 443 ssl http2;"), "{proxy}");
    assert!(!proxy.lines().any(|line| line.trim().starts_with("http2 ")), "{proxy}");
    // The app holds a photo whole while it comes in (decision 11), so the proxy waits for those that come slowly.
    assert!(!proxy.contains("proxy_request_buffering off"), "{proxy}");
    // Nothing below adds a header of its own, or this one would be gone there.
    let added: Vec<&str> = proxy.lines().map(str::trim).filter(|line| line.starts_with("add_header ")).collect();
    assert_eq!(added, ["add_header Strict-Transport-Security \"max-age=31536000\" always;"]);
}

#[test]
fn a_recipe_stands_once_and_the_numbers_of_components_are_the_manifests() {
    let docs = |name: &str| fs::read_to_string(e2e::root().join("docs").join(name)).unwrap();
    let scheduling = docs("scheduling.md");
    assert!(!scheduling.contains("ExecStart=") && !scheduling.contains("kind: CronJob"), "a second recipe, which no test runs");
    for file in ["systemd/ai-hairstyle-job@.service", "kubernetes/cronjobs.yaml"] {
        assert!(scheduling.contains(&format!("(../deploy/{file})")), "{file}");
        read(file);
    }
    let manifest = e2e::manifest();
    let components = manifest["component"].as_table().unwrap().values();
    let open = components.filter(|component| component.get("sqlite_databases").is_some()).count();
    let scaling = docs("scaling.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(scaling.contains(&format!("one per instance: {open} components")), "{open} components open a database");
}
