//! `POST /internal/backup`: writes every row of the database into the bucket, compressed and sealed, and removes backups whose time is
//! over. A scheduler calls it with the cron secret as often as it likes: a backup is due once a day, or at once with `?now=true`. What time it
//! is, the database says.

use backup::{Manifest, retention};
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
/// Seconds for which a backup that is there is enough for a run that is due all the same, because the last one could not tidy up: that alone is
/// done again. Much less than a day, because the next run is due a day after this one.
const MADE_UP_FOR: i64 = 6 * 3_600;

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
    let recent = match call.query("now") {
        Some(_) => None,
        None => retention::newest(&keep::list(&bucket).await?.backups, run.started_at - MADE_UP_FOR, run.started_at),
    };
    let mut report = match recent {
        Some(id) => json!({"made_before": id}),
        None => {
            let Manifest { id, rows, plain_bytes, stored_bytes, .. } = snapshot::store(&bucket, &keys, &run).await?;
            json!({"backup": id, "rows": rows.values().sum::<u64>(), "plain_bytes": plain_bytes, "stored_bytes": stored_bytes})
        }
    };
    // The backup is there. What follows can be made up for by the next run.
    let kept = keep::sweep(&bucket, run.started_at).await;
    let failed = kept.as_ref().map_or(true, |kept| kept.overdue > 0);
    report["kept"] = match kept {
        Ok(kept) => json!(kept),
        Err(problem) => {
            meter::log(json!({"level": "error", "event": "backups_not_swept", "cause": problem.cause}));
            json!({"error": problem.code})
        }
    };
    Ok(Done { report, failed })
}
