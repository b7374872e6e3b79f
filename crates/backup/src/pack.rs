//! Making the data of a backup, in the memory of a few pieces.

use std::collections::BTreeMap;

use fingerprint::Running;
use miniz_oxide::deflate::compress_to_vec;
use problem::Problem;
use seal::{Keys, Sealer};
use serde::Serialize;

use crate::{
    Header, MAGIC, Manifest, PIECE, Value, place,
    record::{End, Row},
};

/// How hard it is tried to compress (1 to 10): beyond this it takes longer and hardly gets smaller. See docs/backups.md for what was measured.
const LEVEL: u8 = 2;

/// Takes rows and gives bytes to be stored.
pub struct Packer {
    header: Header,
    sealer: Sealer,
    key_id: String,
    counts: Vec<u64>,
    /// Which table and column hold the numbers of migrations.
    versions: Option<(usize, usize)>,
    schema_version: Option<i64>,
    /// Lines that are not in a piece yet.
    lines: Vec<u8>,
    /// Bytes that can be stored.
    ready: Vec<u8>,
    plain: Count,
    stored: Count,
}

/// What a backup has become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub rows: BTreeMap<String, u64>,
    pub plain_bytes: u64,
    pub plain_sha256: String,
    pub stored_bytes: u64,
    pub stored_sha256: String,
}

/// How much went by, and its fingerprint.
#[derive(Default)]
pub(crate) struct Count {
    bytes: u64,
    hash: Running,
}

impl Count {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    pub(crate) fn finish(self) -> (u64, String) {
        (self.bytes, self.hash.finish())
    }
}

impl Packer {
    /// Begins a backup with the current key.
    ///
    /// # Errors
    /// `internal` without randomness.
    pub fn begin(keys: &Keys, header: Header) -> Result<Self, Problem> {
        let sealer = keys.sealer(&place(&header.id))?;
        let versions = header.tables.iter().position(|table| table.name == "schema_migrations");
        let versions = versions.and_then(|at| Some((at, header.tables[at].columns.iter().position(|column| column == "version")?)));
        let mut packer = Self {
            key_id: sealer.key_id(),
            counts: vec![0; header.tables.len()],
            versions,
            schema_version: None,
            lines: Vec::with_capacity(PIECE * 2),
            ready: Vec::new(),
            plain: Count::default(),
            stored: Count::default(),
            sealer,
            header,
        };
        packer.store(MAGIC);
        packer.store(&packer.sealer.head());
        let header = packer.header.clone();
        packer.line(&header)?;
        Ok(packer)
    }

    /// Takes a row of the `table`-th table.
    ///
    /// # Errors
    /// `internal` for a table or a number of columns that the header does not have.
    pub fn row(&mut self, table: usize, values: &[Value]) -> Result<(), Problem> {
        let fits = self.header.tables.get(table).is_some_and(|table| table.columns.len() == values.len());
        let count =
            self.counts.get_mut(table).filter(|_| fits).ok_or_else(|| Problem::internal(format!("a row that is of no table: {table}")))?;
        *count += 1;
        if let Some((at, column)) = self.versions
            && at == table
            && let Value::Integer(version) = values[column]
        {
            self.schema_version = self.schema_version.max(Some(version));
        }
        self.line(&Row(table, values))
    }

    /// The bytes that can be stored by now; often none.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// Ends the backup: the last bytes to be stored, and what to say of it all.
    ///
    /// # Errors
    /// `internal` for one that is too large.
    pub fn finish(mut self) -> Result<(Vec<u8>, Manifest), Problem> {
        let rows: BTreeMap<String, u64> =
            self.header.tables.iter().map(|table| table.name.clone()).zip(self.counts.iter().copied()).collect();
        self.line(&End { rows: rows.clone() })?;
        self.plain.update(&self.lines);
        let last = self.sealer.last(&compress_to_vec(&self.lines, LEVEL))?;
        store(&mut self.ready, &mut self.stored, &length(&last)?);
        store(&mut self.ready, &mut self.stored, &last);
        let (plain_bytes, plain_sha256) = self.plain.finish();
        let (stored_bytes, stored_sha256) = self.stored.finish();
        let Header { format, id, created_at, app, .. } = self.header;
        let (schema_version, key_id) = (self.schema_version, self.key_id);
        let manifest =
            Manifest { format, id, created_at, app, schema_version, rows, plain_bytes, plain_sha256, stored_bytes, stored_sha256, key_id };
        Ok((self.ready, manifest))
    }

    fn line(&mut self, record: &impl Serialize) -> Result<(), Problem> {
        serde_json::to_writer(&mut self.lines, record).map_err(Problem::internal)?;
        self.lines.push(b'\n');
        while self.lines.len() > PIECE {
            let (piece, _) = self.lines.split_at(PIECE);
            self.plain.update(piece);
            let sealed = self.sealer.next(&compress_to_vec(piece, LEVEL))?;
            self.lines.drain(..PIECE);
            self.store(&length(&sealed)?);
            self.store(&sealed);
        }
        Ok(())
    }

    fn store(&mut self, bytes: &[u8]) {
        store(&mut self.ready, &mut self.stored, bytes);
    }
}

fn store(ready: &mut Vec<u8>, stored: &mut Count, bytes: &[u8]) {
    stored.update(bytes);
    ready.extend_from_slice(bytes);
}

/// A sealed piece follows its length.
fn length(sealed: &[u8]) -> Result<[u8; 4], Problem> {
    u32::try_from(sealed.len()).map(u32::to_be_bytes).map_err(Problem::internal)
}
