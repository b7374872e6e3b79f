//! Which address answers with what.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::{Schemas, wire};

/// The groups of operations, in the order they are shown.
pub const TAGS: [(&str, &str); 9] = [
    ("sign-in", "Google and GitHub; sessions, and the ways one can sign in."),
    ("uploads", "Photos, kept for seven days."),
    ("tasks", "One picture each, and the catalogue they are chosen from."),
    ("buying", "Packs of credits and plans."),
    ("account", "One's own data."),
    ("admin", "For users whose role is `admin`."),
    ("webhooks", "What the AI provider and the payment provider call, signed."),
    ("scheduled", "What a scheduler calls."),
    ("health", "For whoever balances the load."),
];

/// Who may use an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    SignedIn,
    Admin,
    /// Whoever signs what they send; the name of the scheme.
    Signed(&'static str),
    Scheduler,
}
use Door::{Admin, Open, Scheduler, Signed, SignedIn};

/// An operation while it is put together.
struct Operation {
    tag: &'static str,
    path: &'static str,
    method: &'static str,
    door: Door,
    value: Value,
}

impl Operation {
    fn new(tag: &'static str, door: Door, method: &'static str, path: &'static str, id: &str, summary: &str) -> Self {
        let mut value = json!({"tags": [tag], "operationId": id, "summary": summary, "parameters": [], "responses": {}});
        value["security"] = match door {
            Open => json!([]),
            Signed(by) => json!([{by: []}]),
            SignedIn | Admin => json!([{"cookie": []}, {"bearer": []}]),
            Scheduler => json!([{"scheduler": []}]),
        };
        let mut operation = Self { tag, path, method, door, value };
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let schema = if name == "provider" { one_of(&["google", "github"]) } else { text() };
            operation = operation.parameter(json!({"name": name, "in": "path", "required": true, "schema": schema}));
        }
        // Whatever goes wrong everywhere.
        operation = operation.fails(&[500, 503]);
        match door {
            Open => operation,
            SignedIn => operation.fails(&[401, 429]),
            Admin => operation.fails(&[401, 403, 429]),
            Signed(_) | Scheduler => operation.fails(&[401]),
        }
        .changing()
    }

    /// Whatever changes something is refused to other sites' pages.
    fn changing(self) -> Self {
        if self.method != "get" && matches!(self.door, SignedIn | Admin) { self.fails(&[403]) } else { self }
    }

    fn about(mut self, description: &str) -> Self {
        self.value["description"] = description.into();
        self
    }

    fn parameter(mut self, parameter: Value) -> Self {
        if let Some(list) = self.value["parameters"].as_array_mut() {
            list.push(parameter);
        }
        self
    }

    fn query(self, name: &str, schema: Value, description: &str) -> Self {
        self.parameter(json!({"name": name, "in": "query", "required": false, "schema": schema, "description": description})).fails(&[422])
    }

    /// `limit`, `offset` and `cursor`.
    fn paged(self) -> Self {
        let named = |name: &str| json!({"$ref": format!("#/components/parameters/{name}")});
        self.parameter(named("limit")).parameter(named("offset")).parameter(named("cursor")).fails(&[422])
    }

    /// Takes an `Idempotency-Key`; its answer, of this status, may be an earlier one.
    fn keyed(self, status: u16) -> Self {
        self.parameter(json!({"$ref": "#/components/parameters/idempotencyKey"}))
            .perhaps_header(
                status,
                "idempotency-replayed",
                json!({"type": "string", "enum": ["true"]}),
                "The answer to the first request with this key.",
            )
            .fails(&[409, 422])
    }

    fn takes(mut self, content: Value) -> Self {
        self.value["requestBody"] = json!({"required": true, "content": content});
        self.fails(&[413, 415, 422])
    }

    fn takes_json<T: ToSchema>(self, schemas: &mut Schemas) -> Self {
        let schema = schemas.taken::<T>();
        self.takes(json!({"application/json": {"schema": schema}}))
    }

    fn example(mut self, example: Value) -> Self {
        self.value["requestBody"]["content"]["application/json"]["example"] = example;
        self
    }

    fn answers(mut self, status: u16, description: &str, content: Option<Value>) -> Self {
        let mut answer = json!({"description": description, "headers": {"x-request-id": {"$ref": "#/components/headers/requestId"}}});
        if let Some(content) = content {
            answer["content"] = content;
        }
        if matches!(self.door, SignedIn | Admin) {
            answer["headers"]["ratelimit"] = json!({"$ref": "#/components/headers/rateLimit"});
            answer["headers"]["ratelimit-policy"] = json!({"$ref": "#/components/headers/rateLimitPolicy"});
        }
        self.value["responses"][status.to_string()] = answer;
        self
    }

    fn gives<T: ToSchema>(self, schemas: &mut Schemas, status: u16, description: &str) -> Self {
        let schema = schemas.given::<T>();
        self.answers(status, description, Some(json!({"application/json": {"schema": schema}})))
    }

    /// An answer of its own that shares its status with a problem.
    fn or_problem(mut self, status: u16) -> Self {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        let answer = &mut self.value["responses"][status.to_string()];
        answer["content"]["application/problem+json"] = json!({"schema": schema});
        answer["headers"]["retry-after"] = json!({"$ref": "#/components/headers/retryAfter"});
        self
    }

    fn empty(self, status: u16, description: &str) -> Self {
        self.answers(status, description, None)
    }

    /// A header that an answer always has.
    fn header(mut self, status: u16, name: &str, description: &str) -> Self {
        let header = json!({"description": description, "required": true, "schema": {"type": "string"}});
        self.value["responses"][status.to_string()]["headers"][name] = header;
        self
    }

    /// A header that an answer may have.
    fn perhaps_header(mut self, status: u16, name: &str, schema: Value, description: &str) -> Self {
        self.value["responses"][status.to_string()]["headers"][name] = json!({"description": description, "schema": schema});
        self
    }

    fn fails(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            let named = format!("#/components/responses/{status}");
            if let Some(responses) = self.value["responses"].as_object_mut() {
                responses.entry(status.to_string()).or_insert_with(|| json!({"$ref": named}));
            }
        }
        self
    }
}

