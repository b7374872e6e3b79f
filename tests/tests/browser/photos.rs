//! Files that are no photo, or none that can be used: each gets a word that says why, and nothing is sent.

use std::path::PathBuf;

use e2e::photos;
use sandbox::Fault;
use tempfile::TempDir;

use crate::page::browse;
use crate::story::{portrait, sign_in};

/// Files as people have them.
struct Desktop(TempDir);

impl Desktop {
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.0.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file
    }
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(width, height).write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_usable_photo_is_told_so() {
    browse(async |page| {
        let desktop = Desktop(TempDir::new().unwrap());
        sign_in(page, "Ada Lovelace").await;
        let whole = photos::read("portrait.jpg");
        let files: [(&str, &[u8], &str); 7] = [
            ("text.jpg", b"Dear diary, this is no photo.", "This file is not a photo that can be used."),
            ("empty.jpg", b"", "This file is empty."),
            ("broken.jpg", &whole[..600], "This photo is damaged"),
            ("from-a-phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "This is a HEIC photo"),
            ("tiny.png", &png(40, 40), "This photo has 40 × 40 pixels. It needs at least 64 on each side."),
            ("wide.png", &png(12_001, 64), "This photo has 12,001 × 64 pixels. At most 12,000 on each side"),
            ("huge.png", &photos::noise(1_900), "10 MB is the most"),
        ];
        for (name, bytes, word) in files {
            page.choose_file(&desktop.file(name, bytes)).await;
            page.sees(word).await;
        }
        page.is_for_everybody().await;
        assert_eq!(page.world.sql_number("SELECT count(*) FROM uploads"), 0, "nothing was sent");

        // A good one afterwards is taken, and the word is gone.
        page.choose_file(&portrait()).await;
        page.pictures_are_there(".glass img").await;
        page.sees("Choose a hairstyle.").await;
        page.sees_no("10 MB is the most").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_can_be_pasted() {
    browse(async |page| {
        sign_in(page, "Ada Lovelace").await;
        page.sees("Drop a photo here, paste one, or").await;
        page.paste_file(&portrait(), "image/jpeg").await;
        page.sees("Choose a hairstyle.").await;
        assert_eq!(page.world.sql_number("SELECT count(*) FROM uploads WHERE status = 'stored'"), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_bucket_is_away_the_page_says_so_and_then_goes_on() {
    browse(async |page| {
        sign_in(page, "Ada Lovelace").await;
        page.sees("Drop a photo here").await;
        page.expects("/api/uploads", 503);
        page.world.fault(Fault::S3Answers { status: 503, method: Some("PUT".into()), prefix: None });
        page.choose_file(&portrait()).await;
        page.sees("The service is not available for a moment. Try again shortly.").await;
        page.world.control().clear_faults();
        page.choose_file(&portrait()).await;
        page.sees("Choose a hairstyle.").await;
        page.sees_no("The service is not available").await;
    })
    .await;
}
