use std::collections::BTreeMap;

use image::DynamicImage;
use proptest::prelude::*;

use super::*;

const SECRET: &[u8] = b"47.3769 N 8.5417 E, taken by Ada";

fn portrait(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../tests/photos/{name}", env!("CARGO_MANIFEST_DIR"))).expect("a test photo")
}

fn decode(bytes: &[u8]) -> DynamicImage {
    image::load_from_memory(bytes).expect("a picture")
}

/// An EXIF block with an orientation and, where a camera puts them, a place and a name.
fn camera(orientation: u8, little: bool) -> Vec<u8> {
    let mut block = exif(orientation).to_vec();
    if !little {
        block = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
        block[19] = orientation;
    }
    block.extend_from_slice(SECRET);
    block
}

fn jpeg_with(extra: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut parsed = Jpeg::from_bytes(portrait("portrait.jpg").into()).expect("a jpeg");
    for (marker, contents) in extra {
        parsed.segments_mut().insert(1, JpegSegment::new_with_contents(*marker, contents.clone().into()));
    }
    parsed.encoder().bytes().to_vec()
}

fn png_with(extra: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut parsed = Png::from_bytes(portrait("portrait.png").into()).expect("a png");
    for (kind, contents) in extra {
        parsed.chunks_mut().insert(1, PngChunk::new(**kind, contents.clone().into()));
    }
    parsed.encoder().bytes().to_vec()
}

/// The portrait in WebP's extended format, with chunks at its end, and flags that say so.
fn webp_with(extra: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let photo = inspect(&portrait("portrait.webp")).expect("a photo");
    let mut parsed = RiffChunk::from_bytes(portrait("portrait.webp").into()).expect("a webp");
    let RiffContent::List { subchunks, .. } = parsed.content_mut() else { panic!("a list") };
    if subchunks[0].id() != *b"VP8X" {
        let mut header = vec![0_u8; 4];
        header.extend_from_slice(&(photo.width - 1).to_le_bytes()[..3]);
        header.extend_from_slice(&(photo.height - 1).to_le_bytes()[..3]);
        subchunks.insert(0, RiffChunk::new(*b"VP8X", RiffContent::Data(header.into())));
    }
    let mut header = subchunks[0].content().data().expect("data").to_vec();
    header[0] |= 0x0c;
    subchunks[0] = RiffChunk::new(*b"VP8X", RiffContent::Data(header.into()));
    for (id, contents) in extra {
        subchunks.push(RiffChunk::new(**id, RiffContent::Data(contents.clone().into())));
    }
    parsed.encoder().bytes().to_vec()
}

