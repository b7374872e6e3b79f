//! What can be made to go wrong, and when.
//!
//! A [`Fault`] says what happens; a [`Rule`] says how often and to whom. Rules are tried in the order they were set;
//! the first that fits is the one that happens.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::world::locked;

/// Something that goes wrong outside. In JSON: `{"fault":"kie.no_callback"}` with the fields beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", deny_unknown_fields)]
pub enum Fault {
    /// The bucket answers this status (an XML error) instead of doing anything.
    #[serde(rename = "s3.answers")]
    S3Answers {
        status: u16,
        /// Only this HTTP method.
        #[serde(default)]
        method: Option<String>,
        /// Only keys that begin so.
        #[serde(default)]
        prefix: Option<String>,
    },
    /// What is in the bucket can neither be removed nor written over, as under a lock: 403, and an error for each such key where many
    /// are to be removed at once.
    #[serde(rename = "s3.locked")]
    S3Locked {
        #[serde(default)]
        prefix: Option<String>,
    },
    /// The bucket takes this long before it begins.
    #[serde(rename = "s3.slow")]
    S3Slow {
        ms: u64,
        #[serde(default)]
        method: Option<String>,
        #[serde(default)]
        prefix: Option<String>,
    },

    /// Tasks take this long instead of the usual delay.
    #[serde(rename = "kie.delay")]
    KieDelay { ms: u64 },
    /// The generation fails with this code (400, 451, 500, 501, ...).
    #[serde(rename = "kie.fail")]
    KieFail {
        code: i64,
        #[serde(default)]
        msg: Option<String>,
    },
    /// The callback never comes.
    #[serde(rename = "kie.no_callback")]
    KieNoCallback,
    /// The callback comes this long after the task has finished, so a poll sees the result first.
    #[serde(rename = "kie.late_callback")]
    KieLateCallback { ms: u64 },
    /// The same callback comes several times at once.
    #[serde(rename = "kie.duplicate_callback")]
    KieDuplicateCallback {
        #[serde(default = "two")]
        copies: u32,
    },
    /// The callback's signature was made with another key.
    #[serde(rename = "kie.wrong_signature")]
    KieWrongSignature,
    /// The callback carries no signature headers.
    #[serde(rename = "kie.no_signature")]
    KieNoSignature,
    /// The callback was signed this many seconds ago.
    #[serde(rename = "kie.old_signature")]
    KieOldSignature { seconds: i64 },
    /// The callback names other result URLs, or the other outcome. Asking the API still gives the truth.
    #[serde(rename = "kie.callback_lies")]
    KieCallbackLies {
        /// Default: a picture that belongs to someone else.
        #[serde(default)]
        urls: Option<Vec<String>>,
        /// Say this code instead of the true one (200 for a failure, 500 for a success, ...).
        #[serde(default)]
        code: Option<i64>,
    },
    /// Creating a task answers this code in the body (402, 429, 455, 500, 550, ...), under HTTP 200 unless told.
    #[serde(rename = "kie.create_answers")]
    KieCreateAnswers {
        code: i64,
        #[serde(default)]
        msg: Option<String>,
        #[serde(default)]
        http_status: Option<u16>,
    },
    /// Creating a task never answers (the connection is cut after `ms`). With `creates` the task exists all the same.
    #[serde(rename = "kie.create_hangs")]
    KieCreateHangs {
        #[serde(default = "one_minute")]
        ms: u64,
        #[serde(default)]
        creates: bool,
    },
    /// Asking for a task answers this code in the body.
    #[serde(rename = "kie.record_answers")]
    KieRecordAnswers {
        code: i64,
        #[serde(default)]
        msg: Option<String>,
        #[serde(default)]
        http_status: Option<u16>,
    },
    /// Asking for a task takes this long.
    #[serde(rename = "kie.record_slow")]
    KieRecordSlow { ms: u64 },
    /// A task shows a state nobody has heard of, whatever its true one.
    #[serde(rename = "kie.unknown_state")]
    KieUnknownState {
        #[serde(default = "pondering")]
        state: String,
    },
    /// A finished task names these result URLs everywhere: another host, another scheme, a private address.
    #[serde(rename = "kie.result_urls")]
    KieResultUrls { urls: Vec<String> },
    /// Result files are served wrongly.
    #[serde(rename = "kie.result_is")]
    KieResultIs {
        serves: ServedResult,
        /// `redirect`: where to (default: the same file, which then really comes). Others ignore it.
        #[serde(default)]
        to: Option<String>,
        /// `huge`: how many bytes (default 64 MiB).
        #[serde(default)]
        bytes: Option<u64>,
        /// `status`: which (default 500).
        #[serde(default)]
        status: Option<u16>,
        /// `slow`: how long before the first byte (default 5 s). `drip`: how long between two bytes (default 250 ms).
        #[serde(default)]
        ms: Option<u64>,
    },

