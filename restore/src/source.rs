//! Where backups lie: the bucket, or a folder that is a copy of it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rusty_s3::{Credentials, S3Action, UrlStyle, actions::ListObjectsV2};
use url::Url;

/// A place that holds objects under keys.
pub trait Source {
    /// All keys that begin like this, in order.
    ///
    /// # Errors
    /// When the place is out of reach.
    fn list(&self, prefix: &str) -> Result<Vec<String>>;

    /// An object, to be read; `None`: there is none.
    ///
    /// # Errors
    /// When the place is out of reach.
    fn open(&self, key: &str) -> Result<Option<Box<dyn Read>>>;
}

/// A folder in which each object is a file under its key.
pub struct Folder(pub PathBuf);

impl Source for Folder {
    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let (folder, _) = prefix.rsplit_once('/').unwrap_or_default();
        collect(&self.0, &self.0.join(folder), &mut keys)?;
        keys.retain(|key| key.starts_with(prefix));
        keys.sort();
        Ok(keys)
    }

    fn open(&self, key: &str) -> Result<Option<Box<dyn Read>>> {
        let path = self.0.join(key);
        match File::open(&path) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

fn collect(root: &Path, folder: &Path, keys: &mut Vec<String>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, keys)?;
        } else if let Some(key) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            keys.push(key.to_owned());
        }
    }
    Ok(())
}

/// The bucket itself: R2 or any S3.
pub struct Bucket {
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    agent: ureq::Agent,
}

/// How long the URLs are good that this program signs for itself: a backup is read in one go.
const URL_GOOD_FOR: Duration = Duration::from_secs(6 * 3_600);

impl Bucket {
    /// The bucket of this name at this endpoint.
    ///
    /// # Errors
    /// For an endpoint that is none.
    pub fn new(endpoint: &str, region: &str, name: &str, access_key_id: &str, secret_access_key: &str) -> Result<Self> {
        let url = Url::parse(endpoint).with_context(|| format!("the endpoint {endpoint:?} should be http(s)://host[:port]"))?;
        let bucket = rusty_s3::Bucket::new(url, UrlStyle::Path, name.to_owned(), region.to_owned())?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build();
        Ok(Self { bucket, credentials: Credentials::new(access_key_id, secret_access_key), agent: agent.into() })
    }

    /// The signed URL stays out of every message: it is a right.
    fn get(&self, what: &str, url: &Url) -> Result<Option<ureq::Body>> {
        let answer =
            self.agent.get(url.as_str()).call().map_err(|error| anyhow::anyhow!("the bucket is out of reach ({what}): {error}"))?;
        match answer.status().as_u16() {
            200 => Ok(Some(answer.into_body())),
            404 => Ok(None),
            status => bail!("the bucket answers {status} ({what}); are its name and its keys right?"),
        }
    }
}

impl Source for Bucket {
    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let (mut keys, mut continuation) = (Vec::new(), None::<String>);
        loop {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(prefix);
            if let Some(token) = continuation.take() {
                action.with_continuation_token(token);
            }
            let Some(mut body) = self.get("listing", &action.sign(URL_GOOD_FOR))? else {
                bail!("there is no bucket {}", self.bucket.name())
            };
            let page = ListObjectsV2::parse_response(&body.read_to_string()?).context("the bucket's listing is none")?;
            keys.extend(page.contents.into_iter().map(|object| object.key));
            match page.next_continuation_token {
                Some(token) => continuation = Some(token),
                None => break,
            }
        }
        keys.sort();
        Ok(keys)
    }

    fn open(&self, key: &str) -> Result<Option<Box<dyn Read>>> {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(URL_GOOD_FOR);
        Ok(self.get(key, &url)?.map(|body| Box::new(body.into_reader()) as Box<dyn Read>))
    }
}