fn exif_segment(block: &[u8]) -> Vec<u8> {
    [b"Exif\0\0", block].concat()
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// Files that strangers send, by what they are.
fn corpus() -> BTreeMap<String, Vec<u8>> {
    let [jpeg, png, webp] = ["portrait.jpg", "portrait.png", "portrait.webp"].map(portrait);
    let xmp = [b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>", SECRET].concat();
    let append = |file: &[u8], tail: &[u8]| [file, tail].concat();
    let with = |file: &[u8], at: usize, bytes: &[u8]| {
        let mut file = file.to_vec();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let mut jpeg_empty_segment = jpeg[..2].to_vec();
    jpeg_empty_segment.extend_from_slice(&[0xff, 0xe5, 0, 0]);
    jpeg_empty_segment.extend_from_slice(&jpeg[2..]);
    let mut jpeg_long_segment = jpeg[..2].to_vec();
    jpeg_long_segment.extend_from_slice(&[0xff, 0xe5, 0xff, 0xff, 1, 2, 3]);
    let files = [
        (
            "jpeg from a phone",
            jpeg_with(&[(0xe1, exif_segment(&camera(6, true))), (0xe1, xmp.clone()), (0xed, SECRET.to_vec()), (0xfe, SECRET.to_vec())]),
        ),
        ("jpeg, big-endian exif", jpeg_with(&[(0xe1, exif_segment(&camera(8, false)))])),
        (
            "jpeg with a second picture after its end",
            append(&jpeg_with(&[(0xe2, [b"MPF\0", SECRET].concat())]), &jpeg_with(&[(0xe1, exif_segment(&camera(3, true)))])),
        ),
        ("jpeg and zip", append(&jpeg, &[b"PK\x03\x04evil.jar", SECRET].concat())),
        ("jpeg and html", append(&jpeg_with(&[(0xfe, b"<html><script>alert(1)</script>".to_vec())]), b"<html><script>alert(1)</script>")),
        ("jpeg that stops", jpeg[..jpeg.len() / 2].to_vec()),
        ("jpeg without a picture", vec![0xff, 0xd8, 0xff, 0xd9]),
        ("jpeg with an empty segment", jpeg_empty_segment),
        ("jpeg with a segment past its end", jpeg_long_segment),
        (
            "png from a phone",
            png_with(&[
                (b"eXIf", camera(6, true)),
                (b"tEXt", [b"Comment\0", SECRET].concat()),
                (b"iTXt", xmp.clone()),
                (b"zTXt", SECRET.to_vec()),
            ]),
        ),
        ("png with php in it", append(&png_with(&[(b"tEXt", b"x\0<?php system($_GET[0]); ?>".to_vec())]), b"<?php system($_GET[0]); ?>")),
        ("png with a chunk of its own", png_with(&[(b"prVt", SECRET.to_vec())])),
        ("png with a wrong sum", with(&png, 30, &[0xaa])),
        ("png with an endless chunk", with(&png, 33, &[0xff; 4])),
        ("png that stops", png[..png.len() / 2].to_vec()),
        ("png, 100,000 wide", with(&png, 16, &100_000_u32.to_be_bytes())),
        ("png, a square of 11,000", with(&with(&png, 16, &11_000_u32.to_be_bytes()), 20, &11_000_u32.to_be_bytes())),
        ("webp from a phone", webp_with(&[(b"EXIF", camera(6, true)), (b"XMP ", xmp)])),
        ("webp and zip", append(&webp, &[b"PK\x03\x04", SECRET].concat())),
        ("webp with an endless chunk", with(&webp, 16, &[0xff; 4])),
        ("webp that stops", webp[..webp.len() / 2].to_vec()),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>".to_vec()),
        ("heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()),
        ("zip", b"PK\x03\x04whatever".to_vec()),
        ("html", b"<!doctype html><script>alert(1)</script>".to_vec()),
        ("pdf", b"%PDF-1.7".to_vec()),
        ("gif", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec()),
        ("nothing", Vec::new()),
        ("a byte", vec![0xff]),
    ];
    files.into_iter().map(|(name, file)| (name.to_owned(), file)).chain(kept()).collect()
}

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

/// The files of the folder `corpus`.
fn kept() -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(KEPT).expect("a folder").map(|entry| entry.expect("an entry").path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension != "md"))
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), std::fs::read(&path).expect("a file")))
        .collect()
}

#[test]
fn the_files_that_are_kept_are_taken_or_refused_as_their_names_say() {
    let kept = kept();
    assert!(kept.len() >= 20, "{}", kept.len());
    for (name, file) in kept {
        assert!(file.len() < 4_096, "{name}: {} bytes", file.len());
        match clean(file.clone().into()) {
            Ok(clean) => {
                assert!(name.starts_with("taken-"), "{name} is taken");
                assert!(!holds(&clean.bytes, SECRET) && !holds(&clean.bytes, b"PK\x03\x04") && !holds(&clean.bytes, b"<script>"), "{name}");
            }
            Err(refusal) => assert!(name.starts_with("refused-"), "{name}: {refusal}"),
        }
        holds_for(file);
    }
}

