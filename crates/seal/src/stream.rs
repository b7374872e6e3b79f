//! Long things, sealed in pieces as they go by: the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar 2015) over
//! XChaCha20-Poly1305, as the crate `aead` has it.
//!
//! The number of a piece and whether it is the last are part of its nonce, and the place is bound to each; so a piece that was changed, moved, left
//! out or taken from elsewhere does not open, and neither does what was cut off between two pieces.

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{
        Payload,
        stream::{DecryptorBE32, EncryptorBE32},
    },
};
use problem::Problem;

use crate::{Keys, Named};

/// Bytes of the random part of the nonces: 24 without the counter and the mark of the last piece.
const NONCE: usize = 19;
/// Bytes of a key's name.
const ID: usize = 8;
/// Bytes of [`Sealer::head`].
pub const HEAD: usize = ID + NONCE;

/// Seals the pieces of one thing, in their order.
pub struct Sealer {
    head: [u8; HEAD],
    place: String,
    stream: EncryptorBE32<XChaCha20Poly1305>,
}

/// Opens what a [`Sealer`] has sealed.
pub struct Opener {
    place: String,
    stream: DecryptorBE32<XChaCha20Poly1305>,
}

/// None of the keys is the one it was sealed with.
#[derive(Debug)]
pub struct UnknownKey {
    /// The name of the key that it takes.
    pub needed: String,
    /// The names of those there are.
    pub known: Vec<String>,
}

impl Keys {
    /// Begins to seal something long for one place, with the current key.
    ///
    /// # Errors
    /// `internal` without randomness.
    pub fn sealer(&self, place: &str) -> Result<Sealer, Problem> {
        let key = self.0.first().ok_or_else(|| Problem::internal("no key to seal with"))?;
        let mut nonce = [0_u8; NONCE];
        getrandom::fill(&mut nonce).map_err(Problem::internal)?;
        let mut head = [0_u8; HEAD];
        head[..ID].copy_from_slice(key.id.as_bytes());
        head[ID..].copy_from_slice(&nonce);
        let stream = EncryptorBE32::from_aead(key.stream_cipher(), (&nonce).into());
        Ok(Sealer { head, place: place.to_owned(), stream })
    }

    /// Begins to open what was sealed for this place and has this head.
    ///
    /// # Errors
    /// [`UnknownKey`].
    pub fn opener(&self, place: &str, head: &[u8; HEAD]) -> Result<Opener, UnknownKey> {
        let (id, rest) = head.split_at(ID);
        let mut nonce = [0_u8; NONCE];
        nonce.copy_from_slice(rest);
        let Some(key) = self.0.iter().find(|key| key.id.as_bytes() == id) else {
            let known = self.0.iter().map(|key: &Named| key.id.clone()).collect();
            return Err(UnknownKey { needed: String::from_utf8_lossy(id).into_owned(), known });
        };
        Ok(Opener { place: place.to_owned(), stream: DecryptorBE32::from_aead(key.stream_cipher(), (&nonce).into()) })
    }
}

impl Sealer {
    /// What goes before the pieces: the key's name and the random part of the nonces.
    #[must_use]
    pub fn head(&self) -> [u8; HEAD] {
        self.head
    }

    /// The name of the key.
    #[must_use]
    pub fn key_id(&self) -> String {
        String::from_utf8_lossy(&self.head[..ID]).into_owned()
    }

    /// Seals the next piece, which is not the last.
    ///
    /// # Errors
    /// `internal` after 2^32 pieces.
    pub fn next(&mut self, piece: &[u8]) -> Result<Vec<u8>, Problem> {
        self.stream.encrypt_next(Payload { msg: piece, aad: self.place.as_bytes() }).map_err(Problem::internal)
    }

    /// Seals the last piece.
    ///
    /// # Errors
    /// As [`Sealer::next`].
    pub fn last(self, piece: &[u8]) -> Result<Vec<u8>, Problem> {
        self.stream.encrypt_last(Payload { msg: piece, aad: self.place.as_bytes() }).map_err(Problem::internal)
    }
}

