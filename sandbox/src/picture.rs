//! The fake AI's hand: turns a photo into one that anybody can tell apart from it, and from another prompt's.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};

use crate::signature::stable_number;

/// What to make.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) prompt: String,
    /// Width to height; none keeps the photo's.
    pub(crate) aspect: Option<(u32, u32)>,
    pub(crate) format: ImageFormat,
    /// The longer side at most.
    pub(crate) px: u32,
    /// Which of several pictures for one prompt.
    pub(crate) variant: u32,
}

/// Paints the hair in a colour the prompt names (or one of its own) and frames the picture in it, with a row of
/// squares whose pattern is the prompt's. Without a photo it paints on an empty sheet.
pub(crate) fn paint(photo: Option<&[u8]>, wish: &Wish) -> Result<Vec<u8>, image::ImageError> {
    let picture = match photo {
        Some(bytes) => open(bytes)?,
        None => DynamicImage::ImageRgb8(RgbImage::from_pixel(wish.px, wish.px, Rgb([226, 226, 232]))),
    };
    let picture = match wish.aspect {
        Some(aspect) => crop(&picture, aspect),
        None => picture,
    };
    let picture = if picture.width().max(picture.height()) > wish.px { picture.thumbnail(wish.px, wish.px) } else { picture };
    let mut picture = picture.into_rgb8();
    let number = stable_number(&format!("{}#{}", wish.prompt, wish.variant));
    let colour = colour_of(&wish.prompt, number);
    dye_hair(&mut picture, colour);
    draw_frame(&mut picture, colour, number);
    let mut file = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture).write_to(&mut file, wish.format)?;
    Ok(file.into_inner())
}

/// Decodes JPEG, PNG or WebP, upright as its EXIF says.
fn open(bytes: &[u8]) -> Result<DynamicImage, image::ImageError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(20_000);
    limits.max_image_height = Some(20_000);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn crop(picture: &DynamicImage, (across, down): (u32, u32)) -> DynamicImage {
    let (width, height) = (u64::from(picture.width()), u64::from(picture.height()));
    let (across, down) = (u64::from(across), u64::from(down));
    let (new_width, new_height) =
        if width * down > height * across { (height * across / down, height) } else { (width, width * down / across) };
    let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    let (new_width, new_height) = (clamp(new_width), clamp(new_height));
    // Faces are in the upper part: cut from below rather than from above.
    picture.crop_imm((picture.width() - new_width) / 2, (picture.height() - new_height) / 4, new_width, new_height)
}

/// Colours people name in prompts. The last one named wins: it is usually the hair's.
const NAMED: [(&str, [u8; 3]); 16] = [
    ("platinum", [236, 226, 200]),
    ("blonde", [226, 184, 92]),
    ("blond", [226, 184, 92]),
    ("brown", [110, 66, 34]),
    ("brunette", [92, 54, 30]),
    ("black", [24, 22, 28]),
    ("red", [196, 38, 28]),
    ("auburn", [146, 52, 26]),
    ("ginger", [214, 104, 30]),
    ("copper", [190, 92, 40]),
    ("silver", [186, 190, 200]),
    ("gray", [140, 142, 148]),
    ("pink", [240, 110, 170]),
    ("purple", [128, 56, 190]),
    ("blue", [40, 86, 220]),
    ("green", [36, 160, 80]),
];

fn colour_of(prompt: &str, number: u64) -> [u8; 3] {
    let prompt = prompt.to_lowercase();
    let words: Vec<&str> = prompt.split(|c: char| !c.is_alphanumeric()).collect();
    if let Some(colour) = words.iter().rev().find_map(|word| NAMED.iter().find(|(name, _)| name == word)) {
        return colour.1;
    }
    // A vivid colour: one channel high, one low, one free.
    let free = (number >> 16) as u8;
    let mut colour = [230, 40, free];
    colour.rotate_left((number % 3) as usize);
    if number & 8 != 0 {
        colour.reverse();
    }
    colour
}

