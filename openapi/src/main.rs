//! Writes the committed copy of the API's description.

use std::{fs, path::Path};

fn main() -> std::io::Result<()> {
    let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(openapi::COPY);
    fs::write(&copy, openapi::text())?;
    println!("{} is what the types say", openapi::COPY);
    Ok(())
}
