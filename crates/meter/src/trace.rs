//! W3C trace context: which trace a request belongs to (`traceparent`, `tracestate`; Trace Context level 1, with level 2's second flag).
//!
//! What a caller sends is taken if it is exactly what the standard says, and a new trace begins otherwise. Either way this request is a
//! span of its own, and what it calls outside is told that span as its parent.

/// Longest `tracestate` that is passed on, in bytes: what the standard asks everybody to carry.
const STATE_CAP: usize = 512;
/// Most members of a `tracestate`.
const STATE_MEMBERS: usize = 32;
/// The flags we know: sampled, and that the trace id is random.
const KNOWN_FLAGS: u8 = 0b11;

/// The trace of a request and its span in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    id: [u8; 16],
    parent: Option<[u8; 8]>,
    span: [u8; 8],
    flags: u8,
    state: Option<String>,
}

impl Trace {
    /// A span in the trace that the headers of a request name, or in a new one. Each slice holds a header's values in their order.
    #[must_use]
    pub fn begin(traceparent: &[&str], tracestate: &[&str]) -> Self {
        let mut drawn = [0; 24];
        // Without chance the ids are zeros but for their last bit: of no use, and valid.
        let _ = getrandom::fill(&mut drawn);
        Self::begin_with(traceparent, tracestate, drawn)
    }

    fn begin_with(traceparent: &[&str], tracestate: &[&str], drawn: [u8; 24]) -> Self {
        let (mut id, mut span) = ([0; 16], [0; 8]);
        id.copy_from_slice(&drawn[..16]);
        span.copy_from_slice(&drawn[16..]);
        id[15] |= u8::from(id == [0; 16]);
        span[7] |= u8::from(span == [0; 8]);
        // Two of them say nothing.
        let given = if let [one] = traceparent { parse(one) } else { None };
        match given {
            Some((id, parent, flags)) => Self { id, parent: Some(parent), span, flags: flags & KNOWN_FLAGS, state: pass_on(tracestate) },
            // Ours is random, and whether it is sampled is for those who keep traces.
            None => Self { id, parent: None, span, flags: 0b10, state: None },
        }
    }

    /// The trace, 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// This request's span, 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> String {
        hex(&self.span)
    }

    /// The caller's span, if the caller named one.
    #[must_use]
    pub fn parent_id(&self) -> Option<String> {
        self.parent.map(|parent| hex(&parent))
    }

    /// `traceparent` for what this request calls.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.id(), self.span_id(), self.flags)
    }

    /// `tracestate` for what this request calls.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// Trace, parent and flags of a `traceparent`.
fn parse(text: &str) -> Option<([u8; 16], [u8; 8], u8)> {
    let (mut version, mut id, mut parent, mut flags) = ([0], [0; 16], [0; 8], [0]);
    unhex(text.get(..2), &mut version)?;
    let fits = match (version[0], text.len()) {
        (0xff, _) => false,
        (_, 55) => true,
        // A later version may say more, after another dash.
        (1.., 56..) => text.as_bytes()[55] == b'-',
        _ => false,
    };
    if !fits || [2, 35, 52].iter().any(|at| text.as_bytes()[*at] != b'-') {
        return None;
    }
    unhex(text.get(3..35), &mut id)?;
    unhex(text.get(36..52), &mut parent)?;
    unhex(text.get(53..55), &mut flags)?;
    (id != [0; 16] && parent != [0; 8]).then_some((id, parent, flags[0]))
}

