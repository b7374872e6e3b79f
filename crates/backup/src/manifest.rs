//! What is said of a backup beside it. Nobody's data is in it, and nothing of it is believed that the data itself does not say too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`crate::FORMAT`].
    pub format: u32,
    pub id: String,
    /// Unix seconds: when the statement began whose view of the database this is.
    pub created_at: i64,
    /// The version of the app that made it.
    pub app: String,
    /// The number of the last migration; `None`: the database has no record of migrations.
    pub schema_version: Option<i64>,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
    /// Of the lines of JSON, before they were compressed.
    pub plain_bytes: u64,
    pub plain_sha256: String,
    /// Of the object `data`.
    pub stored_bytes: u64,
    pub stored_sha256: String,
    /// The name of the key of `data_encryption_key` that it was sealed with.
    pub key_id: String,
}
