//! Application variables: where their values come from, and the templates that hand them on.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use crate::manifest::Manifest;

/// Resolves every application variable. Precedence as in Spin: what is given explicitly, then the providers of the runtime config,
/// then the environment (`SPIN_VARIABLE_NAME`), then the default.
///
/// # Errors
/// Names every required variable without a value, and every given one that the manifest does not know.
pub fn resolve(
    manifest: &Manifest,
    given: &BTreeMap<String, String>,
    providers: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    if let Some(name) = given.keys().find(|name| !manifest.variables.contains_key(*name)) {
        bail!("variable {name} is not in [variables] of the manifest");
    }
    let mut values = BTreeMap::new();
    let mut missing = Vec::new();
    for (name, variable) in &manifest.variables {
        let environment = std::env::var(format!("SPIN_VARIABLE_{}", name.to_uppercase())).ok();
        match given.get(name).or_else(|| providers.get(name)).cloned().or(environment).or_else(|| variable.default.clone()) {
            Some(value) => drop(values.insert(name.clone(), value)),
            None => missing.push(name.as_str()),
        }
    }
    ensure!(missing.is_empty(), "required variables without a value: {} (give each as --variable name=value)", missing.join(", "));
    Ok(values)
}

/// Fills the `{{ name }}` places of a template.
///
/// # Errors
/// For a place that names no variable, and for one that is not closed.
pub fn fill(template: &str, values: &BTreeMap<String, String>) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { bail!("the template {template:?} is not closed") };
        let name = name.trim();
        let Some(value) = values.get(name) else { bail!("the template {template:?} names {name}, which is not in [variables]") };
        text.push_str(before);
        text.push_str(value);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled() {
        let values = BTreeMap::from([("host".to_owned(), "a.test".to_owned())]);
        assert_eq!(fill("https://{{ host }}:1/{{host}}", &values).expect("known"), "https://a.test:1/a.test");
        assert!(fill("{{ other }}", &values).is_err());
        assert!(fill("{{ host", &values).is_err());
    }

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let text = "spin_manifest_version = 2\n[application]\nname = \"a\"\n[variables]\na = { required = true }\nb = { required = true }\nc = { default = \"1\" }\n\
                    [[trigger.http]]\nroute = \"/\"\ncomponent = \"c\"\n[component.c]\nsource = \"c.wasm\"\n";
        let manifest = Manifest::parse(text).expect("valid");
        let error = resolve(&manifest, &BTreeMap::new(), &BTreeMap::new()).expect_err("two are missing").to_string();
        assert!(error.contains("a, b"), "{error}");
        let given = BTreeMap::from([("a".to_owned(), "x".to_owned()), ("b".to_owned(), "y".to_owned())]);
        assert_eq!(resolve(&manifest, &given, &BTreeMap::new()).expect("complete")["c"], "1");
        assert!(resolve(&manifest, &BTreeMap::from([("z".to_owned(), String::new())]), &BTreeMap::new()).is_err());
    }
}
