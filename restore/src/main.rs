//! `ai-hairstyle-restore`: a backup becomes a database. `cargo xtask restore` builds and starts it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use config::Settings;
use restore::{
    Which, restore,
    source::{Bucket, Folder, Source},
};
use seal::Keys;

/// Restores a backup into a new database, checks it from end to end, brings it up to date and audits the books.
///
/// The bucket and the keys are those of the app: its variables, as Spin takes them from the environment.
#[derive(Parser)]
#[command(name = "cargo xtask restore", bin_name = "cargo xtask restore")]
struct Options {
    /// The file of the new database; it must not be there yet
    #[arg(long)]
    into: PathBuf,
    /// The id of a backup, or `latest`
    #[arg(long, default_value = "latest", value_name = "ID")]
    backup: String,
    /// A folder that is a copy of the bucket (at least of its `backups/`), in place of the bucket
    #[arg(long, value_name = "PATH")]
    from_folder: Option<PathBuf>,
    /// The folder of the migrations
    #[arg(long, default_value = "migrations")]
    migrations: PathBuf,
    #[arg(long, env = "SPIN_VARIABLE_S3_ENDPOINT", default_value = "")]
    s3_endpoint: String,
    #[arg(long, env = "SPIN_VARIABLE_S3_REGION", default_value = "auto")]
    s3_region: String,
    #[arg(long, env = "SPIN_VARIABLE_S3_BUCKET", default_value = "")]
    s3_bucket: String,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    // Secrets come from the environment only: arguments are for everybody to see.
    let secret = |name: &str| std::env::var(name).with_context(|| format!("set {name} in the environment"));
    let keys = secret("SPIN_VARIABLE_DATA_ENCRYPTION_KEY")?;
    let settings = Settings::from_values([(seal::VARIABLE, keys.as_str())]);
    let keys = Keys::from_settings(&settings).map_err(|problem| anyhow::anyhow!(problem.cause.unwrap_or(problem.detail)))?;
    let source: Box<dyn Source> = match &options.from_folder {
        Some(folder) => Box::new(Folder(folder.clone())),
        None => {
            let (id, key) = (secret("SPIN_VARIABLE_S3_ACCESS_KEY_ID")?, secret("SPIN_VARIABLE_S3_SECRET_ACCESS_KEY")?);
            Box::new(Bucket::new(&options.s3_endpoint, &options.s3_region, &options.s3_bucket, &id, &key)?)
        }
    };
    let which = if options.backup == "latest" { Which::Latest } else { Which::Id(options.backup.clone()) };
    let report = restore(source.as_ref(), &which, &keys, &options.migrations, &options.into)?;
    print!("{report}");
    if report.wrong() > 0 {
        eprintln!("restored, but {} rows break a rule: see above before the app runs on it", report.wrong());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
