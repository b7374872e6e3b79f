//! `POST /internal/backup`: writes every row of the database into the bucket, compressed and sealed, and removes backups whose time is
//! over. A scheduler calls it with the cron secret as often as it likes: a backup is due once a day, or at once with `?now=true`.

use backup::Manifest;
use job::{Done, Run};
use problem::Problem;
use seal::Keys;
use serde_json::json;
use service::{Call, Reply, Request, Service};
use spin_sdk::{http::IntoResponse, http_service};
use storage::Bucket;

mod keep;
mod snapshot;

static SERVICE: Service = Service {
    name: "backup-cron",
    settings: &[
        "public_url",
        "cron_secret",
        "data_encryption_key",
        "s3_endpoint",
        "s3_region",
        "s3_bucket",
        "s3_access_key_id",
        "s3_secret_access_key",
    ],
};

/// Seconds from one backup to the next: less than a day, so that one who calls at the same hour each night finds it due.
const DUE_AFTER: i64 = 20 * 3_600;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    service::serve(&SERVICE, request, route).await
}

async fn route(call: Call) -> Result<Reply, Problem> {
    job::serve_if_due(&call, "backup", DUE_AFTER, |run| back_up(&call, run)).await
}

async fn back_up(call: &Call, run: Run) -> Result<Done, Problem> {
    let keys = Keys::from_settings(&call.settings)?;
    let bucket = Bucket::from_settings(&call.settings)?;
    let Manifest { id, rows, plain_bytes, stored_bytes, .. } = snapshot::store(&bucket, &keys, &run).await?;
    // The backup is there. What follows can be made up for by the next run.
    let kept = keep::sweep(&bucket, clock::now()).await;
    let failed = kept.is_err();
    let kept = match kept {
        Ok(kept) => json!(kept),
        Err(problem) => {
            meter::log(json!({"level": "error", "event": "backups_not_swept", "cause": problem.cause}));
            json!({"error": problem.code})
        }
    };
    let rows: u64 = rows.values().sum();
    Ok(Done { report: json!({"backup": id, "rows": rows, "plain_bytes": plain_bytes, "stored_bytes": stored_bytes, "kept": kept}), failed })
}
