//! Generates the host side of Spin's interfaces from the WIT files of the very spin-sdk that the components are built with, so
//! that guest and host cannot drift apart.

use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../Cargo.lock");
    let sdk = spin_sdk();
    let wit = sdk.join("wit");
    let bindings = format!(
        r#"wasmtime::component::bindgen!({{
            path: {wit:?},
            inline: "package app:host; world app {{
                import spin:sqlite/sqlite@3.1.0;
                import spin:key-value/key-value@3.0.0;
                import spin:variables/variables@3.0.0;
            }}",
            world: "app:host/app",
            with: {{
                "spin:sqlite/sqlite.connection": crate::sqlite::Connection,
                "spin:key-value/key-value.store": crate::key_value::Store,
            }},
            imports: {{ default: trappable }},
        }});"#
    );
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("bindings.rs"), bindings).expect("OUT_DIR is writable");
}

/// The folder of the spin-sdk in Cargo.lock. Asked offline first: an ordinary build has it already.
fn spin_sdk() -> PathBuf {
    let cargo = env::var("CARGO").expect("cargo sets CARGO");
    let ask = |extra: &[&str]| Command::new(&cargo).args(["metadata", "--format-version=1", "--locked"]).args(extra).output();
    let mut output = ask(&["--offline"]).expect("cargo runs");
    if !output.status.success() {
        output = ask(&[]).expect("cargo runs");
    }
    assert!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    let sdk =
        packages.iter().find(|package| package["name"] == "spin-sdk" && package["version"].as_str().is_some_and(|v| v.starts_with("7.")));
    let manifest = sdk.and_then(|package| package["manifest_path"].as_str()).expect("the components depend on spin-sdk 7");
    PathBuf::from(manifest).with_file_name("")
}