impl Opener {
    /// Opens the next piece, if it is that and not the last.
    #[must_use]
    pub fn next(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.stream.decrypt_next(Payload { msg: sealed, aad: self.place.as_bytes() }).ok()
    }

    /// Opens the last piece, if it is that.
    #[must_use]
    pub fn last(self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.stream.decrypt_last(Payload { msg: sealed, aad: self.place.as_bytes() }).ok()
    }
}

#[cfg(test)]
mod tests {
    use config::Settings;
    use proptest::prelude::*;

    use super::*;
    use crate::VARIABLE;

    fn keys(secrets: &'static str) -> Keys {
        Keys::from_settings(&Settings::from_values([(VARIABLE, secrets)])).expect("keys")
    }

    fn seal(keys: &Keys, place: &str, pieces: &[Vec<u8>]) -> ([u8; HEAD], Vec<Vec<u8>>) {
        let mut sealer = keys.sealer(place).expect("a sealer");
        let head = sealer.head();
        let (last, others) = pieces.split_last().expect("a piece");
        let mut sealed: Vec<_> = others.iter().map(|piece| sealer.next(piece).expect("sealed")).collect();
        sealed.push(sealer.last(last).expect("sealed"));
        (head, sealed)
    }

    fn open(keys: &Keys, place: &str, head: &[u8; HEAD], sealed: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
        let mut opener = keys.opener(place, head).ok()?;
        let (last, others) = sealed.split_last()?;
        let mut pieces = others.iter().map(|piece| opener.next(piece)).collect::<Option<Vec<_>>>()?;
        pieces.push(opener.last(last)?);
        Some(pieces)
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let (head, _) = seal(&keys("old"), "x", &[b"a".to_vec()]);
        let unknown = keys("new,newer").opener("x", &head).err().expect("refused");
        assert_eq!((unknown.needed, unknown.known.len()), (keys("old").sealer("x").expect("a sealer").key_id(), 2));
    }

    #[test]
    fn the_key_of_streams_is_no_other_key() {
        let keys = keys("one");
        let (head, sealed) = seal(&keys, "x", &[b"Ada".to_vec()]);
        assert!(open(&keys, "x", &head, &sealed).is_some());
        let text = keys.seal("x", "Ada").expect("sealed");
        assert!(!text.contains("Ada") && keys.open("x", &text).is_some());
    }

    proptest! {
        #[test]
        fn pieces_come_back_in_their_order_and_nothing_else_does(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 2..6),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let (one, both) = (keys("one"), keys("two,one"));
            let (head, sealed) = seal(&one, "x", &pieces);
            prop_assert_eq!(open(&both, "x", &head, &sealed), Some(pieces.clone()));
            prop_assert_eq!(open(&one, "y", &head, &sealed), None, "another place");
            let at = at.index(sealed.len());
            let mut changed = sealed.clone();
            let byte = usize::from(bit) % changed[at].len();
            changed[at][byte] ^= 1 << bit;
            prop_assert_eq!(open(&one, "x", &head, &changed), None, "a bit");
            let mut swapped = sealed.clone();
            swapped.swap(at, (at + 1) % sealed.len());
            prop_assert_eq!(open(&one, "x", &head, &swapped), None, "two pieces swapped");
            let mut without = sealed.clone();
            without.remove(at);
            prop_assert_eq!(open(&one, "x", &head, &without), None, "a piece left out");
            let mut twice = sealed.clone();
            twice.insert(at, sealed[at].clone());
            prop_assert_eq!(open(&one, "x", &head, &twice), None, "a piece twice");
            // A piece of another thing that was sealed with the same key for the same place.
            let (_, other) = seal(&one, "x", &pieces);
            let mut mixed = sealed;
            mixed[at] = other[at].clone();
            prop_assert_eq!(open(&one, "x", &head, &mixed), None, "a piece from elsewhere");
        }
    }
}
