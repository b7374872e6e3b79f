//! What a backup is: its form, for who makes one and who restores it, and how long it is kept. Nothing here reaches a store.
//!
//! A backup is a folder of the bucket, `backups/{id}/`, with two objects: `data`, and `manifest.json`, which is written last; without it
//! there is no backup. The data is every row of every table as one statement saw them ([`schema`]), as lines of JSON ([`record`]), in pieces
//! that are compressed and sealed one by one ([`Packer`], [`Unpacker`]).

pub mod manifest;
mod pack;
pub mod record;
pub mod retention;
pub mod schema;
mod unpack;

pub use manifest::Manifest;
pub use pack::{Packer, Totals};
pub use record::{Header, Table, Value};
pub use unpack::{Error, Unpacker};

use problem::Problem;

/// The form described here. Whoever reads knows this one and all before it.
pub const FORMAT: u32 = 1;
/// The first bytes of the data.
const MAGIC: &[u8; 8] = b"AIHBAK1\n";
/// Bytes of JSON in a piece, before they are compressed. Little enough to be held several times over, enough to be compressed well.
const PIECE: usize = 256 << 10;
/// The most bytes a sealed piece can have: what does not compress grows a little, and the seal is 16 bytes.
const SEALED: usize = PIECE + (PIECE >> 4) + 1_024;

/// A new backup's id: when it is made (Unix seconds), so that ids sort by time, and something random.
///
/// # Errors
/// `internal` without randomness.
pub fn id(now: i64) -> Result<String, Problem> {
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random).map_err(Problem::internal)?;
    Ok(format!("{}_{}", clock::stamp(now), fingerprint::hex(&random)))
}

/// When a backup was made, in Unix seconds; `None`: this is not the id of one.
#[must_use]
pub fn made_at(id: &str) -> Option<i64> {
    let (stamp, random) = id.split_once('_')?;
    let random = random.len() == 8 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    clock::parse_stamp(stamp).filter(|_| random)
}

/// What a backup's pieces are bound to.
fn place(id: &str) -> String {
    format!("backup {id}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_says_when_and_sorts() {
        let (one, two) = (super::id(1_800_000_000).expect("an id"), super::id(1_800_000_001).expect("an id"));
        assert!(one < two);
        assert_eq!((super::made_at(&one), super::made_at(&two)), (Some(1_800_000_000), Some(1_800_000_001)));
        for other in ["", "erasures", "20270115T080000Z", "20270115T080000Z_12345g78", "20270115T080000Z_1234567", "_12345678"] {
            assert_eq!(super::made_at(other), None, "{other}");
        }
    }
}
