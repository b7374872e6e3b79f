//! Ordering pictures: what a client may ask for, and the one statement that charges and stores it.

use catalogue::{DETAIL_MAX_CHARS, HairColor, Hairstyle, Model};
use database::Error;
use problem::{FieldError, Problem};
use seal::Keys;
use serde::Deserialize;
use serde_json::json;

use crate::{BALANCE, BESIDE, CLAIM, COLUMNS, DEADLINE, Params, Task, prompt_of, read, wish_of};

/// Most hairstyles in one request.
pub const MOST_STYLES: usize = 8;

/// The body of `POST /api/tasks`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TaskOrder))]
pub struct Input {
    upload_id: String,
    hairstyles: Vec<String>,
    hair_color: Option<String>,
    detail: Option<String>,
    model: Option<String>,
}

/// A valid order: ids of the catalogue have become its entries.
pub struct Order {
    upload_id: String,
    hairstyles: Vec<&'static Hairstyle>,
    hair_color: Option<&'static HairColor>,
    detail: Option<String>,
    model: &'static Model,
}

impl Order {
    /// Checks everything and tells about all of it at once.
    ///
    /// # Errors
    /// `invalid_input` with one entry per wrong field.
    pub fn parse(input: Input) -> Result<Self, Problem> {
        let mut errors = Vec::new();
        let mut wrong = |field: String, message: String| errors.push(FieldError { field, message });

        if input.upload_id.is_empty() || input.upload_id.len() > 64 {
            wrong("upload_id".into(), "The id of one of your uploads is needed.".into());
        }
        let mut hairstyles: Vec<&Hairstyle> = Vec::new();
        for (at, id) in input.hairstyles.iter().enumerate().take(MOST_STYLES + 1) {
            match catalogue::hairstyle(id) {
                Some(style) if hairstyles.iter().any(|known| known.id == style.id) => {
                    wrong(format!("hairstyles[{at}]"), "This hairstyle is asked for twice.".into());
                }
                Some(style) => hairstyles.push(style),
                None => wrong(format!("hairstyles[{at}]"), "There is no such hairstyle; see /api/hairstyles.".into()),
            }
        }
        if input.hairstyles.is_empty() || input.hairstyles.len() > MOST_STYLES {
            wrong("hairstyles".into(), format!("Choose from 1 to {MOST_STYLES} hairstyles."));
        }
        let hair_color = match input.hair_color.as_deref() {
            None => None,
            Some(id) => catalogue::hair_color(id).or_else(|| {
                wrong("hair_color".into(), "There is no such colour; see /api/hair-colors.".into());
                None
            }),
        };
        let model = match input.model.as_deref() {
            None => catalogue::MODELS.first(),
            Some(id) => catalogue::model(id),
        };
        if model.is_none() {
            let known: Vec<_> = catalogue::MODELS.iter().map(|model| model.id).collect();
            wrong("model".into(), format!("Choose one of {}.", known.join(", ")));
        }
        let detail = input.detail.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        if detail.as_ref().is_some_and(|text| text.chars().count() > DETAIL_MAX_CHARS || text.chars().any(char::is_control)) {
            wrong("detail".into(), format!("At most {DETAIL_MAX_CHARS} characters on one line."));
        }
        if detail.as_ref().is_some_and(|text| is_more_than_words(text)) {
            wrong("detail".into(), "Say it in plain words: no addresses, no markup.".into());
        }
        match model {
            Some(model) if errors.is_empty() => Ok(Self { upload_id: input.upload_id, hairstyles, hair_color, detail, model }),
            _ => {
                let mut problem = Problem::new(problem::Code::InvalidInput, "The order cannot be taken like this.");
                problem.errors = errors;
                Err(problem)
            }
        }
    }
}

impl Order {
    /// What the person adds in their own words.
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

/// Links and markup have no place in a wish about hair; they are what somebody brings who wants something else.
fn is_more_than_words(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.contains("://") || lower.contains("www.") || text.contains(['<', '>', '{', '}', '`', '\\'])
}

/// Under what an order is charged.
pub struct Terms<'a> {
    /// The work that an `Idempotency-Key` stands for.
    pub work_id: Option<&'a str>,
    /// The moderation's name of its verdict on the order's words.
    pub moderation: Option<String>,
    /// Pictures that may be ordered a day, by everybody together; `None`: any number.
    pub day_limit: Option<i64>,
    pub keys: &'a Keys,
}

