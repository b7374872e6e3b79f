//! Asking a Debian-like machine's package manager for packages without installing them.
//!
//! No root is needed, and nothing of the machine's own state is changed: packages are downloaded
//! and unpacked into a private folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{on_path, read, run_quietly};

/// A view of what packages there are: the machine's own, or one with private lists.
pub struct Apt {
    options: Vec<String>,
}

/// Whether this machine has what [`Apt`] needs.
pub fn available() -> bool {
    ["apt-get", "apt-cache", "dpkg", "dpkg-query"].into_iter().all(on_path)
}

impl Apt {
    /// The machine's own lists, as its last `apt-get update` left them.
    pub fn of_machine() -> Self {
        Self { options: Vec::new() }
    }

    /// The machine's own sources, with lists fetched now into `folder`.
    pub fn refreshed(folder: &Path) -> Result<Self> {
        let apt = Self { options: private_state(folder)? };
        apt.update().context(
            "cannot fetch the lists of packages; check the network and the sources under /etc/apt, \
             for instance with `apt-get update`",
        )?;
        Ok(apt)
    }

    /// Another release of the same distribution, from the mirror that the machine is configured to use.
    pub fn of_suite(suite: &str, folder: &Path) -> Result<Self> {
        let source = Source::of_this_release()?;
        let mut options = private_state(folder)?;
        let parts = folder.join("sources");
        fs::create_dir_all(&parts)?;
        fs::write(parts.join(format!("{suite}.sources")), source.with_suite(suite))?;
        options.push("Dir::Etc::SourceList=/dev/null".into());
        options.push(format!("Dir::Etc::SourceParts={}", parts.display()));
        let apt = Self { options };
        apt.update().with_context(|| format!("cannot fetch the list of packages of {suite} from {}", source.uris))?;
        Ok(apt)
    }

    fn update(&self) -> Result<()> {
        run_quietly(self.command("apt-get").args(["-qq", "update"]))
    }

    /// The version that would be installed.
    pub fn candidate(&self, package: &str) -> Result<Option<String>> {
        let policy = read(self.command("apt-cache").args(["policy", package]))?;
        Ok(policy
            .lines()
            .find_map(|line| line.trim().strip_prefix("Candidate:"))
            .map(|version| version.trim().to_owned())
            .filter(|version| version != "(none)"))
    }

    /// The packages that a package directly depends on.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let depends = read(self.command("apt-cache").args(["depends", "--important", package]))?;
        Ok(depends
            .lines()
            .filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends:"))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.starts_with('<'))
            .collect())
    }

    /// Downloads packages and unpacks them into `into`.
    pub fn unpack(&self, packages: &[String], downloads: &Path, into: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(downloads);
        fs::create_dir_all(downloads)?;
        fs::create_dir_all(into)?;
        run_quietly(self.command("apt-get").args(["-qq", "download"]).args(packages).current_dir(downloads))?;
        for file in fs::read_dir(downloads)? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "deb") {
                run_quietly(Command::new("dpkg").arg("-x").arg(&file).arg(into))?;
            }
        }
        fs::remove_dir_all(downloads)?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        // Root's downloads run as a user of apt's own, who cannot write to a private folder.
        command.args(["-o", "APT::Sandbox::User=root"]);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

/// Whether the machine already has this package.
pub fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}\n", package])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"installed"))
}

fn private_state(folder: &Path) -> Result<Vec<String>> {
    let lists = folder.join("lists");
    let cache = folder.join("cache");
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(cache.join("archives/partial"))?;
    Ok(vec![
        format!("Dir::State::Lists={}", lists.display()),
        format!("Dir::Cache={}", cache.display()),
        "Acquire::Languages=none".into(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".into(),
    ])
}

/// Where the machine gets the release it runs from.
#[derive(Debug, PartialEq)]
struct Source {
    uris: String,
    signed_by: Option<String>,
}

impl Source {
    fn of_this_release() -> Result<Self> {
        let codename = codename(&fs::read_to_string("/etc/os-release").unwrap_or_default())
            .context("/etc/os-release does not name the release (VERSION_CODENAME)")?;
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
        files.extend(parts.map(|entry| entry.path()));
        files.sort();
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else {
                continue;
            };
            let source = match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => from_lines(&text, &codename),
                Some("sources") => from_stanzas(&text, &codename),
                _ => None,
            };
            if let Some(source) = source {
                return Ok(source);
            }
        }
        bail!("no source for {codename} in /etc/apt/sources.list or /etc/apt/sources.list.d")
    }

    fn with_suite(&self, suite: &str) -> String {
        let mut text = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", self.uris);
        if let Some(signed_by) = &self.signed_by {
            text.push_str(&format!("Signed-By: {signed_by}\n"));
        }
        text
    }
}

fn codename(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_owned())
}

/// The one-line format: `deb [options] uri suite component...`.
fn from_lines(text: &str, codename: &str) -> Option<Source> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        let suite = words.next()?;
        let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        (suite == codename).then(|| Source { uris: uri.to_owned(), signed_by: signed_by.map(str::to_owned) })
    })
}

/// The deb822 format: paragraphs of `Field: value`, where an indented line continues a value.
fn from_stanzas(text: &str, codename: &str) -> Option<Source> {
    let text: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    text.split("\n\n").find_map(|stanza| {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza.lines() {
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut()?;
                value.push('\n');
                value.push_str(line);
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let has = |name: &str, word: &str| field(name).is_some_and(|value| value.split_whitespace().any(|w| w == word));
        (has("types", "deb") && has("suites", codename) && !has("enabled", "no")).then_some(())?;
        Some(Source { uris: field("uris")?.to_owned(), signed_by: field("signed-by").map(str::to_owned) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_line_source_of_the_release_is_found() {
        let text = "# comment\n\
            deb http://mirror.test/security next/updates main\n\
            deb-src http://mirror.test/src next main\n\
            deb [arch=amd64 signed-by=/keys/a.gpg] http://mirror.test/debian next main contrib\n";
        let found = from_lines(text, "next");
        let expected = Source { uris: "http://mirror.test/debian".into(), signed_by: Some("/keys/a.gpg".into()) };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn a_stanza_of_the_release_is_found() {
        let text = "Types: deb\nURIs: http://mirror.test/off\nSuites: next\nEnabled: no\n\n\
            Types: deb\n# where it came from\nURIs: http://mirror.test/debian\nSuites: next next-updates\n\
            Components: main\nSigned-By: /keys/a.gpg\n\n\
            Types: deb\nURIs: http://mirror.test/security\nSuites: next-security\n";
        let found = from_stanzas(text, "next").map(|source| source.with_suite("later"));
        let expected = "Types: deb\nURIs: http://mirror.test/debian\nSuites: later\nComponents: main\n\
            Signed-By: /keys/a.gpg\n";
        assert_eq!(found.as_deref(), Some(expected));
    }

    #[test]
    fn a_key_written_into_the_source_is_kept_whole() {
        let text = "Types: deb\nURIs: http://mirror.test/debian\nSuites: next\nSigned-By:\n -----BEGIN\n .\n abc\n";
        let found = from_stanzas(text, "next").and_then(|source| source.signed_by);
        assert_eq!(found.as_deref(), Some("\n -----BEGIN\n .\n abc"));
    }

    #[test]
    fn the_release_is_named_by_the_machine() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=next\n").as_deref(), Some("next"));
        assert_eq!(codename("VERSION_CODENAME=\"next\"\n").as_deref(), Some("next"));
        assert_eq!(codename("ID=debian\n"), None);
    }
}
