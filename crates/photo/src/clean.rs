//! Taking everything out of a photo that is not its picture.
//!
//! Phones write where and when a photo was taken, and by whom, into it; others hide programs in it or hang them on its end. What is kept of
//! a file is what a decoder needs, by name; anything else goes, known or not. Of the EXIF block one value is put back: the orientation,
//! without which a phone's photo lies on its side.
//!
//! img-parts takes the containers apart. It keeps what follows a JPEG's first scan as it is, so that is walked through here.

use bytes::{BufMut, Bytes, BytesMut};
use img_parts::{
    jpeg::{Jpeg, JpegSegment, markers},
    png::{Png, PngChunk},
    riff::{RiffChunk, RiffContent},
};

use crate::{Kind, Photo, Refusal, inspect};

mod pieces;

/// A photo without anything but its picture.
#[derive(Clone, Debug)]
pub struct Clean {
    /// With its width and height as a viewer shows it: after the rotation that its orientation asks for.
    pub photo: Photo,
    pub bytes: Bytes,
}

/// Looks at a whole file and takes out what is not its picture. Doing it again changes nothing.
///
/// # Errors
/// See [`Refusal`].
pub fn clean(file: Bytes) -> Result<Clean, Refusal> {
    let mut photo = inspect(&file)?;
    let (bytes, orientation) = match photo.kind {
        Kind::Jpeg => jpeg(file)?,
        Kind::Png => png(file)?,
        Kind::Webp => webp(file)?,
    };
    // A file that was broken in a certain way may be read as it came and not without what was taken out of it.
    if inspect(&bytes).ok() != Some(photo) {
        return Err(Refusal::Damaged);
    }
    if orientation >= 5 {
        (photo.width, photo.height) = (photo.height, photo.width);
    }
    Ok(Clean { photo, bytes })
}

fn jpeg(file: Bytes) -> Result<(Bytes, u8), Refusal> {
    pieces::of_jpeg(&file)?;
    let mut parsed = Jpeg::from_bytes(file).map_err(|_| Refusal::Damaged)?;
    let orientation = parsed.segments().iter().find_map(JpegSegment::exif_bytes).map_or(1, |exif| orientation_in(&exif));
    let segments = parsed.segments_mut();
    let Some(scan) = segments.last().filter(|last| last.marker() == markers::SOS) else { return Err(Refusal::Damaged) };
    let scan = scan.clone();
    segments.retain(is_picture);
    segments.pop();

    let mut bytes = BytesMut::new();
    bytes.put_slice(&[markers::P, markers::SOI]);
    let mut put = |segment: &JpegSegment| bytes.put_slice(&segment.clone().encoder().bytes());
    // JFIF has to come first.
    let (first, rest): (Vec<_>, Vec<_>) = segments.iter().partition(|segment| segment.marker() == markers::APP0);
    first.into_iter().for_each(&mut put);
    if orientation != 1 {
        put(&JpegSegment::new_with_contents(markers::APP1, [EXIF_PREFIX, &exif(orientation)].concat().into()));
    }
    rest.into_iter().for_each(&mut put);
    put(&JpegSegment::new_with_contents(markers::SOS, scan.contents().clone()));
    // The scan's coded bytes and all that follows, after the marker, the length and what it is the length of.
    let whole = scan.clone().encoder().bytes();
    put_scans(&mut bytes, whole.get(4 + scan.contents().len()..).ok_or(Refusal::Damaged)?)?;
    Ok((bytes.freeze(), orientation))
}

const EXIF_PREFIX: &[u8] = b"Exif\0\0";

trait ExifBytes {
    fn exif_bytes(&self) -> Option<Bytes>;
}

impl ExifBytes for JpegSegment {
    fn exif_bytes(&self) -> Option<Bytes> {
        (self.marker() == markers::APP1 && self.contents().starts_with(EXIF_PREFIX)).then(|| self.contents().slice(EXIF_PREFIX.len()..))
    }
}

/// Whether a decoder needs a segment: frames, tables, scans; JFIF and Adobe's colour transform; the colour profile.
fn is_picture(segment: &JpegSegment) -> bool {
    let contents = segment.contents();
    match segment.marker() {
        markers::APP0 => contents.starts_with(b"JFIF\0") && contents.len() == 14,
        markers::APP2 => contents.starts_with(b"ICC_PROFILE\0"),
        markers::APP14 => contents.starts_with(b"Adobe") && contents.len() == 12,
        marker => is_needed(marker),
    }
}

fn is_needed(marker: u8) -> bool {
    // SOF0 to SOF15 with DHT, JPG and DAC among them; SOS, DQT, DNL, DRI.
    matches!(marker, 0xC0..=0xC7 | 0xC9..=0xCF | 0xDA..=0xDD)
}