    /// creem's API answers this status.
    #[serde(rename = "creem.api_answers")]
    CreemApiAnswers { status: u16 },
    /// creem's API refuses with this status and these words.
    #[serde(rename = "creem.api_says")]
    CreemApiSays { status: u16, msg: String },
    /// The moderation answers this decision whatever the prompt; none: it answers without one.
    #[serde(rename = "creem.moderation_decides")]
    CreemModerationDecides {
        #[serde(default)]
        decision: Option<String>,
    },
    /// creem's API takes this long.
    #[serde(rename = "creem.api_slow")]
    CreemApiSlow { ms: u64 },
    /// Creating a checkout makes it, but the answer is lost.
    #[serde(rename = "creem.checkout_answer_lost")]
    CreemCheckoutAnswerLost,
    /// The event is never delivered.
    #[serde(rename = "creem.webhook_drop")]
    CreemWebhookDrop,
    /// The event is delivered several times at once.
    #[serde(rename = "creem.webhook_duplicate")]
    CreemWebhookDuplicate {
        #[serde(default = "two")]
        copies: u32,
    },
    /// Events that belong together come in reverse order.
    #[serde(rename = "creem.webhook_reorder")]
    CreemWebhookReorder,
    /// The event is signed with another secret.
    #[serde(rename = "creem.webhook_wrong_signature")]
    CreemWebhookWrongSignature,
    /// The event carries no signature.
    #[serde(rename = "creem.webhook_no_signature")]
    CreemWebhookNoSignature,
    /// The event comes this much later: the buyer is back first.
    #[serde(rename = "creem.webhook_delay")]
    CreemWebhookDelay { ms: u64 },
    /// The return URL's signature is wrong.
    #[serde(rename = "creem.return_wrong_signature")]
    CreemReturnWrongSignature,

    /// The person says no on the consent page.
    #[serde(rename = "google.denies")]
    GoogleDenies,
    /// The token endpoint answers this status.
    #[serde(rename = "google.token_answers")]
    GoogleTokenAnswers { status: u16 },
    /// The token endpoint takes this long.
    #[serde(rename = "google.token_slow")]
    GoogleTokenSlow { ms: u64 },
    /// The key endpoint answers this status.
    #[serde(rename = "google.certs_answer")]
    GoogleCertsAnswer { status: u16 },
    /// The id token carries another nonce.
    #[serde(rename = "google.wrong_nonce")]
    GoogleWrongNonce,
    /// The id token is for another app.
    #[serde(rename = "google.wrong_aud")]
    GoogleWrongAud,
    /// The id token is from someone else.
    #[serde(rename = "google.wrong_iss")]
    GoogleWrongIss,
    /// The id token ended an hour ago.
    #[serde(rename = "google.expired")]
    GoogleExpired,
    /// The id token's key is not among the published ones.
    #[serde(rename = "google.unknown_key")]
    GoogleUnknownKey,
    /// The id token's signature is broken.
    #[serde(rename = "google.broken_signature")]
    GoogleBrokenSignature,
    /// The e-mail address is not verified.
    #[serde(rename = "google.email_unverified")]
    GoogleEmailUnverified,

    /// The person says no on the consent page.
    #[serde(rename = "github.denies")]
    GithubDenies,
    /// The token endpoint answers this status.
    #[serde(rename = "github.token_answers")]
    GithubTokenAnswers { status: u16 },
    /// The token endpoint takes this long.
    #[serde(rename = "github.token_slow")]
    GithubTokenSlow { ms: u64 },
    /// `/user` and `/user/emails` answer this status.
    #[serde(rename = "github.api_answers")]
    GithubApiAnswers { status: u16 },
    /// The primary e-mail address is not verified.
    #[serde(rename = "github.email_unverified")]
    GithubEmailUnverified,
    /// The person did not grant `user:email`: the addresses are 404.
    #[serde(rename = "github.no_email_scope")]
    GithubNoEmailScope,
}

/// What a result URL of the AI provider serves instead of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServedResult {
    /// 200 with a web page.
    Html,
    /// 200 with a web page that claims to be a picture.
    HtmlAsImage,
    /// 404: the link has expired.
    NotFound,
    /// More bytes than anyone should take, without saying how many.
    Huge,
    /// 301.
    Redirect,
    /// 200 with nothing in it.
    Empty,
    /// The connection breaks half way.
    Truncated,
    /// A plain error status.
    Status,
    /// The right picture, late.
    Slow,
    /// The right picture, a byte at a time: never silent, and never done.
    Drip,
}

/// A fault with how often it happens and to whom.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    #[serde(flatten)]
    pub fault: Fault,
    /// Only the next n; none: until reset.
    pub times: Option<u32>,
    /// Only where this text occurs: in the prompt (kie), in `METHOD /path`, in the e-mail address (sign-in),
    /// in the event type or its JSON (creem).
    #[serde(rename = "match")]
    pub matching: Option<String>,
    /// How likely, 0 to 1; none: always.
    pub rate: Option<f64>,
    /// Makes `rate` repeat itself.
    pub seed: u64,
}

