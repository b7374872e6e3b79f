//! How many pieces a file falls into, told before img-parts keeps a note of each: of empty ones ten megabytes hold millions, and their notes do
//! not fit into the memory of an instance. What is walked is what img-parts walks, in the same way, so that nothing is counted past it.

use img_parts::jpeg::markers;

use crate::Refusal;

/// Most segments of a JPEG before its first scan. A colour profile has 255 at most, metadata of ten megabytes 160.
const MOST_SEGMENTS: usize = 4_000;
/// Most chunks of a PNG or a WebP: ten megabytes in pieces of one KiB. Writers take eight and more.
const MOST_CHUNKS: usize = 10_000;
/// Lists of a WebP within each other. It has none of its own.
const DEEPEST: usize = 4;

/// Refuses a JPEG of too many segments, or one that ends within them.
pub fn of_jpeg(file: &[u8]) -> Result<(), Refusal> {
    let mut left = MOST_SEGMENTS;
    let mut rest = file.get(2..).ok_or(Refusal::Damaged)?;
    loop {
        // Whatever stands before a marker is skipped, and any number of FF.
        let (_, found) = rest.split_at(rest.iter().position(|byte| *byte == markers::P).ok_or(Refusal::Damaged)?);
        let at = found.iter().position(|byte| *byte != markers::P).ok_or(Refusal::Damaged)?;
        rest = &found[at + 1..];
        match found[at] {
            markers::EOI => return Ok(()),
            // SOF0 to SOF15, SOS to EXP, the applications', the extensions' and COM have a length; the others nothing that follows.
            marker @ (markers::SOF0..=markers::SOF15 | markers::SOS..=markers::COM) => {
                left = left.checked_sub(1).ok_or(Refusal::Damaged)?;
                let length = rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length))).filter(|length| *length >= 2);
                rest = length.and_then(|length| rest.get(length..)).ok_or(Refusal::Damaged)?;
                if marker == markers::SOS {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

/// Refuses a PNG of too many chunks, or one that ends within one.
pub fn of_png(file: &[u8]) -> Result<(), Refusal> {
    // After the signature.
    let mut rest = file.get(8..).ok_or(Refusal::Damaged)?;
    for _ in 0..MOST_CHUNKS {
        let Some(kind) = rest.get(4..8) else { return if rest.is_empty() { Ok(()) } else { Err(Refusal::Damaged) } };
        // A length, a kind, and a sum at the end.
        let length = rest.first_chunk().and_then(|length| usize::try_from(u32::from_be_bytes(*length)).ok()?.checked_add(12));
        rest = length.and_then(|length| rest.get(length..)).ok_or(Refusal::Damaged)?;
        if kind == b"IEND" {
            return Ok(());
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(Refusal::Damaged) }
}

/// Refuses a WebP of too many chunks, or one that ends within one.
pub fn of_webp(file: &[u8]) -> Result<(), Refusal> {
    let content = read_length(file).and_then(|length| file.get(12..length.checked_add(8)?)).ok_or(Refusal::Damaged)?;
    let mut left = MOST_CHUNKS;
    count_chunks(content, &mut left, DEEPEST).ok_or(Refusal::Damaged)
}

/// Counts down for each chunk, those of lists among them; `None` when there are too many, or one ends too early.
fn count_chunks(mut rest: &[u8], left: &mut usize, deepest: usize) -> Option<()> {
    while !rest.is_empty() {
        *left = left.checked_sub(1)?;
        let length = read_length(rest)?;
        let content = rest.get(8..length.checked_add(8)?)?;
        let within = match rest.get(..4)? {
            b"RIFF" | b"LIST" => Some(content.get(4..)?),
            b"seqt" => Some(content),
            _ => None,
        };
        let padding = match within {
            Some(within) => {
                count_chunks(within, left, deepest.checked_sub(1)?)?;
                0
            }
            None => length % 2,
        };
        rest = rest.get(8 + length + padding..)?;
    }
    Some(())
}

/// The length of a chunk's content, after its kind.
fn read_length(chunk: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*chunk.get(4..)?.first_chunk()?)).ok()
}
