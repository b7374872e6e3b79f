//! Reading the data of a backup: what comes out is what went in, or nothing does.

use std::{
    io::{self, ErrorKind, Read},
    mem,
};

use miniz_oxide::inflate::decompress_to_vec_with_limit;
use seal::{HEAD, Keys, Opener, UnknownKey};

use crate::{FORMAT, Header, MAGIC, PIECE, SEALED, Totals, Value, pack::Count, place, record::End};

/// Why a backup cannot be read. Nothing that came out of it before is to be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the backup cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("this is not the data of a backup")]
    NotABackup,
    #[error("this backup has the form {0}, which is newer than this program; use a newer one")]
    Newer(u32),
    #[error(
        "the backup is sealed with the key {needed}, and data_encryption_key holds {known}; put the key it was made with behind the current one, after a comma"
    )]
    Key { needed: String, known: String },
    #[error("piece {0} of the backup does not open: it was changed, cut off, or put together from others")]
    Piece(u64),
    #[error("the backup holds what does not belong there: {0}")]
    Record(String),
}

impl From<UnknownKey> for Error {
    fn from(UnknownKey { needed, known }: UnknownKey) -> Self {
        Self::Key { needed, known: if known.is_empty() { "none".to_owned() } else { known.join(", ") } }
    }
}

/// Takes bytes and gives rows.
pub struct Unpacker<R> {
    source: R,
    opener: Option<Opener>,
    /// The next sealed piece, if there is one: a piece is the last when none follows.
    ahead: Option<Vec<u8>>,
    pieces: u64,
    /// What has been opened and not been read yet.
    lines: Vec<u8>,
    at: usize,
    header: Header,
    counts: Vec<u64>,
    plain: Count,
    stored: Count,
}

