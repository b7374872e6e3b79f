// A request to an operation: as a line for a shell, and, if it only reads, made by this page with its reader's own session.

import { h, id, put } from "../js/dom.js";
import { sample } from "./schema.js";
import { copier, pre, statusPill } from "./words.js";

/** Of a longer answer only so much is shown. */
const MOST = 100_000;

/** The line, and a form for what reads. */
export function request(api, operation) {
  const values = new Map();
  const line = pre("", `${operation.operationId} as a line for a shell`);
  const write = () => put(line, curl(api, operation, values));
  write();
  const shell = h("div", { class: "shell" }, line, copier(() => line.textContent, "the line"));
  if (operation.method !== "get") return shell;
  return [shell, form(operation, values, write)];
}

const snake = (name) => name.replaceAll("-", "_").toUpperCase();
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const within = (text) => text.replace(/[\\"$`]/g, "\\$&");

/** Where a request goes. What has no value in the path stands there as `missing` says. */
function address({ path, parameters }, values, missing) {
  // A file's key is the rest of the path, with its slashes.
  const written = (value) => value.split("/").map(encodeURIComponent).join("/");
  const place = path.replace(/\{(\w+)\}/g, (_, name) => (values.get(name) ? written(values.get(name)) : missing(name)));
  const query = parameters.filter((parameter) => parameter.in === "query" && values.get(parameter.name));
  const pairs = query.map(({ name }) => `${encodeURIComponent(name)}=${encodeURIComponent(values.get(name))}`);
  return place + (pairs.length ? `?${pairs.join("&")}` : "");
}

/** A request as a line for a shell. What the reader has to fill in stands there as a variable. */
function curl(api, operation, values) {
  const { method, parameters, requestBody, security = [], responses } = operation;
  const lines = [`curl${method === "get" ? "" : ` -X ${method.toUpperCase()}`} "${location.origin}${address(operation, values, (name) => `$${snake(name)}`)}"`];
  // The first way that is a header: a shell has no cookies.
  const schemes = security.map((way) => Object.keys(way).map((name) => ({ ...api.components.securitySchemes[name], called: name })));
  const way = schemes.find((all) => all.every((scheme) => scheme.in !== "cookie")) ?? [];
  for (const scheme of way) {
    if (scheme.type === "http") lines.push(`-H "authorization: Bearer $${scheme.called === "bearer" ? "TOKEN" : "CRON_SECRET"}"`);
    else lines.push(`-H "${scheme.name}: $${snake(scheme.name)}"`);
  }
  for (const { name, in: place } of parameters) {
    if (place !== "header") continue;
    if (values.get(name)) lines.push(`-H "${name.toLowerCase()}: ${within(values.get(name))}"`);
    else if (name === "Idempotency-Key") lines.push(`-H "idempotency-key: $(uuidgen)"`);
  }
  const [type, media] = Object.entries(requestBody?.content ?? {})[0] ?? [];
  if (type?.includes("json")) {
    lines.push(`-H "content-type: ${type}"`, `-d ${quoted(JSON.stringify(media.example ?? sample(api, media.schema)))}`);
  } else if (type) {
    lines.push(`-H "content-type: ${type}"`, `--data-binary @photo.${type.split("/")[1]}`);
  }
  if (Object.values(responses).some((response) => response.content?.["text/event-stream"])) lines[0] = lines[0].replace("curl", "curl -N");
  return lines.join(" \\\n  ");
}

function form(operation, values, changed) {
  const { operationId, parameters, responses } = operation;
  const takes = (parameter) => {
    const name = id("value");
    const set = (event) => {
      values.set(parameter.name, event.target.value.trim());
      changed();
      aim();
    };
    const props = { id: name, class: "input", required: parameter.required, oninput: set, autocomplete: "off" };
    const choices = parameter.schema?.enum;
    const input = choices
      ? h("select", props, !parameter.required && h("option", { value: "" }, "-"), choices.map((choice) => h("option", { value: choice }, choice)))
      : h("input", { ...props, type: "text", inputmode: parameter.schema?.type === "integer" && "numeric", spellcheck: "false", placeholder: parameter.schema?.default });
    if (choices && parameter.required) values.set(parameter.name, choices[0]);
    return h("div", { class: "field" }, h("label", { for: name }, parameter.name), input);
  };
  const fields = h("div", { class: "columns" }, parameters.map(takes));
  // Where a redirection leads, a page is not told: the reader goes there.
  const leads = Object.keys(responses).every((status) => status >= 300);
  const go = leads ? h("a", { class: "button primary", target: "_blank", rel: "noopener" }, "Open in a new tab") : h("button", { class: "button primary" }, "Send");
  const stop = h("button", { type: "button", class: "button", hidden: true, onclick: () => going?.abort() }, "Stop");
  const status = h("p", { class: "row", role: "status" });
  const body = pre("", `The answer to ${operationId}`);
  body.hidden = true;
  let going;
  function aim() {
    if (!leads) return;
    const whole = parameters.every(({ name, required }) => !required || values.get(name));
    if (whole) go.href = address(operation, values, String);
    else go.removeAttribute("href");
    go.setAttribute("aria-disabled", String(!whole));
  }
  aim();

  async function send(event) {
    event.preventDefault();
    if (leads) return;
    going?.abort();
    const mine = new AbortController();
    going = mine;
    stop.hidden = false;
    put(status, "Asking…");
    body.hidden = true;
    try {
      const headers = parameters.filter(({ name, in: place }) => place === "header" && values.get(name)).map(({ name }) => [name, values.get(name)]);
      const answer = await fetch(address(operation, values, String), { headers, signal: mine.signal, cache: "no-cache" });
      put(status, statusPill(answer.status), h("span", { class: "muted" }, [answer.headers.get("content-type") ?? "no body", answer.headers.get("x-request-id")].filter(Boolean).join(" · ")));
      await read(answer, body);
    } catch (error) {
      if (error.name === "AbortError") {
        if (going === mine) status.append(" Stopped.");
      } else {
        put(status, "The server cannot be reached.");
      }
    } finally {
      if (going === mine) stop.hidden = true;
    }
  }
  return h("form", { class: "stack", onsubmit: send, "aria-label": `Try ${operationId}` }, parameters.length > 0 && fields, h("div", { class: "row" }, go, stop, h("span", { class: "small muted" }, "With the session of this browser, if you are signed in.")), status, body);
}

/** Shows an answer while it comes: a stream of events has no end that one waits for. */
async function read(answer, place) {
  let text = "";
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  while (reader) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
    place.hidden = false;
    if (text.length > MOST) {
      put(place, `${text.slice(0, MOST)}\n… (more than is shown here)`);
      await reader.cancel();
      return;
    }
    put(place, text);
  }
  if (answer.headers.get("content-type")?.includes("json")) {
    try {
      put(place, JSON.stringify(JSON.parse(text), null, 2));
    } catch {
      // Then it stays as it came.
    }
  }
}