/// Dyes what is dark in a cap over the upper middle of the picture, where a portrait has its hair.
fn dye_hair(picture: &mut RgbImage, colour: [u8; 3]) {
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let across = (x as f32 / width - 0.5) / 0.42;
        let down = (y as f32 / height - 0.18) / 0.26;
        let inside = 1.0 - (across * across + down * down);
        if inside <= 0.0 {
            continue;
        }
        let [r, g, b] = pixel.0.map(f32::from);
        let light = (0.3 * r + 0.59 * g + 0.11 * b) / 255.0;
        // Dark pixels are hair, bright ones skin or background, which only get a breath of it; the cap's edge is soft.
        let bright = ((light - 0.45) / 0.2).clamp(0.0, 1.0);
        let strength = (inside * 3.0).min(1.0) * (0.95 - 0.85 * bright);
        for (channel, wanted) in pixel.0.iter_mut().zip(colour) {
            let old = f32::from(*channel);
            let dyed = f32::from(wanted) * (0.3 + 1.3 * light);
            *channel = (old + (dyed - old) * strength).clamp(0.0, 255.0) as u8;
        }
    }
}

/// A frame in the colour, and along its foot 32 squares that are lit where the prompt's number has a one.
fn draw_frame(picture: &mut RgbImage, colour: [u8; 3], number: u64) {
    let (width, height) = picture.dimensions();
    let thick = (width.min(height) / 40).max(2);
    let foot = thick * 3;
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if y + foot >= height {
            let square = (u64::from(x) * 32 / u64::from(width)).min(31);
            let lit = (number >> square) & 1 == 1 && y + foot - thick / 2 >= height && y + thick < height;
            pixel.0 = if lit { [255, 255, 255] } else { colour };
        } else if x < thick || y < thick || x + thick >= width {
            pixel.0 = colour;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]
mod tests {
    use super::*;

    const PHOTO: &[u8] = include_bytes!("../testdata/portrait.jpg");
    const WEBP: &[u8] = include_bytes!("../testdata/portrait.webp");

    fn wish(prompt: &str) -> Wish {
        Wish { prompt: prompt.into(), aspect: None, format: ImageFormat::Png, px: 128, variant: 0 }
    }

    /// How far two pictures are apart, channel by channel, on average.
    fn distance(a: &DynamicImage, b: &DynamicImage) -> f64 {
        let (a, b) = (a.to_rgb8(), b.to_rgb8());
        let sum: u64 = a.as_raw().iter().zip(b.as_raw()).map(|(x, y)| u64::from(x.abs_diff(*y))).sum();
        sum as f64 / a.as_raw().len() as f64
    }

    #[test]
    fn a_painted_picture_differs_from_the_photo_and_from_another_prompts() {
        let plain = open(PHOTO).unwrap().thumbnail(128, 128);
        let red = image::load_from_memory(&paint(Some(PHOTO), &wish("a bob cut, red hair")).unwrap()).unwrap();
        let blue = image::load_from_memory(&paint(Some(PHOTO), &wish("a bob cut, blue hair")).unwrap()).unwrap();
        assert_eq!(plain.width(), red.width());
        assert!(distance(&plain, &red) > 5.0);
        assert!(distance(&red, &blue) > 5.0);
    }

    #[test]
    fn the_same_prompt_makes_the_same_picture() {
        assert_eq!(paint(Some(PHOTO), &wish("curls")).unwrap(), paint(Some(PHOTO), &wish("curls")).unwrap());
    }

    #[test]
    fn webp_is_read_and_a_shape_is_kept() {
        let made = paint(Some(WEBP), &Wish { aspect: Some((2, 3)), format: ImageFormat::Jpeg, ..wish("curls") }).unwrap();
        assert_eq!(image::guess_format(&made).unwrap(), ImageFormat::Jpeg);
        let made = image::load_from_memory(&made).unwrap();
        assert!((f64::from(made.width()) / f64::from(made.height()) - 2.0 / 3.0).abs() < 0.02);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(paint(Some(b"<html>not a picture</html>"), &wish("curls")).is_err());
    }
}