/// Parameters that several operations share.
pub fn parameters() -> Value {
    json!({
        "limit": {"name": "limit", "in": "query", "required": false, "description": "How many at most.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
        "offset": {"name": "offset", "in": "query", "required": false, "description": "How many to leave out; what is new meanwhile moves the rest. Better: `cursor`.",
            "schema": {"type": "integer", "minimum": 0, "maximum": 1_000_000, "default": 0}},
        "cursor": {"name": "cursor", "in": "query", "required": false, "description": "The `next_cursor` of the page before.", "schema": {"type": "string"}},
        "idempotencyKey": {"name": "Idempotency-Key", "in": "header", "required": false,
            "description": "A name for this wish. Sent again with it within a day, it is done once, and the first answer is given again with `idempotency-replayed: true`. \
                409: another request with this key is being done, or had another body.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255}},
    })
}

/// Headers that several answers share.
pub fn headers() -> Value {
    json!({
        "requestId": {"required": true, "description": "Names the request in the operator's log; taken from the request's own if it brought a good one.", "schema": {"type": "string"}},
        "rateLimit": {"description": "What is left of the limit that counted this request (draft-ietf-httpapi-ratelimit-headers). Of reads one in sixty-four is counted.", "schema": {"type": "string"}},
        "rateLimitPolicy": {"description": "That limit.", "schema": {"type": "string"}},
        "retryAfter": {"description": "Seconds until trying again may help.", "schema": {"type": "integer"}},
    })
}

/// Where an answer with a problem names the codes it may have.
const CODES: &str = "/content/application~1problem+json/schema/allOf/1/properties/code/enum";

/// One answer for each status that problems have.
pub fn problems() -> Value {
    let mut all = Map::new();
    for code in problem::Code::ALL {
        let (status, title) = code.meaning();
        let name = serde_json::to_value(code).unwrap_or_default();
        let entry = all.entry(status.as_u16().to_string()).or_insert_with(|| {
            let these =
                json!({"properties": {"status": {"type": "integer", "const": status.as_u16()}, "code": {"type": "string", "enum": []}}});
            json!({"description": "", "headers": {"x-request-id": {"$ref": "#/components/headers/requestId"}},
                "content": {"application/problem+json": {"schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, these]}}}})
        });
        if let Some(codes) = entry.pointer_mut(CODES).and_then(Value::as_array_mut) {
            codes.push(name.clone());
        }
        let before = entry["description"].as_str().unwrap_or_default().to_owned();
        let this = format!("{title} (`{}`).", name.as_str().unwrap_or_default());
        entry["description"] = if before.is_empty() { this } else { format!("{before} {this}") }.into();
        match status.as_u16() {
            429 => {
                entry["headers"]["retry-after"] =
                    json!({"description": "Seconds until trying again may help.", "required": true, "schema": {"type": "integer"}});
            }
            503 | 502 => entry["headers"]["retry-after"] = json!({"$ref": "#/components/headers/retryAfter"}),
            405 => {
                entry["headers"]["allow"] =
                    json!({"description": "Methods that are answered.", "required": true, "schema": {"type": "string"}});
            }
            404 => {
                let header = &mut entry["headers"]["x-request-id"];
                *header = headers()["requestId"].take();
                header["required"] = false.into();
                header["description"] =
                    format!("{} Not there where no component was asked.", header["description"].as_str().unwrap_or_default()).into();
            }
            401 => entry["headers"]["www-authenticate"] = json!({"description": "`Bearer`.", "schema": {"type": "string"}}),
            _ => {}
        }
    }
    all.into()
}

/// Every operation, by path and method.
pub fn all(s: &mut Schemas) -> Value {
    let mut paths = Map::new();
    let mut add = |operation: Operation| {
        debug_assert!(TAGS.iter().any(|(tag, _)| *tag == operation.tag));
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.value;
    };
    for operation in
        sign_in(s).into_iter().chain(uploads(s)).chain(tasks(s)).chain(buying(s)).chain(account(s)).chain(admin(s)).chain(machines(s))
    {
        add(operation);
    }
    paths.into()
}

fn text() -> Value {
    json!({"type": "string"})
}

fn one_of(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn sign_in(s: &mut Schemas) -> Vec<Operation> {
    let of = |door, method, path, id, summary| Operation::new("sign-in", door, method, path, id, summary);
    vec![
        of(Open, "get", "/auth/login/{provider}", "beginSignIn", "Go to the provider")
            .query("redirect_to", text(), "A path of ours where the person wants to be afterwards.")
            .query("login_hint", text(), "Passed on to the provider.")
            .empty(302, "To the provider.")
            .header(302, "location", "The provider's page.")
            .header(302, "set-cookie", "Binds the attempt to this browser.")
            .fails(&[404, 429]),
        of(Open, "get", "/auth/callback/{provider}", "finishSignIn", "Back from the provider")
            .about("The provider sends the browser here. A new session begins, and an old one of this browser ends.")
            .query("code", text(), "The provider's; not there where the person declined.")
            .query("state", text(), "Ours.")
            .query("error", text(), "The provider's: why there is no code.")
            .query("iss", text(), "The provider's name for itself; checked if it is there.")
            .empty(302, "Signed in; to where the person wanted to be.")
            .header(302, "location", "A path of ours.")
            .perhaps_header(
                302,
                "set-cookie",
                text(),
                "The session; not there for a browser that is not let in and led to a page that says so.",
            )
            .fails(&[401, 404, 409, 429, 502]),
        of(SignedIn, "post", "/auth/link/{provider}", "addIdentity", "Begin to add a way to sign in")
            .about("For sessions that began within the last hour.")
            .query("redirect_to", text(), "A path of ours where the person wants to be afterwards.")
            .gives::<wire::GoTo>(s, 200, "Where the page has to go.")
            .header(200, "set-cookie", "Binds the attempt to this browser.")
            .fails(&[403, 404]),
        of(Open, "get", "/auth/google/nonce", "googleNonce", "What Google's own button has to be given")
            .gives::<wire::Nonce>(s, 200, "Bound to this browser by a cookie.")
            .header(200, "set-cookie", "The secret of the nonce.")
            .fails(&[429]),
        of(Open, "post", "/auth/google", "signInWithGoogle", "Sign in with Google's own button")
            .takes_json::<wire::Credential>(s)
            .gives::<wire::SignedIn>(s, 200, "Signed in.")
            .header(200, "set-cookie", "The session.")
            .fails(&[401, 403, 409, 429, 502]),
        of(Open, "get", "/auth/session", "getSession", "Who am I?")
            .gives::<wire::SessionAnswer>(s, 200, "Also for a stranger.")
            .fails(&[429]),
        of(Open, "post", "/auth/logout", "signOut", "End this session, or all")
            .query("all", one_of(&["true"]), "`true`: every session of this person.")
            .empty(204, "It is over, at once.")
            .header(204, "set-cookie", "Makes the browser forget it.")
            .fails(&[403]),
        of(SignedIn, "get", "/auth/sessions", "listSessions", "Where am I signed in?").gives::<wire::Sessions>(s, 200, "The newest first."),
        of(SignedIn, "delete", "/auth/sessions/{id}", "endSession", "End a session").empty(204, "It is over, at once.").fails(&[404]),
        of(SignedIn, "get", "/auth/identities", "listIdentities", "How can I sign in?").gives::<wire::Identities>(
            s,
            200,
            "The oldest first.",
        ),
        of(SignedIn, "delete", "/auth/identities/{id}", "removeIdentity", "Take a way to sign in away")
            .about("For sessions that began within the last hour. The last one stays. All other sessions end.")
            .empty(204, "It opens the account no more.")
            .fails(&[403, 404, 409]),
    ]
}

fn uploads(s: &mut Schemas) -> Vec<Operation> {
    let of = |method, path, id, summary| Operation::new("uploads", SignedIn, method, path, id, summary);
    let photo = json!({"schema": {"type": "string", "contentMediaType": "image/*"}});
    vec![
        of("post", "/api/uploads", "uploadPhotos", "Upload photos")
            .about(
                "JPEG, PNG or WebP, as they are or as 1 to 4 `file` parts of a form. All but the picture and its orientation is taken out.",
            )
            .takes(json!({"image/jpeg": photo, "image/png": photo, "image/webp": photo,
                "multipart/form-data": {"schema": {"type": "object", "properties": {"file": {"type": "array", "minItems": 1, "maxItems": 4,
                    "items": {"type": "string", "contentMediaType": "image/*"}}}, "required": ["file"]}}}))
            .gives::<wire::Stored>(s, 201, "Stored.")
            .keyed(201),
        of("get", "/api/uploads", "listUploads", "One's photos").paged().gives::<wire::Uploads>(s, 200, "The newest first."),
        of("post", "/api/uploads/presign", "presignUpload", "Begin an upload straight into the bucket")
            .takes_json::<wire::Intended>(s)
            .example(json!({"content_type": "image/jpeg", "size": 184_320, "filename": "me.jpg"}))
            .gives::<wire::PresignedAnswer>(s, 201, "The request that puts the photo there."),
        of("post", "/api/uploads/{id}/complete", "completeUpload", "The photo is in the bucket")
            .about("It is looked at and cleaned now.")
            .gives::<wire::UploadAnswer>(s, 200, "Stored.")
            .fails(&[404, 409, 413, 415, 422]),
        of("get", "/api/uploads/{id}", "getUpload", "One photo").gives::<wire::UploadAnswer>(s, 200, "It.").fails(&[404]),
        of("delete", "/api/uploads/{id}", "deleteUpload", "Delete a photo").empty(204, "It is gone.").fails(&[404, 409]),
        of("get", "/files/{key}", "getFile", "A photo or a picture of one's own")
            .about("`key` is the rest of the path, with its slashes: addresses come from other answers.")
            .query("download", one_of(&["1", "true"]), "The browser saves it instead of showing it.")
            .empty(302, "To a link that is good for ten minutes.")
            .header(302, "location", "Where the file lies.")
            .fails(&[404]),
    ]
}

fn tasks(s: &mut Schemas) -> Vec<Operation> {
    let of = |door, method, path, id, summary| Operation::new("tasks", door, method, path, id, summary);
    vec![
        of(SignedIn, "post", "/api/tasks", "orderPictures", "Order pictures")
            .about("One for each hairstyle, all or none. Their price is taken at once, and comes back for each that fails.")
            .takes_json::<task::create::Input>(s)
            .example(json!({"upload_id": "019ab1c0-7d1f-7000-8000-000000000000", "hairstyles": ["bob-cut", "pixie-cut"], "hair_color": "copper"}))
            .gives::<wire::Ordered>(s, 202, "They are being made.").keyed(202).fails(&[402, 502]),
        of(SignedIn, "get", "/api/tasks", "listTasks", "One's pictures").paged().gives::<wire::Tasks>(s, 200, "The newest first."),
        of(SignedIn, "get", "/api/tasks/{task_no}", "getTask", "One picture")
            .parameter(json!({"name": "If-None-Match", "in": "header", "required": false, "schema": {"type": "string"}, "description": "The `etag` that is known."}))
            .gives::<wire::TaskAnswer>(s, 200, "It.").header(200, "etag", "Changes whenever the answer does.")
            .perhaps_header(200, "retry-after", json!({"type": "integer"}), "Seconds; while it is being made.")
            .empty(304, "As it was.").header(304, "etag", "The same.").fails(&[404, 502]),
        of(SignedIn, "get", "/api/tasks/{task_no}/events", "followTask", "One picture as it goes on")
            .about("Server-sent events named `task`, the data of each as `getTask` answers: one at once, one for each change, the last when it is final. A stream ends after \
                a while; come back with `Last-Event-ID`.")
            .parameter(json!({"name": "Last-Event-ID", "in": "header", "required": false, "schema": {"type": "string"}, "description": "The id of the last event that was seen."}))
            .answers(200, "The events.", Some(json!({"text/event-stream": {"schema": {"type": "string"}}})))
            .empty(204, "There is nothing to come back for: the end was seen, or the picture is late and `getTask` brings it home.").fails(&[404]),
        of(SignedIn, "post", "/api/tasks/{task_no}/cancel", "cancelTask", "Cancel a picture that waits")
            .gives::<wire::TaskAnswer>(s, 200, "It is cancelled, and its price is back.").fails(&[404, 409]),
        of(Open, "get", "/api/hairstyles", "listHairstyles", "Hairstyles and models").gives::<wire::Hairstyles>(s, 200, "In the order they are shown."),
        of(Open, "get", "/api/hair-colors", "listHairColors", "Hair colours").gives::<wire::HairColors>(s, 200, "In the order they are shown."),
    ]
}

fn buying(s: &mut Schemas) -> Vec<Operation> {
    let of = |door, method, path, id, summary| Operation::new("buying", door, method, path, id, summary);
    vec![
        of(Open, "get", "/api/products", "listProducts", "What is for sale").gives::<wire::Products>(s, 200, "In the order it is shown."),
        of(SignedIn, "post", "/api/orders", "buy", "Buy")
            .takes_json::<wire::Purchase>(s)
            .example(json!({"product_id": "credits-10"}))
            .gives::<wire::OrderAnswer>(s, 201, "An order, and where to pay it.")
            .keyed(201)
            .fails(&[409, 502]),
        of(SignedIn, "get", "/api/orders", "listOrders", "One's orders").paged().gives::<wire::Orders>(s, 200, "The newest first."),
        of(SignedIn, "get", "/api/orders/{id}", "getOrder", "One order").gives::<wire::OrderAnswer>(s, 200, "It.").fails(&[404]),
        of(Open, "get", "/callback/payment", "returnFromPaying", "Back from paying")
            .query("checkout_id", text(), "The payment provider's.")
            .query("request_id", text(), "The order's id. Not trusted: the provider is asked.")
            .empty(302, "To the order: to its page for whoever accepts HTML.")
            .header(302, "location", "Where the order is.")
            .fails(&[404, 422, 429, 502]),
        of(SignedIn, "get", "/api/subscription", "getSubscription", "One's plan").gives::<wire::Subscription>(s, 200, "It, or null."),
        of(SignedIn, "post", "/api/subscription/cancel", "cancelSubscription", "Cancel the plan")
            .about("There will be no further payment; what is paid stays.")
            .gives::<wire::Subscription>(s, 200, "It ends with the period that is paid.")
            .keyed(200)
            .fails(&[404, 409, 502]),
    ]
}

fn account(s: &mut Schemas) -> Vec<Operation> {
    let of = |method, path, id, summary| Operation::new("account", SignedIn, method, path, id, summary);
    vec![
        of("get", "/api/me", "getProfile", "Me").gives::<wire::Profile>(s, 200, "Me.").fails(&[404]),
        of("delete", "/api/me", "deleteAccount", "Erase me")
            .about("The books stay, without the person. A plan has to be cancelled before.")
            .gives::<wire::Erased>(s, 200, "Nothing is left anywhere.")
            .gives::<wire::Erased>(s, 202, "Files are still being removed.")
            .header(200, "set-cookie", "Makes the browser forget the session.")
            .header(202, "set-cookie", "Makes the browser forget the session.")
            .fails(&[409]),
        of("get", "/api/me/credits", "getCredits", "Balance and lots").gives::<user::Credits>(
            s,
            200,
            "What can be spent, in the order it will be.",
        ),
        of("get", "/api/me/credits/history", "listMovements", "The account book").paged().gives::<wire::History>(
            s,
            200,
            "The newest first.",
        ),
        of("get", "/api/me/stats", "getStats", "Figures").gives::<user::Stats>(s, 200, "Mine."),
        of("get", "/api/me/export", "exportData", "All of it, as one file")
            .gives::<wire::Export>(s, 200, "Everything that is kept about me.")
            .header(200, "content-disposition", "A file's name.")
            .fails(&[404]),
    ]
}

fn admin(s: &mut Schemas) -> Vec<Operation> {
    let of = |method, path, id, summary| Operation::new("admin", Admin, method, path, id, summary).fails(&[404]);
    vec![
        of("get", "/api/admin/overview", "getOverview", "Key figures").gives::<wire::Overview>(s, 200, "Kept for a minute."),
        of("get", "/api/admin/audit", "audit", "Are the books right?").gives::<wire::Audit>(s, 200, "Every rule, and what breaks it."),
        of("get", "/api/admin/users", "listUsers", "People").query("email", text(), "Exactly this one.").paged().gives::<wire::Users>(
            s,
            200,
            "The newest first.",
        ),
        of("get", "/api/admin/users/{id}", "getUser", "One of them").gives::<wire::Person>(s, 200, "With figures, and ways to sign in."),
        of("post", "/api/admin/users/{id}/role", "setRole", "Make an admin, or no longer")
            .takes_json::<wire::Role>(s)
            .gives::<wire::UserAnswer>(s, 200, "As it is now."),
        of("post", "/api/admin/gifts", "giveCredits", "Give credits")
            .takes_json::<wire::Gift>(s)
            .example(json!({"email": "ada@example.com", "credits": 10, "key": "sorry-for-tuesday", "expires_in_days": 90}))
            .gives::<wire::GiftAnswer>(s, 201, "Given.")
            .gives::<wire::GiftAnswer>(s, 200, "It was given before.")
            .fails(&[409]),
        of("get", "/api/admin/tasks", "listAllTasks", "Tasks")
            .query("status", one_of(&["pending", "processing", "completed", "failed"]), "Of this status.")
            .query("user_id", text(), "Of this person.")
            .paged()
            .gives::<wire::TaskRows>(s, 200, "The newest first."),
        of("get", "/api/admin/events", "listEvents", "Payment events")
            .query("status", one_of(&["received", "done", "ignored"]), "Of this status.")
            .query("limit", json!({"type": "integer", "minimum": 1, "maximum": 100, "default": 20}), "How many at most.")
            .query("offset", json!({"type": "integer", "minimum": 0, "maximum": 1_000_000, "default": 0}), "How many to leave out.")
            .gives::<wire::Events>(s, 200, "The newest first."),
        of("post", "/api/admin/events/{id}/replay", "replayEvent", "Try an open event again")
            .gives::<wire::EventAnswer>(s, 200, "As it is now.")
            .fails(&[409]),
        of("get", "/api/admin/log", "listActs", "What admins did").paged().gives::<wire::Log>(s, 200, "The newest first."),
        of("get", "/api/admin/alarms", "listAlarms", "Alarms")
            .query("state", one_of(&["open", "closed"]), "Those.")
            .paged()
            .gives::<wire::Alarms>(s, 200, "The newest first."),
        of("get", "/api/admin/jobs", "listJobRuns", "Runs of the scheduled jobs")
            .query("job", text(), "Of this one.")
            .paged()
            .gives::<wire::JobRuns>(s, 200, "The newest first."),
        of("get", "/api/admin/cache", "getCacheStats", "Entries of the cache").gives::<wire::CacheStats>(s, 200, "By kind."),
        of("post", "/api/admin/cache/invalidate", "invalidateCache", "Empty the cache")
            .takes_json::<wire::Invalidation>(s)
            .gives::<wire::Invalidated>(s, 200, "So many."),
    ]
}

/// What other machines call.
fn machines(s: &mut Schemas) -> Vec<Operation> {
    let any = json!({"application/json": {"schema": {}}});
    let mut all = vec![
        Operation::new("webhooks", Signed("kie"), "post", "/webhooks/kie/{task_id}", "kieCallback", "A picture is done, or failed")
            .about("The body is a hint: the provider itself is asked. Whoever is not answered 200 calls again.")
            .takes(any.clone())
            .gives::<wire::TaskHeard>(s, 200, "Heard.")
            .fails(&[404, 502]),
        Operation::new("webhooks", Signed("creem"), "post", "/webhooks/creem", "creemEvent", "Something about a payment")
            .about("Kept before anything is done about it. Told twice, it counts once.")
            .takes(any)
            .gives::<wire::EventHeard>(s, 200, "Heard."),
    ];
    for (path, id, summary) in [
        ("/internal/cleanup", "sweep", "Remove what is over"),
        ("/internal/tasks", "sweepTasks", "Bring pictures home that nobody told of"),
        ("/internal/reconcile", "reconcile", "Ask about payments that nobody told of"),
        ("/internal/backup", "backUp", "Back the database up"),
        ("/internal/alarms", "lookAround", "Look whether all is well"),
    ] {
        let operation = Operation::new("scheduled", Scheduler, "post", path, id, summary)
            .query("now", one_of(&["true"]), "`true`: also when it is not due.")
            .gives::<wire::Report>(s, 200, "What the run did, or why none was begun.")
            .gives::<wire::Report>(s, 503, "Some step failed; what was done stays done. Or the database could not be reached.")
            .or_problem(503);
        all.push(operation.fails(&[409, 502]));
    }
    all.push(
        Operation::new("health", Open, "get", "/health", "getHealth", "Are the stores there?")
            .gives::<wire::Health>(s, 200, "`ok`, or `degraded`: without the cache everything goes on, more slowly.")
            .gives::<wire::Health>(s, 503, "`down`."),
    );
    all.push(
        Operation::new("health", Open, "get", "/health/live", "getLive", "Does the component run?").gives::<wire::Live>(s, 200, "It does."),
    );
    all
}