impl<R: Read> Unpacker<R> {
    /// Begins to read the data of the backup of this id.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn begin(source: R, keys: &Keys, id: &str) -> Result<Self, Error> {
        let header = Header { format: 0, id: String::new(), created_at: 0, app: String::new(), tables: Vec::new() };
        let mut unpacker = Self {
            source,
            opener: None,
            ahead: None,
            pieces: 0,
            lines: Vec::new(),
            at: 0,
            header,
            counts: Vec::new(),
            plain: Count::default(),
            stored: Count::default(),
        };
        let mut magic = [0_u8; MAGIC.len()];
        let mut head = [0_u8; HEAD];
        if unpacker.fill(&mut magic)? < MAGIC.len() || magic != *MAGIC || unpacker.fill(&mut head)? < HEAD {
            return Err(Error::NotABackup);
        }
        unpacker.opener = Some(keys.opener(&place(id), &head)?);
        unpacker.ahead = unpacker.sealed()?;
        let line = unpacker.line()?.ok_or(Error::NotABackup)?;
        // What comes later may have a header of another shape.
        let format =
            serde_json::from_slice::<serde_json::Value>(&line).ok().and_then(|header| u32::try_from(header["format"].as_u64()?).ok());
        match format {
            Some(format) if format <= FORMAT => {}
            Some(format) => return Err(Error::Newer(format)),
            None => return Err(Error::NotABackup),
        }
        unpacker.header = serde_json::from_slice(&line).map_err(|error| Error::Record(error.to_string()))?;
        unpacker.counts = vec![0; unpacker.header.tables.len()];
        if unpacker.header.id != id {
            return Err(Error::Record(format!("it calls itself {}", unpacker.header.id)));
        }
        Ok(unpacker)
    }

    /// What the backup says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next row: the place of its table in the header, and its values. `None`: that was all, and all of it was there.
    ///
    /// # Errors
    /// See [`Error`].
    #[expect(clippy::should_implement_trait, reason = "an error is the end of it, which an iterator does not say")]
    pub fn next(&mut self) -> Result<Option<(usize, Vec<Value>)>, Error> {
        let wrong = |error: serde_json::Error| Error::Record(error.to_string());
        let line = self.line()?.ok_or_else(|| Error::Record("no end".to_owned()))?;
        if line.starts_with(b"{") {
            let end: End = serde_json::from_slice(&line).map_err(wrong)?;
            if end.rows != self.rows() {
                return Err(Error::Record(format!("{:?} rows are promised, there are {:?}", end.rows, self.rows())));
            }
            return match self.line()? {
                None => Ok(None),
                Some(_) => Err(Error::Record("something after the end".to_owned())),
            };
        }
        let mut values: Vec<Value> = serde_json::from_slice(&line).map_err(wrong)?;
        let table = match values.first() {
            Some(Value::Integer(table)) => usize::try_from(*table).ok(),
            _ => None,
        };
        let fits = |table: &usize| self.header.tables.get(*table).is_some_and(|table| table.columns.len() + 1 == values.len());
        let table = table.filter(fits).ok_or_else(|| Error::Record("a row of no table".to_owned()))?;
        self.counts[table] += 1;
        values.remove(0);
        Ok(Some((table, values)))
    }

    /// What went by, to be compared with the manifest.
    pub fn totals(self) -> Totals {
        let rows = self.rows();
        let (plain_bytes, plain_sha256) = self.plain.finish();
        let (stored_bytes, stored_sha256) = self.stored.finish();
        Totals { rows, plain_bytes, plain_sha256, stored_bytes, stored_sha256 }
    }

    fn rows(&self) -> std::collections::BTreeMap<String, u64> {
        self.header.tables.iter().map(|table| table.name.clone()).zip(self.counts.iter().copied()).collect()
    }

    /// The next line without its end; `None`: nothing is left.
    fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut searched = self.at;
        loop {
            if let Some(length) = self.lines[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.lines[self.at..searched + length].to_vec();
                self.at = searched + length + 1;
                return Ok(Some(line));
            }
            // What was read goes; a line that is longer than a piece grows.
            self.lines.drain(..self.at);
            self.at = 0;
            searched = self.lines.len();
            match self.piece()? {
                Some(piece) => self.lines.extend_from_slice(&piece),
                None if self.lines.is_empty() => return Ok(None),
                None => return Err(Error::Record("half a line".to_owned())),
            }
        }
    }

    fn piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let Some(sealed) = self.ahead.take() else {
            // Nothing at all follows the head.
            return if self.opener.is_some() { Err(Error::Piece(self.pieces + 1)) } else { Ok(None) };
        };
        self.pieces += 1;
        self.ahead = self.sealed()?;
        let opened = match (&mut self.opener, &self.ahead) {
            (Some(opener), Some(_)) => opener.next(&sealed),
            (opener, _) => mem::take(opener).and_then(|opener| opener.last(&sealed)),
        };
        let piece = opened.and_then(|piece| decompress_to_vec_with_limit(&piece, PIECE * 2).ok()).ok_or(Error::Piece(self.pieces))?;
        self.plain.update(&piece);
        Ok(Some(piece))
    }

    /// The next sealed piece; `None` at the end of the data.
    fn sealed(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let broken = Error::Piece(self.pieces + 1);
        let mut length = [0_u8; 4];
        match self.fill(&mut length)? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(broken),
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > SEALED {
            return Err(broken);
        }
        let mut sealed = vec![0; length];
        if self.fill(&mut sealed)? < length { Err(broken) } else { Ok(Some(sealed)) }
    }

    /// Reads until the buffer is full or nothing is left.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.stored.update(&buffer[..filled]);
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use config::Settings;
    use proptest::prelude::*;

    use super::*;
    use crate::{Packer, Table, record::tests::value};

    const ID: &str = "20270115T080000Z_0123abcd";

    fn keys(secrets: &'static str) -> Keys {
        Keys::from_settings(&Settings::from_values([(seal::VARIABLE, secrets)])).expect("keys")
    }

    fn header(id: &str) -> Header {
        let table = |name: &str| Table { name: name.into(), columns: vec!["a".into(), "b".into()] };
        Header { format: FORMAT, id: id.into(), created_at: 1_800_000_000, app: "0".into(), tables: vec![table("one"), table("two")] }
    }

    type Rows = Vec<(usize, Vec<Value>)>;

    fn pack(id: &str, rows: &Rows) -> (Vec<u8>, crate::Manifest) {
        let mut packer = Packer::begin(&keys("one"), header(id)).expect("begun");
        let mut data = Vec::new();
        for (table, values) in rows {
            packer.row(*table, values).expect("a row");
            data.extend(packer.take());
        }
        let (rest, manifest) = packer.finish().expect("finished");
        data.extend(rest);
        (data, manifest)
    }

    fn unpack(data: &[u8], keys: &Keys) -> Result<(Rows, Totals), Error> {
        let mut unpacker = Unpacker::begin(data, keys, ID)?;
        let mut rows = Vec::new();
        while let Some(row) = unpacker.next()? {
            rows.push(row);
        }
        Ok((rows, unpacker.totals()))
    }

    /// Where the sealed pieces are, with their lengths before them.
    fn pieces(data: &[u8]) -> Vec<std::ops::Range<usize>> {
        let (mut at, mut pieces) = (MAGIC.len() + HEAD, Vec::new());
        while at < data.len() {
            let length = u32::from_be_bytes(data[at..at + 4].try_into().expect("four"));
            let end = at + 4 + length as usize;
            pieces.push(at..end);
            at = end;
        }
        pieces
    }

    fn many() -> Rows {
        // Random texts do not compress, so this is several pieces.
        let text = |seed: usize| (0..4_000_u64).map(|at| fingerprint::of(&format!("{seed} {at}"))).collect::<String>();
        (0..3).map(|number| (number % 2, vec![Value::Text(text(number)), Value::Null])).collect()
    }

    #[test]
    fn what_went_in_comes_out_and_the_manifest_says_so() {
        let rows = many();
        let (data, manifest) = pack(ID, &rows);
        assert_eq!(pieces(&data).len(), 3);
        let (back, totals) = unpack(&data, &keys("two,one")).expect("unpacked");
        assert_eq!(back, rows);
        assert_eq!(totals.rows, manifest.rows);
        assert_eq!((totals.plain_bytes, totals.plain_sha256), (manifest.plain_bytes, manifest.plain_sha256));
        assert_eq!((totals.stored_bytes, totals.stored_sha256), (manifest.stored_bytes, manifest.stored_sha256));
        assert_eq!(
            (data.len() as u64, fingerprint::of_bytes(&data)),
            (totals.stored_bytes, unpack(&data, &keys("one")).expect("again").1.stored_sha256)
        );
    }

    #[test]
    fn a_line_may_be_longer_than_a_piece_and_a_backup_without_rows_is_one() {
        let long = vec![(0, vec![Value::Text("é".repeat(PIECE * 3)), Value::Integer(i64::MIN)])];
        for rows in [long, Vec::new()] {
            let (data, _) = pack(ID, &rows);
            assert_eq!(unpack(&data, &keys("one")).expect("unpacked").0, rows);
        }
    }

    #[test]
    fn it_takes_the_key_and_says_which() {
        let (data, manifest) = pack(ID, &Vec::new());
        let error = unpack(&data, &keys("two")).expect_err("refused").to_string();
        assert!(error.contains(&manifest.key_id), "{error}");
    }

    #[test]
    fn pieces_that_were_swapped_left_out_or_taken_from_another_backup_do_not_open() {
        let rows = many();
        let (data, _) = pack(ID, &rows);
        let [first, second, third] = pieces(&data).try_into().expect("three");
        let put = |parts: &[&[u8]]| [&[&data[..first.start]], parts].concat().concat();
        let (one, two, three) = (&data[first.clone()], &data[second.clone()], &data[third.clone()]);
        let (other, _) = pack(ID, &rows);
        let (foreign, _) = pack("20270115T080000Z_ffffffff", &rows);
        for (what, changed) in [
            ("swapped", put(&[two, one, three])),
            ("left out", put(&[one, three])),
            ("twice", put(&[one, one, two, three])),
            ("without the last", put(&[one, two])),
            ("without any", put(&[])),
            ("with more", put(&[one, two, three, three])),
            ("from another", put(&[one, &other[second.clone()], three])),
            ("the whole of another", foreign),
        ] {
            let error = unpack(&changed, &keys("one")).expect_err(what);
            assert!(matches!(error, Error::Piece(_)), "{what}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_rows_come_back(rows in prop::collection::vec((0..2_usize, prop::collection::vec(value(), 2)), 0..30)) {
            let (data, manifest) = pack(ID, &rows);
            let (back, totals) = unpack(&data, &keys("one")).expect("unpacked");
            prop_assert_eq!(back, rows);
            prop_assert_eq!(totals.plain_sha256, manifest.plain_sha256);
        }

        #[test]
        fn nothing_that_was_changed_or_cut_off_is_taken(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let (data, _) = pack(ID, &vec![(0, vec![Value::Integer(1), Value::Text("Ada".into())])]);
            let at = at.index(data.len());
            let mut changed = data.clone();
            changed[at] ^= 1 << bit;
            prop_assert!(unpack(&changed, &keys("one")).is_err(), "byte {}", at);
            prop_assert!(unpack(&data[..at], &keys("one")).is_err(), "cut at {}", at);
        }

        #[test]
        fn nothing_that_looks_like_one_breaks_it(rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let data = [&MAGIC[..], &keys("one").sealer("backup x").expect("a sealer").head(), &rest].concat();
            prop_assert!(unpack(&data, &keys("one")).is_err());
            prop_assert!(unpack(&rest, &keys("one")).is_err());
        }
    }
}
