//! Photos to upload: real ones from a folder, and large ones made on the spot.

use image::{ImageFormat, Rgb, RgbImage};

/// A real photo: `portrait.jpg`, `.png` or `.webp`.
#[must_use]
pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(crate::root().join("tests/photos").join(name)).unwrap()
}

#[must_use]
pub fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("png") => "image/png",
        Some("webp") => "image/webp",
        _ => "image/jpeg",
    }
}

/// A PNG of noise, which nothing can compress: about `side * side * 3` bytes.
#[must_use]
pub fn noise(side: u32) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let picture = RgbImage::from_fn(side, side, |_, _| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [a, b, c, ..] = state.to_be_bytes();
        Rgb([a, b, c])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// How much two pictures differ, 0 to 255: the mean difference of their pixels when both are made equally small.
#[must_use]
pub fn difference(one: &[u8], other: &[u8]) -> f64 {
    let small = |bytes: &[u8]| {
        let picture = image::load_from_memory(bytes).unwrap_or_else(|error| panic!("not a picture: {error}"));
        picture.resize_exact(32, 32, image::imageops::FilterType::Triangle).to_rgb8().into_raw()
    };
    let (one, other) = (small(one), small(other));
    let sum: u64 = one.iter().zip(&other).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / one.len() as f64
}