/// Charges and stores one task per hairstyle: all of them, or none. Each is claimed by the caller, who goes on to hand it over.
///
/// With a work id the tasks' ids begin with it, so that the same order, sent again after it was cut off, cannot be taken twice.
///
/// Answers none when the upload is not the user's, not stored yet or expired.
///
/// # Errors
/// Refused (`insufficient_credits`, `spend_limit_reached`); taken, when the work was done before (see [`of_work`]).
pub async fn create(user_id: &str, order: &Order, terms: &Terms<'_>, now: i64, now_millis: i64) -> Result<Vec<Task>, Error> {
    let sealed =
        |place: String, text: &str| terms.keys.seal(&place, text).map_err(|problem| Error::Failed(problem.cause.unwrap_or_default()));
    let rows = order
        .hairstyles
        .iter()
        .enumerate()
        .map(|(at, style)| {
            let id = terms.work_id.map_or_else(|| uuid::Uuid::now_v7().to_string(), |work_id| format!("{work_id}-{at}"));
            let random = &uuid::Uuid::new_v4().simple().to_string()[..6];
            let params = Params {
                hairstyle: style.id.into(),
                hair_color: order.hair_color.map(|color| color.id.into()),
                detail: order.detail.as_ref().map(|text| sealed(wish_of(&id), text)).transpose()?,
                model: order.model.id.into(),
                prompt: sealed(prompt_of(&id), &catalogue::prompt(style, order.hair_color, order.detail.as_deref()))?,
                moderation: terms.moderation.clone(),
                upload_id: order.upload_id.clone(),
                ..Params::default()
            };
            Ok(json!({"id": id, "task_no": format!("TASK_{now_millis}_{random}"), "params": params}))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    // Before anything is known of the provider's answer the next look at the task is at its deadline: a hand-over that was cut
    // off may have reached the provider, and must not be repeated. A callback may still claim it earlier.
    let sql = format!(
        "INSERT INTO ai_tasks (id, task_no, user_id, input_params, external_provider, price, created_at, updated_at, claimed_until, next_attempt_at, day_limit) \
         SELECT value ->> 'id', value ->> 'task_no', uploads.user_id, \
                json_set(value -> 'params', '$.upload_key', uploads.key, '$.upload_url', '/files/' || uploads.key, \
                         '$.width', uploads.width, '$.height', uploads.height), \
                ?4, ?5, ?6, ?6, ?6 + {CLAIM}, ?6 + {DEADLINE}, ?7 \
         FROM uploads, json_each(?1) \
         WHERE uploads.id = ?2 AND uploads.user_id = ?3 AND uploads.status = 'stored' AND uploads.expires_at > ?6 \
         RETURNING {COLUMNS}"
    );
    let parameters = vec![
        serde_json::Value::from(rows).to_string().into(),
        order.upload_id.as_str().into(),
        user_id.into(),
        order.model.adapter.into(),
        order.model.price.into(),
        now.into(),
        terms.day_limit.into(),
    ];
    Ok(database::run(&sql, parameters).await?.iter().map(read).collect())
}

/// The tasks that a request made before it was cut off.
///
/// # Errors
/// The database's.
pub async fn of_work(user_id: &str, order: &Order, work_id: &str) -> Result<Vec<Task>, Error> {
    let ids: Vec<_> = (0..order.hairstyles.len()).map(|at| format!("{work_id}-{at}")).collect();
    let sql = format!("SELECT {COLUMNS} FROM ai_tasks WHERE user_id = ?1 AND id IN (SELECT value FROM json_each(?2)) ORDER BY id");
    Ok(database::run(&sql, vec![user_id.into(), json!(ids).to_string().into()]).await?.iter().map(read).collect())
}

/// The tasks as they stand now, in the order they were asked for, and their owner's balance.
///
/// # Errors
/// The database's.
pub async fn outcome(tasks: &[Task], now: i64) -> Result<(Vec<Task>, i64), Problem> {
    let ids: Vec<_> = tasks.iter().map(|task| task.id.as_str()).collect();
    let sql = format!("SELECT {COLUMNS}, {BALANCE} FROM ai_tasks WHERE id IN (SELECT value FROM json_each(?1)) ORDER BY id");
    let rows = database::run(&sql, vec![json!(ids).to_string().into(), now.into()]).await?;
    let balance = rows.first().map_or(0, |row| row.integer(BESIDE));
    Ok((rows.iter().map(read).collect(), balance))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: serde_json::Value) -> Vec<String> {
        let input = serde_json::from_value(body).expect("fits the shape");
        match Order::parse(input) {
            Ok(_) => Vec::new(),
            Err(problem) => problem.errors.into_iter().map(|error| error.field).collect(),
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let body =
            json!({"upload_id": "", "hairstyles": ["bob-cut", "beehive"], "hair_color": "plaid", "model": "x", "detail": "y".repeat(201)});
        assert_eq!(fields(body), ["upload_id", "hairstyles[1]", "hair_color", "model", "detail"]);
    }

    #[test]
    fn a_wish_is_words() {
        let with = |detail: &str| fields(json!({"upload_id": "u", "hairstyles": ["bob-cut"], "detail": detail}));
        for words in ["a little shorter on the left", "刘海再短一点", "50% longer, please!", "like in 1965 (soft)"] {
            assert_eq!(with(words), Vec::<String>::new(), "{words}");
        }
        for other in
            ["see https://evil.test/x.png", "WWW.evil.test", "<script>alert(1)</script>", "{{system}}", "`rm`", "a\\b", "two\nlines"]
        {
            assert_eq!(with(other), ["detail"], "{other}");
        }
    }

    #[test]
    fn one_to_eight_different_hairstyles() {
        assert_eq!(fields(json!({"upload_id": "u", "hairstyles": ["bob-cut"]})), Vec::<String>::new());
        assert_eq!(fields(json!({"upload_id": "u", "hairstyles": []})), ["hairstyles"]);
        assert_eq!(fields(json!({"upload_id": "u", "hairstyles": ["bob-cut", "bob-cut"]})), ["hairstyles[1]"]);
        let all: Vec<_> = catalogue::HAIRSTYLES.iter().map(|style| style.id).collect();
        assert_eq!(fields(json!({"upload_id": "u", "hairstyles": all[..8]})), Vec::<String>::new());
        assert_eq!(fields(json!({"upload_id": "u", "hairstyles": all[..9]})), ["hairstyles"]);
    }
}