impl Fault {
    /// The next time only.
    #[must_use]
    pub fn once(self) -> Rule {
        Rule::from(self).times(1)
    }
    /// The next `n` times only.
    #[must_use]
    pub fn times(self, n: u32) -> Rule {
        Rule::from(self).times(n)
    }
    /// Only where `text` occurs.
    #[must_use]
    pub fn matching(self, text: impl Into<String>) -> Rule {
        Rule::from(self).matching(text)
    }
    /// With this likelihood, repeatably.
    #[must_use]
    pub fn rate(self, rate: f64, seed: u64) -> Rule {
        Rule::from(self).rate(rate, seed)
    }
}

impl Rule {
    /// The next `n` times only.
    #[must_use]
    pub fn times(mut self, n: u32) -> Self {
        self.times = Some(n);
        self
    }
    /// Only where `text` occurs.
    #[must_use]
    pub fn matching(mut self, text: impl Into<String>) -> Self {
        self.matching = Some(text.into());
        self
    }
    /// With this likelihood, repeatably.
    #[must_use]
    pub fn rate(mut self, rate: f64, seed: u64) -> Self {
        self.rate = Some(rate);
        self.seed = seed;
        self
    }

    /// Reads a rule as the control endpoint takes it. A field nobody knows is refused: a misspelt `times` would
    /// otherwise make a fault last for ever.
    pub fn from_json(value: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = value else {
            return Err("a fault is a JSON object".into());
        };
        let field = |fields: &mut Map<String, Value>, name: &str| fields.remove(name).filter(|v| !v.is_null());
        let times = field(&mut fields, "times");
        let matching = field(&mut fields, "match");
        let rate = field(&mut fields, "rate");
        let seed = field(&mut fields, "seed");
        let given: Vec<String> = fields.keys().cloned().collect();
        let fault: Fault = serde_json::from_value(Value::Object(fields)).map_err(|e| e.to_string())?;
        let known = serde_json::to_value(&fault).map_err(|e| e.to_string())?;
        if let Some(stranger) = given.iter().find(|name| known.get(name.as_str()).is_none()) {
            return Err(format!("this fault has no field `{stranger}`"));
        }
        let wrong = |name: &str| format!("`{name}` has the wrong type");
        Ok(Self {
            fault,
            times: times.map(|v| v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| wrong("times"))).transpose()?,
            matching: matching.map(|v| v.as_str().map(str::to_owned).ok_or_else(|| wrong("match"))).transpose()?,
            rate: rate.map(|v| v.as_f64().ok_or_else(|| wrong("rate"))).transpose()?,
            seed: seed.map(|v| v.as_u64().ok_or_else(|| wrong("seed"))).transpose()?.unwrap_or_default(),
        })
    }
}

impl From<Fault> for Rule {
    fn from(fault: Fault) -> Self {
        Self { fault, times: None, matching: None, rate: None, seed: 0 }
    }
}

/// A rule that is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActiveRule {
    pub id: u64,
    #[serde(flatten)]
    pub rule: Rule,
    /// How often it has happened.
    pub happened: u64,
    #[serde(skip)]
    dice: u64,
}

/// All rules in force.
#[derive(Default)]
pub(crate) struct Faults(Mutex<(u64, Vec<ActiveRule>)>);

impl Faults {
    pub(crate) fn set(&self, rule: Rule) -> u64 {
        let mut rules = locked(&self.0);
        rules.0 += 1;
        let id = rules.0;
        rules.1.push(ActiveRule { id, dice: rule.seed, rule, happened: 0 });
        id
    }

    pub(crate) fn clear(&self) {
        locked(&self.0).1.clear();
    }

    pub(crate) fn remove(&self, id: u64) -> bool {
        let mut rules = locked(&self.0);
        let before = rules.1.len();
        rules.1.retain(|r| r.id != id);
        rules.1.len() < before
    }

    pub(crate) fn active(&self) -> Vec<ActiveRule> {
        locked(&self.0).1.clone()
    }

    /// Whether a fault that `pick` recognises happens now, to `subject`. Asking uses it up.
    pub(crate) fn strike<T>(&self, subject: &str, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let mut rules = locked(&self.0);
        let mut struck = None;
        for active in &mut rules.1 {
            let Some(what) = pick(&active.rule.fault) else {
                continue;
            };
            if active.rule.matching.as_ref().is_some_and(|text| !subject.contains(text.as_str())) {
                continue;
            }
            if active.rule.rate.is_some_and(|rate| roll(&mut active.dice) >= rate) {
                continue;
            }
            if let Some(times) = &mut active.rule.times {
                if *times == 0 {
                    continue;
                }
                *times -= 1;
            }
            active.happened += 1;
            struck = Some(what);
            break;
        }
        rules.1.retain(|r| r.rule.times != Some(0));
        struck
    }

    /// [`Self::strike`] for a fault without fields.
    pub(crate) fn strikes(&self, subject: &str, fault: &Fault) -> bool {
        self.strike(subject, |f| (f == fault).then_some(())).is_some()
    }
}

/// The next number of a splitmix64 sequence, as 0 to 1.
fn roll(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

fn two() -> u32 {
    2
}
fn one_minute() -> u64 {
    60_000
}
fn pondering() -> String {
    "PONDERING".into()
}
