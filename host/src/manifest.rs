//! `spin.toml`, manifest version 2. Unknown keys are errors, and so is what this host cannot do.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// A manifest as far as this host runs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    spin_manifest_version: toml::Value,
    pub application: Application,
    #[serde(default)]
    pub variables: BTreeMap<String, Variable>,
    trigger: Triggers,
    pub component: BTreeMap<String, Component>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "some keys only have to be known, as in Spin")]
pub struct Application {
    pub name: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    authors: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "some keys only have to be known, as in Spin")]
pub struct Variable {
    pub default: Option<String>,
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub secret: bool,
    #[serde(default)]
    description: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Triggers {
    #[serde(default)]
    http: Vec<HttpTrigger>,
    #[serde(flatten)]
    others: BTreeMap<String, toml::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "some keys only have to be known, as in Spin")]
pub struct HttpTrigger {
    #[serde(default)]
    id: Option<String>,
    pub route: Route,
    pub component: Option<String>,
    pub static_response: Option<StaticResponse>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Route {
    Path(String),
    Private { private: bool },
}

/// An answer that the manifest itself gives.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticResponse {
    pub status_code: Option<u16>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "some keys only have to be known, as in Spin")]
pub struct Component {
    pub source: toml::Value,
    #[serde(default)]
    description: String,
    #[serde(default)]
    pub allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    pub key_value_stores: Vec<String>,
    #[serde(default)]
    pub sqlite_databases: Vec<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    build: Option<toml::Value>,
    // Known to Spin, not done here: refused by name in `check`.
    #[serde(default)]
    files: Option<toml::Value>,
    #[serde(default)]
    exclude_files: Option<toml::Value>,
    #[serde(default)]
    ai_models: Option<toml::Value>,
    #[serde(default)]
    dependencies: Option<toml::Value>,
    #[serde(default)]
    dependencies_inherit_configuration: Option<toml::Value>,
    #[serde(default)]
    profile: Option<toml::Value>,
    #[serde(default)]
    tool: Option<toml::Value>,
}

