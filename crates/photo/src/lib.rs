//! What a file really is, told from its first bytes; names and claimed types count for nothing.

mod clean;

pub use clean::{Clean, clean};

/// The kinds of photo that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Jpeg,
    Png,
    Webp,
}

impl Kind {
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
        }
    }

    /// The kind with this content type.
    #[must_use]
    pub fn named(content_type: &str) -> Option<Self> {
        match content_type {
            "image/jpeg" | "image/jpg" => Some(Self::Jpeg),
            "image/png" => Some(Self::Png),
            "image/webp" => Some(Self::Webp),
            _ => None,
        }
    }

    /// The extension of stored objects, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
        }
    }
}

/// A photo that may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Photo {
    pub kind: Kind,
    /// Pixels: as stored when it comes from [`inspect`], as seen when it comes from [`clean`].
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Why a file is not a photo for us. `Display` is for people.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("The file is empty.")]
    Empty,
    #[error("This is a HEIC photo. Export it as JPEG, PNG or WebP and try again.")]
    Heic,
    #[error("Only JPEG, PNG and WebP photos are accepted; this file is none of them.")]
    NotAPhoto,
    #[error("The photo is damaged: its size in pixels cannot be read.")]
    Damaged,
    #[error("The photo is {0} x {1} pixels; between {MIN_SIDE} and {MAX_SIDE} on each side are accepted.")]
    Dimensions(u32, u32),
    #[error("The photo is {0} x {1} pixels; at most {MAX_PIXELS} pixels in all are accepted.")]
    Pixels(u32, u32),
}

/// Smallest accepted side, in pixels: below it no face can be told.
pub const MIN_SIDE: u32 = 64;
/// Largest accepted side, in pixels: the provider takes no more, and what decodes it must not run out of memory.
pub const MAX_SIDE: u32 = 12_000;
/// Most pixels: what decodes a photo needs three or four bytes for each.
pub const MAX_PIXELS: u64 = 64_000_000;

/// The kind of image that `head` begins, if it is one we know.
#[must_use]
pub fn sniff(head: &[u8]) -> Option<Kind> {
    // One by one: asking infer what a file is links all its matchers, some eighty, for these three.
    if infer::image::is_jpeg(head) {
        Some(Kind::Jpeg)
    } else if infer::image::is_png(head) {
        Some(Kind::Png)
    } else if head.starts_with(b"RIFF") && infer::image::is_webp(head) {
        // RIFF is ours to check: infer looks at the other half of the signature only.
        Some(Kind::Webp)
    } else {
        None
    }
}

/// Looks at the beginning of a file (some hundred KiB are plenty; a whole small file is fine).
///
/// # Errors
/// See [`Refusal`].
pub fn inspect(head: &[u8]) -> Result<Photo, Refusal> {
    if head.is_empty() {
        return Err(Refusal::Empty);
    }
    let Some(kind) = sniff(head) else {
        let is_heif = head.get(4..8) == Some(b"ftyp")
            && head.get(8..12).is_some_and(|brand| [b"heic", b"heix", b"mif1", b"heim", b"msf1"].iter().any(|known| *known == brand));
        return Err(if is_heif { Refusal::Heic } else { Refusal::NotAPhoto });
    };
    let size = imagesize::blob_size(head).map_err(|_| Refusal::Damaged)?;
    let (Ok(width), Ok(height)) = (u32::try_from(size.width), u32::try_from(size.height)) else { return Err(Refusal::Damaged) };
    if [width, height].iter().any(|side| !(MIN_SIDE..=MAX_SIDE).contains(side)) {
        return Err(Refusal::Dimensions(width, height));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Refusal::Pixels(width, height));
    }
    Ok(Photo { kind, width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn portrait(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/../../tests/photos/{name}", env!("CARGO_MANIFEST_DIR"))).expect("a test photo")
    }

    #[test]
    fn real_photos_are_recognised_whatever_they_are_called() {
        for (name, kind) in [("portrait.jpg", Kind::Jpeg), ("portrait.png", Kind::Png), ("portrait.webp", Kind::Webp)] {
            let photo = inspect(&portrait(name)).expect(name);
            assert_eq!(photo.kind, kind);
            assert!(photo.width >= 512 && photo.height >= 512, "{photo:?}");
        }
    }

    #[test]
    fn what_is_not_a_photo_is_refused_with_a_reason() {
        assert_eq!(inspect(b""), Err(Refusal::Empty));
        assert_eq!(inspect(b"just some text"), Err(Refusal::NotAPhoto));
        assert_eq!(inspect(b"some of WEBP in its place"), Err(Refusal::NotAPhoto));
        assert_eq!(inspect(b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"), Err(Refusal::NotAPhoto));
        assert_eq!(inspect(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), Err(Refusal::Heic));
        assert_eq!(inspect(&portrait("portrait.jpg")[..20]), Err(Refusal::Damaged));
    }

    #[test]
    fn a_header_that_claims_a_huge_picture_is_refused() {
        let mut png = portrait("portrait.png");
        png[16..20].copy_from_slice(&100_000_u32.to_be_bytes());
        assert!(matches!(inspect(&png), Err(Refusal::Dimensions(100_000, _))));
        png[16..20].copy_from_slice(&11_000_u32.to_be_bytes());
        png[20..24].copy_from_slice(&11_000_u32.to_be_bytes());
        assert_eq!(inspect(&png), Err(Refusal::Pixels(11_000, 11_000)));
    }
}