/// The picture's data: coded bytes, and between the scans of a progressive one the tables of the next. Ends with the picture.
fn put_scans(bytes: &mut BytesMut, mut rest: &[u8]) -> Result<(), Refusal> {
    let mut coded = true;
    loop {
        // Coded bytes up to the next marker; FF 00 is a byte FF, FF D0 to D7 are restarts, both are coded bytes too.
        let mut at = 0;
        let marker = loop {
            let found = rest.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == markers::P)).ok_or(Refusal::Damaged)?;
            at += found;
            match rest.get(at + 1).ok_or(Refusal::Damaged)? {
                0x00 | 0xD0..=0xD7 => at += 2,
                // Any number of FF may stand before a marker.
                0xFF => at += 1,
                marker => break *marker,
            }
        };
        // Only a scan is followed by any.
        if coded {
            bytes.put_slice(&rest[..at]);
        }
        rest = &rest[at + 2..];
        if marker == markers::EOI {
            bytes.put_slice(&[markers::P, markers::EOI]);
            return Ok(());
        }
        let length = rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length))).filter(|length| *length >= 2);
        let (segment, after) = length.and_then(|length| rest.split_at_checked(length)).ok_or(Refusal::Damaged)?;
        if is_needed(marker) {
            bytes.put_slice(&[markers::P, marker]);
            bytes.put_slice(segment);
        }
        coded = marker == markers::SOS;
        rest = after;
    }
}

fn png(file: Bytes) -> Result<(Bytes, u8), Refusal> {
    const KEPT: [&[u8; 4]; 16] = [
        b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"pHYs", b"bKGD", b"cICP", b"acTL",
        b"fcTL", b"fdAT",
    ];
    pieces::of_png(&file)?;
    let mut parsed = Png::from_bytes(file).map_err(|_| Refusal::Damaged)?;
    let chunks = parsed.chunks_mut();
    if chunks.first().is_none_or(|chunk| chunk.kind() != *b"IHDR") || chunks.last().is_none_or(|chunk| chunk.kind() != *b"IEND") {
        return Err(Refusal::Damaged);
    }
    let orientation = chunks.iter().find(|chunk| chunk.kind() == *b"eXIf").map_or(1, |chunk| orientation_in(chunk.contents()));
    chunks.retain(|chunk| KEPT.iter().any(|kind| chunk.kind() == **kind));
    for chunk in chunks.iter_mut().filter(|chunk| chunk.kind() == *b"IEND" && !chunk.contents().is_empty()) {
        *chunk = PngChunk::new(*b"IEND", Bytes::new());
    }
    if orientation != 1 {
        chunks.insert(1, PngChunk::new(*b"eXIf", exif(orientation).to_vec().into()));
    }
    Ok((parsed.encoder().bytes(), orientation))
}

fn webp(file: Bytes) -> Result<(Bytes, u8), Refusal> {
    const KEPT: [&[u8; 4]; 7] = [b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"];
    const HAS_EXIF: u8 = 0x08;
    const HAS_XMP: u8 = 0x04;
    pieces::of_webp(&file)?;
    let mut parsed = RiffChunk::from_bytes(file).map_err(|_| Refusal::Damaged)?;
    let RiffContent::List { kind: Some(kind), subchunks } = parsed.content_mut() else { return Err(Refusal::Damaged) };
    if kind != b"WEBP" || subchunks.is_empty() {
        return Err(Refusal::Damaged);
    }
    let exif_of = |chunk: &RiffChunk| chunk.content().data().filter(|_| chunk.id() == *b"EXIF").cloned();
    let orientation = subchunks.iter().find_map(exif_of).map_or(1, |data| orientation_in(data.strip_prefix(EXIF_PREFIX).unwrap_or(&data)));
    subchunks.retain(|chunk| chunk.content().data().is_some() && KEPT.iter().any(|id| chunk.id() == **id));
    // Only the extended format can say that there is an EXIF chunk.
    let extended = subchunks.first_mut().filter(|chunk| chunk.id() == *b"VP8X");
    let Some(first) = extended else { return Ok((parsed.encoder().bytes(), 1)) };
    let mut header = first.content().data().map(|data| data.to_vec()).unwrap_or_default();
    let flags = header.first_mut().ok_or(Refusal::Damaged)?;
    *flags &= !(HAS_EXIF | HAS_XMP);
    if orientation != 1 {
        *flags |= HAS_EXIF;
    }
    *first = RiffChunk::new(*b"VP8X", RiffContent::Data(header.into()));
    if orientation != 1 {
        subchunks.push(RiffChunk::new(*b"EXIF", RiffContent::Data(exif(orientation).to_vec().into())));
    }
    Ok((parsed.encoder().bytes(), orientation))
}

/// The EXIF tag of the orientation.
const ORIENTATION: u16 = 0x0112;

/// The smallest EXIF block (a TIFF directory) that says the orientation.
fn exif(orientation: u8) -> [u8; 26] {
    let mut block = *b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0";
    block[18] = orientation;
    block
}

/// The orientation in an EXIF block, 1 to 8; 1 when it says nothing sensible.
fn orientation_in(block: &[u8]) -> u8 {
    read_orientation(block).filter(|orientation| (1..=8).contains(orientation)).and_then(|value| u8::try_from(value).ok()).unwrap_or(1)
}

fn read_orientation(block: &[u8]) -> Option<u16> {
    let little = match block.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = *block.get(at..)?.first_chunk()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = *block.get(at..)?.first_chunk()?;
        usize::try_from(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }).ok()
    };
    let directory = long(4)?;
    let entries = usize::from(short(directory)?);
    let entry = (0..entries).map(|number| directory.saturating_add(2 + number * 12)).find(|at| short(*at) == Some(ORIENTATION))?;
    // A single SHORT stands in the entry itself.
    (short(entry.checked_add(2)?)? == 3).then(|| short(entry + 8)).flatten()
}

#[cfg(test)]
mod tests;
