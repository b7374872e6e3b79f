//! SHA-256 in hex: how things are named that must not be read back, and how files are told apart.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The fingerprint of a text.
#[must_use]
pub fn of(text: &str) -> String {
    of_bytes(text.as_bytes())
}

/// The fingerprint of bytes.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The fingerprint of something that arrives in pieces.
#[derive(Default)]
pub struct Running(Sha256);

impl Running {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    #[must_use]
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_and_in_pieces_are_the_same() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut running = Running::default();
        running.update(b"a");
        running.update(b"bc");
        assert_eq!((of("abc").as_str(), running.finish().as_str()), (known, known));
    }
}
