//! The admins' log: every act names the hash of the one before, so none can be changed, taken out or put in unseen.
//!
//! The hash is SHA-256 over the JSON array of what the row says and the hash before it. Whoever can write to the database could make the
//! whole chain anew, and a chain that was cut at its end is a chain; so each act's hash also goes to the operator's log (`event: admin_act`),
//! which is kept elsewhere, and [`holds`] tells whether the act it names is still there. Acts that gave something are missed by the rules
//! I7c and I7d, too.

use fingerprint::of;

/// One row of `admin_log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Act {
    pub seq: i64,
    /// Unix seconds.
    pub at: i64,
    pub admin_id: String,
    pub action: String,
    pub subject: String,
    /// JSON.
    pub detail: String,
    /// The hash of the act before; empty for the first.
    pub previous: String,
    pub hash: String,
}

/// The columns in the order of [`Act`]'s fields, for whoever reads the log.
pub const COLUMNS: &str = "seq, at, admin_id, action, subject, detail, previous, hash";

impl Act {
    /// From a row that begins with [`COLUMNS`], by how its numbers and its texts are read.
    pub fn of_columns(integer: impl Fn(usize) -> i64, text: impl Fn(usize) -> String) -> Self {
        Self {
            seq: integer(0),
            at: integer(1),
            admin_id: text(2),
            action: text(3),
            subject: text(4),
            detail: text(5),
            previous: text(6),
            hash: text(7),
        }
    }

    /// Whether it is as it was written, and the one after the act with this number and hash. Before the first one: 0 and nothing.
    #[must_use]
    pub fn follows(&self, seq: i64, hash: &str) -> bool {
        self.seq == seq + 1 && self.previous == hash && self.hash == self.hash()
    }

    /// What `hash` should be.
    #[must_use]
    pub fn hash(&self) -> String {
        let Self { seq, at, admin_id, action, subject, detail, previous, hash: _ } = self;
        of(&serde_json::json!([previous, seq, at, admin_id, action, subject, detail]).to_string())
    }
}

/// The number of the first act that does not fit, if any. `acts` are all there are, in their order.
#[must_use]
pub fn first_wrong<'a>(acts: impl IntoIterator<Item = &'a Act>) -> Option<i64> {
    let (mut seq, mut hash) = (0, "");
    for act in acts {
        if !act.follows(seq, hash) {
            return Some(seq + 1);
        }
        (seq, hash) = (act.seq, &act.hash);
    }
    None
}

/// Whether the act with this hash is still in the log: an operator has the hash from elsewhere. Then nothing before it was changed, either,
/// if the chain fits.
#[must_use]
pub fn holds<'a>(acts: impl IntoIterator<Item = &'a Act>, head: &str) -> bool {
    acts.into_iter().any(|act| act.hash == head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Act> {
        let mut acts: Vec<Act> = Vec::new();
        for seq in 1..=4 {
            let previous = acts.last().map(|act| act.hash.clone()).unwrap_or_default();
            let mut act = Act {
                seq,
                at: 100 + seq,
                admin_id: "boss".into(),
                action: "gift".into(),
                subject: "ada".into(),
                detail: "{}".into(),
                previous,
                ..Act::default()
            };
            act.hash = act.hash();
            acts.push(act);
        }
        acts
    }

    #[test]
    fn a_log_as_it_was_written_fits() {
        assert_eq!(first_wrong(&chain()), None);
        assert_eq!(first_wrong(&[]), None);
    }

    #[test]
    fn a_log_that_was_cut_is_a_chain_and_does_not_hold_its_head() {
        let acts = chain();
        let head = acts[3].hash.clone();
        assert!(holds(&acts, &head) && holds(&acts, &acts[1].hash), "it may have grown since");
        for kept in [3, 1, 0] {
            assert_eq!(first_wrong(&acts[..kept]), None);
            assert!(!holds(&acts[..kept], &head), "{kept} are left");
        }
    }

    #[test]
    fn whatever_is_changed_taken_out_or_put_in_is_found() {
        let broken = |change: fn(&mut Vec<Act>)| {
            let mut acts = chain();
            change(&mut acts);
            first_wrong(&acts)
        };
        assert_eq!(broken(|acts| acts[1].detail = r#"{"credits":5}"#.into()), Some(2));
        assert_eq!(broken(|acts| acts[2].at += 1), Some(3));
        assert_eq!(broken(|acts| drop(acts.remove(0))), Some(1));
        assert_eq!(broken(|acts| drop(acts.remove(1))), Some(2));
        assert_eq!(broken(|acts| acts.swap(1, 2)), Some(2));
        assert_eq!(
            broken(|acts| {
                // Changed with its own hash made anew: the next one gives it away.
                acts[1].subject = "eve".into();
                acts[1].hash = acts[1].hash();
            }),
            Some(3)
        );
    }
}