/// Writes the files that are kept: `cargo test -p photo -- --ignored`. Finds of a fuzzer are put beside them.
#[test]
#[ignore = "it writes into the source tree"]
fn the_files_that_are_kept_are_written_anew() {
    let picture = DynamicImage::ImageRgb8(image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * 4) as u8, (y * 4) as u8, 128])));
    let encoded = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("encodes");
        bytes.into_inner()
    };
    let (jpeg, png, webp) = (encoded(image::ImageFormat::Jpeg), encoded(image::ImageFormat::Png), encoded(image::ImageFormat::WebP));
    let with = |file: &[u8], at: usize, bytes: &[u8]| {
        let mut file = file.to_vec();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let into = |file: &[u8], at: usize, bytes: &[u8]| [&file[..at], bytes, &file[at..]].concat();
    let segment = |marker: u8, contents: &[u8]| {
        let length = u16::try_from(contents.len() + 2).expect("short");
        [&[0xff, marker][..], &length.to_be_bytes(), contents].concat()
    };
    let phone = into(&jpeg, 2, &segment(0xe1, &exif_segment(&camera(6, true))));
    let files: [(&str, Vec<u8>); 24] = [
        ("taken-small.jpg", jpeg.clone()),
        ("taken-small.png", png.clone()),
        ("taken-small.webp", webp.clone()),
        ("taken-phone.jpg", phone.clone()),
        ("taken-archive-behind.jpg", [&jpeg[..], b"PK\x03\x04evil.jar", SECRET].concat()),
        ("taken-second-picture-behind.jpg", [&jpeg[..], &phone].concat()),
        ("taken-comment-with-a-page.jpg", into(&jpeg, 2, &segment(0xfe, b"<html><script>alert(1)</script>"))),
        ("taken-page-behind.png", [&png[..], b"<html><script>alert(1)</script>"].concat()),
        ("taken-archive-behind.webp", [&webp[..], b"PK\x03\x04", SECRET].concat()),
        ("refused-half.jpg", jpeg[..jpeg.len() / 2].to_vec()),
        ("refused-half.png", png[..png.len() / 2].to_vec()),
        ("refused-half.webp", webp[..webp.len() / 2].to_vec()),
        ("refused-no-picture.jpg", vec![0xff, 0xd8, 0xff, 0xd9]),
        ("refused-empty-segment.jpg", into(&jpeg, 2, &[0xff, 0xe5, 0, 0])),
        ("refused-segment-past-the-end.jpg", [&jpeg[..2], &[0xff, 0xe5, 0xff, 0xff, 1, 2, 3]].concat()),
        ("refused-endless-chunk.png", with(&png, 33, &[0xff; 4])),
        ("refused-wrong-sum.png", with(&png, 30, &[!png[30]])),
        ("refused-100000-wide.png", with(&png, 16, &100_000_u32.to_be_bytes())),
        ("refused-121-megapixels.png", with(&with(&png, 16, &11_000_u32.to_be_bytes()), 20, &11_000_u32.to_be_bytes())),
        ("refused-no-pixels.png", with(&png, 16, &[0; 8])),
        ("refused-endless-chunk.webp", with(&webp, 16, &[0xff; 4])),
        ("refused-script.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>".to_vec()),
        ("refused-named-jpg.html.jpg", b"<!doctype html><script>alert(1)</script>".to_vec()),
        ("refused-photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()),
    ];
    for (name, file) in files {
        std::fs::write(format!("{KEPT}/{name}"), file).expect("written");
    }
}

#[test]
fn what_a_phone_writes_into_a_photo_goes_and_its_picture_stays() {
    for (name, original) in
        [("jpeg from a phone", "portrait.jpg"), ("png from a phone", "portrait.png"), ("webp from a phone", "portrait.webp")]
    {
        let file = corpus()[name].clone();
        assert!(holds(&file, SECRET), "{name}");
        let clean = clean(file.into()).expect(name);
        for trace in [SECRET, b"xmpmeta", b"http://ns.adobe.com", b"Comment"] {
            assert!(!holds(&clean.bytes, trace), "{name}: {}", String::from_utf8_lossy(trace));
        }
        assert_eq!(decode(&clean.bytes).to_rgba8(), decode(&portrait(original)).to_rgba8(), "{name}");
        // Orientation 6: on its side.
        let stored = inspect(&portrait(original)).expect(original);
        assert_eq!((clean.photo.width, clean.photo.height), (stored.height, stored.width), "{name}");
        assert!(holds(&clean.bytes, &exif(6)), "{name}");
    }
    let big_endian = clean(corpus()["jpeg, big-endian exif"].clone().into()).expect("a photo");
    assert!(holds(&big_endian.bytes, &exif(8)));
}

#[test]
fn a_photo_without_anything_else_is_left_as_it_is() {
    for name in ["portrait.jpg", "portrait.png", "portrait.webp"] {
        let once = clean(portrait(name).into()).expect(name);
        assert_eq!(Ok(once.photo), inspect(&portrait(name)));
        assert_eq!(decode(&once.bytes).to_rgba8(), decode(&portrait(name)).to_rgba8(), "{name}");
        assert!(!holds(&once.bytes, b"Exif"), "{name}");
    }
}

#[test]
fn nothing_hangs_on_the_end_of_a_photo() {
    for name in [
        "jpeg with a second picture after its end",
        "jpeg and zip",
        "jpeg and html",
        "png with php in it",
        "png with a chunk of its own",
        "webp and zip",
    ] {
        let clean = clean(corpus()[name].clone().into()).expect(name);
        for trace in [SECRET, b"PK\x03\x04", b"<html>", b"<?php", b"MPF\0"] {
            assert!(!holds(&clean.bytes, trace), "{name}: {}", String::from_utf8_lossy(trace));
        }
        decode(&clean.bytes);
    }
}

#[test]
fn what_is_damaged_or_no_photo_is_refused_with_a_reason() {
    let refusal = |name: &str| clean(corpus()[name].clone().into()).expect_err(name);
    for name in [
        "jpeg that stops",
        "jpeg without a picture",
        "jpeg with an empty segment",
        "jpeg with a segment past its end",
        "png with a wrong sum",
        "png with an endless chunk",
        "png that stops",
        "webp with an endless chunk",
        "webp that stops",
    ] {
        assert_eq!(refusal(name), Refusal::Damaged, "{name}");
    }
    for name in ["svg", "zip", "html", "pdf", "gif", "a byte"] {
        assert_eq!(refusal(name), Refusal::NotAPhoto, "{name}");
    }
    assert_eq!(refusal("heic"), Refusal::Heic);
    assert_eq!(refusal("nothing"), Refusal::Empty);
    assert_eq!(refusal("png, a square of 11,000"), Refusal::Pixels(11_000, 11_000));
    assert!(matches!(refusal("png, 100,000 wide"), Refusal::Dimensions(100_000, _)));
}

/// The portrait of a kind with so many empty pieces in it.
fn in_pieces(kind: Kind, pieces: usize) -> Vec<u8> {
    let into = |file: &[u8], at: usize, piece: &[u8]| [&file[..at], &piece.repeat(pieces), &file[at..]].concat();
    match kind {
        Kind::Jpeg => into(&portrait("portrait.jpg"), 2, &[0xff, 0xe5, 0, 2]),
        Kind::Png => into(&portrait("portrait.png"), 33, &PngChunk::new(*b"prVt", Bytes::new()).encoder().bytes()),
        Kind::Webp => webp_of([&webp_with(&[])[12..], &b"ABCD\0\0\0\0".repeat(pieces)].concat()),
    }
}

fn webp_of(chunks: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(chunks.len() + 4).expect("short");
    [b"RIFF", &length.to_le_bytes()[..], b"WEBP", &chunks].concat()
}

#[test]
fn a_photo_has_many_pieces_and_not_any_number() {
    for (kind, many, too_many) in [(Kind::Jpeg, 3_900, 4_001), (Kind::Png, 9_000, 10_001), (Kind::Webp, 9_900, 10_001)] {
        let taken = clean(in_pieces(kind, many).into()).expect("a photo");
        assert_eq!(taken.bytes, clean(in_pieces(kind, 0).into()).expect("a photo").bytes, "{kind:?}");
        assert_eq!(clean(in_pieces(kind, too_many).into()).expect_err("refused"), Refusal::Damaged, "{kind:?}");
    }
}

#[test]
fn pieces_count_wherever_they_are() {
    // Before the scan, with bytes between the markers that are none, and any number of FF.
    let jpeg = portrait("portrait.jpg");
    let strewn = [&jpeg[..2], &[7, 0xff, 0xff, 0xe5, 0, 2, 0xff, 0xd0].repeat(4_001), &jpeg[2..]].concat();
    assert_eq!(pieces::of_jpeg(&strewn), Err(Refusal::Damaged));
    let webp = webp_with(&[]);
    let list = |id: &[u8; 4], kind: &[u8], chunks: &[u8]| {
        [&id[..], &u32::try_from(kind.len() + chunks.len()).expect("short").to_le_bytes(), kind, chunks].concat()
    };
    let many = b"ABCD\0\0\0\0".repeat(10_001);
    for (what, chunks, refused) in [
        ("a list", list(b"LIST", b"INFO", b"ABCD\0\0\0\0"), false),
        ("a list of many", list(b"LIST", b"INFO", &many), true),
        ("a list of many in a list", list(b"LIST", b"INFO", &list(b"seqt", b"", &many)), true),
        ("many lists", list(b"LIST", b"INFO", b"").repeat(10_001), true),
        ("lists without end", (0..100).fold(Vec::new(), |inner, _| list(b"seqt", b"", &inner)), true),
        // A length that is not its own hides nothing of what follows.
        ("a chunk past its list", [list(b"LIST", b"INFO", b"ABCD\xff\xff\xff\0"), many.clone()].concat(), true),
    ] {
        let file = webp_of([&webp[12..], &chunks].concat());
        let cleaned = clean(file.into());
        assert_eq!(cleaned.as_ref().err(), refused.then_some(&Refusal::Damaged), "{what}");
    }
}

#[test]
fn a_progressive_photo_keeps_all_its_scans() {
    // Two scans with a table and a comment between them: the comment goes, the order stays.
    let scans = [
        &[1, 2, 0xff, 0, 3, 0xff, 0xd0, 4][..],
        &[0xff, 0xfe, 0, 4, 9, 9, 7, 7],
        &[0xff, 0xc4, 0, 3, 5],
        &[0xff, 0xda, 0, 3, 6, 8, 8, 0xff, 0xd9, 1, 2],
    ]
    .concat();
    let mut bytes = BytesMut::new();
    put_scans(&mut bytes, &scans).expect("whole");
    assert_eq!(bytes[..], [1, 2, 0xff, 0, 3, 0xff, 0xd0, 4, 0xff, 0xc4, 0, 3, 5, 0xff, 0xda, 0, 3, 6, 8, 8, 0xff, 0xd9]);
}

#[test]
fn an_orientation_is_read_in_both_byte_orders_and_from_nonsense_as_upright() {
    for orientation in 1..=8 {
        assert_eq!(orientation_in(&camera(orientation, true)), orientation);
        assert_eq!(orientation_in(&camera(orientation, false)), orientation);
    }
    let far = [&exif(6)[..4], &[0xff; 4], &exif(6)[8..]].concat();
    for nonsense in [&b""[..], b"II", b"XX*\0\x08\0\0\0", &far, &exif(0), &exif(9), &exif(6)[..12]] {
        assert_eq!(orientation_in(nonsense), 1, "{nonsense:?}");
    }
}

/// What holds of any file whatever.
fn holds_for(file: Vec<u8>) {
    let Ok(once) = clean(file.into()) else { return };
    let again = clean(once.bytes.clone()).expect("what is clean is a photo");
    assert_eq!((again.photo, &again.bytes), (once.photo, &once.bytes), "cleaning twice changes nothing");
    assert!(!holds(&once.bytes[..once.bytes.len().min(2_000)], b"http://ns.adobe.com/xap"));
}

#[test]
fn every_file_of_the_corpus_is_a_photo_or_refused_wherever_it_is_cut() {
    for file in corpus().into_values() {
        for part in 1..=16 {
            holds_for(file[..file.len() * part / 16].to_vec());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_change_to_a_file_breaks_anything(which in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), near_the_start in any::<bool>()) {
        let files = corpus();
        let mut file = files.values().nth(which.index(files.len())).expect("a file").clone();
        for (at, byte) in changes {
            let length = if near_the_start { file.len().min(400) } else { file.len() };
            if length > 0 {
                let at = at.index(length);
                file[at] = byte;
            }
        }
        holds_for(file);
    }

    #[test]
    fn no_splice_of_two_files_breaks_anything(one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(), from in any::<prop::sample::Index>()) {
        let files: Vec<Vec<u8>> = corpus().into_values().collect();
        let (one, other) = (one.get(&files), other.get(&files));
        let (cut, from) = (cut.index(one.len() + 1), from.index(other.len() + 1));
        holds_for([&one[..cut], &other[from..]].concat());
    }

    #[test]
    fn no_exif_block_breaks_anything(block in prop::collection::vec(any::<u8>(), 0..80), little in any::<bool>()) {
        let order: &[u8] = if little { b"II*\0" } else { b"MM\0*" };
        prop_assert!((1..=8).contains(&orientation_in(&[order, &block].concat())));
    }
}