impl Manifest {
    /// Reads and checks a manifest file.
    ///
    /// # Errors
    /// For anything unknown, contradictory or unsupported, in words that name it.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the manifest {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in the manifest {}", path.display()))
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// As [`Manifest::load`].
    pub fn parse(text: &str) -> Result<Self> {
        let manifest: Self = toml::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The HTTP triggers, in the order of the manifest.
    #[must_use]
    pub fn http_triggers(&self) -> &[HttpTrigger] {
        &self.trigger.http
    }

    /// Where a component's wasm lies, beside the manifest in `folder`.
    ///
    /// # Errors
    /// For a source that is not a local file.
    pub fn source(&self, id: &str, folder: &Path) -> Result<PathBuf> {
        let source = &self.component.get(id).with_context(|| format!("there is no [component.{id}]"))?.source;
        let path = source.as_str().with_context(|| format!("[component.{id}] source: only a local file is supported here"))?;
        Ok(folder.join(path))
    }

    fn check(&self) -> Result<()> {
        ensure!(self.spin_manifest_version.as_integer() == Some(2), "spin_manifest_version must be 2");
        if let Some(kind) = self.trigger.others.keys().next() {
            bail!("[[trigger.{kind}]] is not supported by this host: only http is");
        }
        for (name, variable) in &self.variables {
            check_id(name, '_').with_context(|| format!("the variable {name}"))?;
            ensure!(variable.required != variable.default.is_some(), "variable {name} needs either a default or required = true");
        }
        for trigger in &self.trigger.http {
            let shown = format!("{:?}", trigger.route);
            match (&trigger.component, &trigger.static_response) {
                (Some(id), None) => {
                    ensure!(self.component.contains_key(id), "the trigger {shown} names the component {id}, which does not exist")
                }
                (None, Some(_)) => {}
                _ => bail!("the trigger {shown} needs either component or static_response"),
            }
            if let Route::Private { private } = trigger.route {
                ensure!(private, "the trigger {shown}: private can only be true");
            }
        }
        for (id, component) in &self.component {
            check_id(id, '-').with_context(|| format!("[component.{id}]"))?;
            for name in component.variables.keys() {
                check_id(name, '_').with_context(|| format!("[component.{id}] the variable {name}"))?;
            }
            let unsupported = [
                ("files", &component.files),
                ("exclude_files", &component.exclude_files),
                ("ai_models", &component.ai_models),
                ("dependencies", &component.dependencies),
                ("dependencies_inherit_configuration", &component.dependencies_inherit_configuration),
                ("profile", &component.profile),
            ];
            for (key, value) in unsupported {
                ensure!(value.is_none(), "[component.{id}] {key} is not supported by this host");
            }
        }
        Ok(())
    }
}

/// Spin's rule for names (crates/serde/src/id.rs of its sources): words of letters and digits that begin with a letter, and are of one case.
/// Later versions also take words that begin with a digit, but for the first.
fn check_id(id: &str, between: char) -> Result<()> {
    for word in id.split(between) {
        let begins = word.starts_with(|first: char| first.is_ascii_alphabetic());
        ensure!(begins, "words must begin with an ASCII letter and be separated by {between:?}: {word:?} does not");
        ensure!(word.chars().all(|char| char.is_ascii_alphanumeric()), "words may only hold ASCII letters and digits: {word:?}");
        let is_lower = !word.contains(|char: char| char.is_ascii_uppercase());
        let is_upper = between == '-' && !word.contains(|char: char| char.is_ascii_lowercase());
        ensure!(is_lower || is_upper, "words must be of one case, and of variables lower: {word:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "spin_manifest_version = 2\n[application]\nname = \"a\"\n";
    const COMPONENT: &str = "[component.c]\nsource = \"c.wasm\"\n";

    fn refusal(rest: &str) -> String {
        format!("{:#}", Manifest::parse(&format!("{HEAD}{rest}")).expect_err(rest))
    }

    #[test]
    fn this_repository_s_manifest_is_read() {
        let manifest = Manifest::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spin.toml"))).expect("valid");
        assert!(manifest.component.contains_key("task-callback"));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        assert!(refusal(&format!("[[trigger.redis]]\naddress = \"x\"\n{COMPONENT}")).contains("trigger.redis"));
        assert!(refusal(&format!("[[trigger.http]]\nroute = \"/\"\ncomponent = \"c\"\n{COMPONENT}files = [\"a\"]\n")).contains("files"));
    }

    #[test]
    fn names_are_those_that_spin_takes() {
        let route = "[[trigger.http]]\nroute = \"/\"\ncomponent = \"c\"\n";
        for name in ["errors_per_5_minutes", "a__b", "_a", "a_", "a-b", "aB", "Ab", "A", "1a", "ä"] {
            let told = refusal(&format!("[variables]\n\"{name}\" = {{ default = \"\" }}\n{route}{COMPONENT}"));
            assert!(told.contains(&format!("variable {name}")), "{name}: {told}");
            refusal(&format!("{route}{COMPONENT}[component.c.variables]\n\"{name}\" = \"\"\n"));
        }
        let of = |name: &str| format!("[[trigger.http]]\nroute = \"/\"\ncomponent = \"{name}\"\n[component.{name}]\nsource = \"c.wasm\"\n");
        for name in ["a_b", "a-1", "a--b", "aB"] {
            assert!(refusal(&of(name)).contains(&format!("[component.{name}]")), "{name}");
        }
        for name in ["a", "a1_b2c", "s3_region"] {
            Manifest::parse(&format!("{HEAD}[variables]\n{name} = {{ default = \"\" }}\n{route}{COMPONENT}")).expect(name);
        }
        Manifest::parse(&format!("{HEAD}{}", of("a-B1"))).expect("words of either case");
    }

    #[test]
    fn unknown_keys_and_missing_components_are_errors() {
        assert!(refusal(&format!("[[trigger.http]]\nroute = \"/\"\ncomponent = \"d\"\n{COMPONENT}")).contains("component d"));
        assert!(refusal(&format!("[[trigger.http]]\nroute = \"/\"\ncomponent = \"c\"\n{COMPONENT}colour = 1\n")).contains("colour"));
        assert!(
            refusal(&format!("[variables]\nx = {{}}\n[[trigger.http]]\nroute = \"/\"\ncomponent = \"c\"\n{COMPONENT}"))
                .contains("variable x")
        );
    }
}
