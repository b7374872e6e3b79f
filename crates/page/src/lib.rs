//! Which part of a list somebody wants: `?limit=`, and either `?offset=` or `?cursor=`.
//!
//! A cursor names the last entry that was seen, so pages neither repeat nor skip entries while new ones arrive. It is opaque to clients:
//! base64url of `created_at.id`.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use problem::Problem;

/// Longest cursor that is looked at, in bytes.
const LONGEST: usize = 200;

/// A part of a list that is sorted by (created_at, id), newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub limit: i64,
    pub offset: i64,
    /// Only entries whose (created_at, id) is smaller.
    before: Option<(i64, String)>,
}

impl Page {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// `invalid_input` naming the parameter.
    pub fn parse(limit: i64, offset: i64, cursor: Option<&str>) -> Result<Self, Problem> {
        let Some(cursor) = cursor else { return Ok(Self { limit, offset, before: None }) };
        if offset != 0 {
            return Err(Problem::invalid("cursor", "Either offset or cursor."));
        }
        let before = read(cursor).ok_or_else(|| Problem::invalid("cursor", "This is no cursor of ours."))?;
        Ok(Self { limit, offset, before: Some(before) })
    }

    /// The upper bound, for `(created_at, id) < (?, ?)`: beyond everything for the first page.
    #[must_use]
    pub fn before(&self) -> (i64, String) {
        self.before.clone().unwrap_or((i64::MAX, String::new()))
    }

    /// The same where ids are numbers.
    ///
    /// # Errors
    /// `invalid_input` for the cursor of another list.
    pub fn before_number(&self) -> Result<(i64, i64), Problem> {
        let Some((created_at, id)) = &self.before else { return Ok((i64::MAX, 0)) };
        let id = id.parse().map_err(|_| Problem::invalid("cursor", "This is no cursor of this list."))?;
        Ok((*created_at, id))
    }

    /// The cursor of the next page, given the last entry of this one; `None` when there is no more.
    #[must_use]
    pub fn next(&self, entries: usize, last: Option<(i64, &str)>) -> Option<String> {
        let full = usize::try_from(self.limit).is_ok_and(|limit| entries >= limit);
        last.filter(|_| full).map(|(created_at, id)| BASE64.encode(format!("{created_at}.{id}")))
    }
}

fn read(cursor: &str) -> Option<(i64, String)> {
    if cursor.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(cursor).ok()?).ok()?;
    let (created_at, id) = text.split_once('.')?;
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    plain.then_some((created_at.parse().ok()?, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_begins_below_the_last_entry() {
        let first = Page::parse(2, 0, None).expect("a page");
        assert_eq!(first.before(), (i64::MAX, String::new()));
        let cursor = first.next(2, Some((1_700, "0198-abc"))).expect("more");
        let second = Page::parse(2, 0, Some(&cursor)).expect("a page");
        assert_eq!(second.before(), (1_700, "0198-abc".to_owned()));
        assert_eq!(second.next(1, Some((1, "x"))), None, "a page that is not full is the last");
    }

    #[test]
    fn an_offset_and_a_cursor_do_not_go_together() {
        let cursor = Page::parse(1, 0, None).expect("a page").next(1, Some((5, "x"))).expect("more");
        assert!(Page::parse(1, 7, Some(&cursor)).is_err());
        assert!(Page::parse(1, 0, Some(&cursor)).expect("a page").before_number().is_err(), "of a list with other ids");
    }

    proptest! {
        #[test]
        fn whatever_comes_as_a_cursor_is_read_or_refused(text in ".{0,300}") {
            if let Ok(page) = Page::parse(20, 0, Some(&text)) {
                let (created_at, id) = page.before();
                prop_assert!(page.next(20, Some((created_at, &id))).is_some());
            }
        }

        #[test]
        fn a_cursor_is_what_it_was_made_of(created_at in any::<i64>(), id in "[a-zA-Z0-9_-]{1,60}") {
            let page = Page::parse(1, 0, None).expect("a page");
            let cursor = page.next(1, Some((created_at, &id))).expect("more");
            prop_assert_eq!(Page::parse(1, 0, Some(&cursor)).expect("a page").before(), (created_at, id));
        }
    }
}