/// The members of a `tracestate` that are passed on: all of them as long as there is room, none if one is not what the standard says.
fn pass_on(values: &[&str]) -> Option<String> {
    let (mut state, mut members) = (String::new(), 0);
    for value in values {
        for member in value.split(',') {
            let member = member.trim();
            if member.is_empty() {
                continue;
            }
            members += 1;
            if members > STATE_MEMBERS || !is_member(member) {
                return None;
            }
            if state.len() + 1 + member.len() <= STATE_CAP {
                if !state.is_empty() {
                    state.push(',');
                }
                state.push_str(member);
            }
        }
    }
    (!state.is_empty()).then_some(state)
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let key_fits = (1..=256).contains(&key.len())
        && key.as_bytes()[0].is_ascii_alphanumeric()
        && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte));
    let value_fits = (1..=256).contains(&value.len()) && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    key_fits && value_fits
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Fills `bytes` from a text of as many pairs of lower-case hexadecimal digits.
fn unhex(text: Option<&str>, bytes: &mut [u8]) -> Option<()> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text?.as_bytes();
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    (text.len() == 2 * bytes.len()).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_a_caller_names_is_gone_on_with_in_a_span_of_our_own() {
        let trace = Trace::begin(&[GIVEN], &["congo=t61rcWkgMzE, rojo=00f067aa0ba902b7", "a@b=c d"]);
        assert_eq!(trace.id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.parent_id().as_deref(), Some("b7ad6b7169203331"));
        assert_ne!(trace.span_id(), "b7ad6b7169203331");
        assert_eq!(trace.traceparent(), format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", trace.span_id()));
        assert_eq!(trace.tracestate(), Some("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7,a@b=c d"));
    }

    #[test]
    fn a_later_version_may_say_more_and_ours_may_not() {
        for text in
            ["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-else", "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"]
        {
            assert!(parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c8031é-b7ad6b7169203331-01",
        ] {
            assert!(parse(text).is_none(), "{text}");
            let trace = Trace::begin(&[text], &["a=b"]);
            assert_eq!((trace.parent_id(), trace.tracestate()), (None, None), "{text}");
        }
        assert_eq!(Trace::begin(&[GIVEN, GIVEN], &[]).parent_id(), None, "two of them say nothing");
    }

    #[test]
    fn a_state_is_bounded_by_whole_members_and_all_or_nothing() {
        let long = "x".repeat(250);
        let members = format!("a={long},b={long},c={long},d=1");
        let state = pass_on(&[&members]).expect("fits");
        assert_eq!(state, format!("a={long},b={long},d=1"));
        for strange in ["A=b", "a", "=b", "a=", "a=b=c", "a=b\u{7f}", "a=é", &"a=b,".repeat(33)] {
            assert_eq!(pass_on(&[strange]), None, "{strange}");
        }
        assert_eq!(pass_on(&["", " , ,"]), None);
    }

    #[test]
    fn a_trace_is_never_zero_not_even_without_chance() {
        let trace = Trace::begin_with(&[], &[], [0; 24]);
        assert!(parse(&trace.traceparent()).is_some(), "{trace:?}");
    }

    proptest! {
        #[test]
        fn what_we_send_is_what_we_would_take(id in proptest::array::uniform16(1_u8..), parent in proptest::array::uniform8(1_u8..), flags: u8, drawn in proptest::array::uniform24(0_u8..)) {
            let given = format!("00-{}-{}-{flags:02x}", hex(&id), hex(&parent));
            let trace = Trace::begin_with(&[&given], &[], drawn);
            prop_assert_eq!((trace.id(), trace.parent_id()), (hex(&id), Some(hex(&parent))));
            let (sent_id, sent_parent, sent_flags) = parse(&trace.traceparent()).expect("well-formed");
            prop_assert_eq!((sent_id, hex(&sent_parent), sent_flags), (id, trace.span_id(), flags & KNOWN_FLAGS));
        }

        #[test]
        fn any_text_is_taken_whole_or_not_at_all(text in "\\PC{0,80}") {
            if let Some((id, parent, flags)) = parse(&text) {
                let rebuilt = format!("{}-{}-{}-{flags:02x}", &text[..2], hex(&id), hex(&parent));
                prop_assert_eq!(&text[..55], rebuilt);
            }
        }

        #[test]
        fn near_misses_are_seen(at in 0_usize..55, byte in 0_u8..128) {
            let mut text = GIVEN.as_bytes().to_vec();
            text[at] = byte;
            let text = String::from_utf8(text).expect("ASCII");
            let digit = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let dash = [2, 35, 52].contains(&at);
            // One digit changed keeps it well-formed, but for a version of ff.
            prop_assert_eq!(parse(&text).is_some(), if dash { byte == b'-' } else { digit });
        }

        #[test]
        fn a_state_that_is_passed_on_is_well_formed(values in proptest::collection::vec("[a-z0-9=, @\\-]{0,300}", 0..4)) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            if let Some(state) = pass_on(&values) {
                prop_assert!(state.len() <= STATE_CAP);
                prop_assert!(state.split(',').all(is_member), "{}", state);
            }
        }
    }
}
