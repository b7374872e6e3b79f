//! Prepares the site for being embedded: one name for this state of it, the hairstyles as one sheet, everything compressed.
//!
//! The pages are plain HTML, CSS and JavaScript modules and are served as they are written. What is done here is done to the whole: a page's
//! `{{assets}}` becomes `/assets/<fingerprint of all files>`, so that whatever is below it may be kept by browsers for ever.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

/// Characters of the fingerprint: enough that no two states of a site share one.
const NAME: usize = 16;

fn main() -> Result<()> {
    let site = Path::new("site");
    println!("cargo::rerun-if-changed=site");
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = BTreeMap::new();
    read(site, site, &mut files)?;
    let sheet = sheet(&files)?;
    files.insert("hairstyles.svg".into(), sheet.into_bytes());

    let mut whole = Sha256::new();
    for (path, bytes) in &files {
        whole.update(path.as_bytes());
        whole.update(bytes.len().to_le_bytes());
        whole.update(bytes);
    }
    let digest = whole.finalize();
    let name = digest.iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    });
    let name = &name[..NAME];

    let out = PathBuf::from(env::var("OUT_DIR")?).join("site");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    for (path, bytes) in files {
        let bytes = match path.ends_with(".html") {
            true => String::from_utf8(bytes).with_context(|| path.clone())?.replace("{{assets}}", &format!("/assets/{name}")).into_bytes(),
            false => bytes,
        };
        let to = out.join(format!("{path}.gz"));
        fs::create_dir_all(to.parent().context("a file without a folder")?)?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bytes)?;
        fs::write(to, encoder.finish()?)?;
    }
    println!("cargo::rustc-env=SITE_NAME={name}");
    Ok(())
}

/// The files below a folder, by their paths from the site's root.
fn read(site: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(site, &path, files)?;
        } else {
            let name = path.strip_prefix(site)?.to_str().context("a file's name is not UTF-8")?.replace('\\', "/");
            files.insert(name, fs::read(&path)?);
        }
    }
    Ok(())
}

/// The drawings of the hairstyles as symbols of one file, so that a page fetches one and can give the hair the colour it likes.
fn sheet(files: &BTreeMap<String, Vec<u8>>) -> Result<String> {
    let mut sheet = String::from("<svg xmlns=\"http://www.w3.org/2000/svg\">");
    for (path, bytes) in files {
        let Some(id) = path.strip_prefix("hairstyles/").and_then(|name| name.strip_suffix(".svg")) else { continue };
        let text = std::str::from_utf8(bytes)?.trim();
        let (head, rest) = text.split_once('>').with_context(|| path.clone())?;
        let inside = rest.strip_suffix("</svg>").with_context(|| path.clone())?;
        let view = head.split("viewBox=\"").nth(1).and_then(|rest| rest.split('"').next()).with_context(|| path.clone())?;
        write!(sheet, "<symbol id=\"{id}\" viewBox=\"{view}\">{inside}</symbol>")?;
    }
    sheet.push_str("</svg>");
    Ok(sheet)
}
