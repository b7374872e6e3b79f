// The API's description as a page: /openapi.json, operation by operation. What an operation takes and answers is put together when it is
// opened, and so is what a schema is made of.

import { h, put } from "../js/dom.js";
import { badge, credential, inside } from "./operation.js";
import { ANSWERED, resolve, tree } from "./schema.js";
import { code, more, prose, statusPill, terms } from "./words.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
/** Wide enough for the list of operations beside them. */
const WIDE = matchMedia("(min-width: 64rem)");

const main = document.getElementById("main");
const aside = document.getElementById("aside");
/** What is on the page of each operation, by its id: {details, item, text}. */
const shown = new Map();

begin();

async function begin() {
  const waiting = h("div", { class: "stack", role: "status", "aria-label": "Loading", "aria-busy": "true" }, [1, 2, 3].map(() => h("div", { class: "bones" })));
  main.append(waiting);
  try {
    const answer = await fetch("/openapi.json");
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
    show(await answer.json());
  } catch (error) {
    const again = () => {
      trouble.remove();
      begin();
    };
    const trouble = h("div", { class: "empty", role: "alert" }, h("h2", {}, "The description could not be loaded"), h("p", {}, error.message), h("button", { type: "button", class: "button", onclick: again }, "Try again"));
    main.append(trouble);
  } finally {
    waiting.remove();
  }
}

function show(api) {
  const groups = api.tags.map((tag) => ({ ...tag, operations: operations(api, tag.name) }));
  const sections = groups.map((group) => ({ group, element: section(api, group) }));
  put(main, about(api), sections.map(({ element }) => element), problems(api));
  put(aside, index(groups, sections));
  addEventListener("hashchange", arrive);
  arrive();
}

/** The operations of a group, with their references resolved. */
function operations(api, tag) {
  return Object.entries(api.paths).flatMap(([path, methods]) => {
    const own = METHODS.filter((method) => methods[method]?.tags?.includes(tag));
    return own.map((method) => ({ ...methods[method], method, path, parameters: (methods[method].parameters ?? []).map((parameter) => resolve(api, parameter)) }));
  });
}

/** What holds for every operation. */
function about(api) {
  const { version, summary, description } = api.info;
  const schemes = Object.values(api.components.securitySchemes ?? {});
  return h(
    "header",
    { class: "stack" },
    h("div", {}, h("h1", {}, "API"), h("p", { class: "muted" }, `${summary ?? ""} Version ${version}.`)),
    h("div", { class: "stack tight measure" }, prose(description)),
    schemes.length > 0 && more("Who is asking", () => terms(schemes.map((scheme) => [code(credential(scheme)), prose(scheme.description ?? "", true)]))),
  );
}

/** A name of the description as a heading. */
function headline(name) {
  return name[0].toUpperCase() + name.slice(1).replaceAll("-", " ");
}

function section(api, { name, description, operations }) {
  const title = `tag-${name}`;
  return h(
    "section",
    { class: "stack tight", "aria-labelledby": title },
    h("div", {}, h("h2", { id: title }, headline(name)), description && h("p", { class: "muted" }, prose(description, true))),
    operations.map((operation) => outline(api, operation)),
  );
}

/** A line for an operation, with all of it behind. */
function outline(api, operation) {
  const { operationId, method, path, summary, description, tags } = operation;
  // A path may be broken behind its slashes.
  const broken = path.split("/").flatMap((part, at) => (at ? ["/", h("wbr"), part] : [part]));
  const details = more([badge(method), h("h3", {}, h("code", {}, broken), h("span", { class: "what" }, " ", summary))], () => h("div", { class: "stack" }, inside(api, operation)), { class: "card op", id: operationId });
  details.addEventListener("toggle", () => {
    if (!details.open) return;
    // The address names what one is reading, so that it can be passed on.
    if (location.hash !== `#${operationId}`) history.replaceState(history.state, "", `#${operationId}`);
    mark();
  });
  const item = h("li", {}, h("a", { href: `#${operationId}` }, badge(method), h("span", {}, summary)));
  item.firstChild.addEventListener("click", () => location.hash === `#${operationId}` && arrive());
  shown.set(operationId, { details, item, text: [operationId, method, path, summary, description, ...tags].join(" ").toLowerCase() });
  return details;
}

/** What may go wrong everywhere. */
function problems(api) {
  const all = Object.entries(api.components.responses ?? {});
  return h(
    "section",
    { class: "stack tight", "aria-labelledby": "problems" },
    h("h2", { id: "problems" }, "Problems"),
    h("p", { class: "muted" }, "What went wrong is told as ", code("application/problem+json"), ", with a ", code("code"), " for programs and a ", code("detail"), " for people."),
    h("div", { class: "card" }, terms(all.map(([status, { description }]) => [statusPill(status), prose(description, true)]))),
    more("What is in a problem", () => tree(api, { $ref: "#/components/schemas/Problem" }, ANSWERED)),
  );
}

/** The list of operations, and the field that finds some of them. */
function index(groups, sections) {
  const told = h("p", { class: "tiny muted", role: "status" });
  const field = h("input", { type: "search", class: "input", id: "find", placeholder: "Find an operation", autocomplete: "off", spellcheck: "false" });
  const lists = groups.map(({ name, operations }) => h("li", {}, h("a", { class: "label", href: `#tag-${name}` }, headline(name)), h("ul", {}, operations.map(({ operationId }) => shown.get(operationId).item))));
  const list = h("details", { class: "index", open: WIDE.matches }, h("summary", {}, "All operations"), h("nav", { "aria-label": "Operations" }, h("ul", {}, lists)));
  WIDE.addEventListener("change", () => (list.open = WIDE.matches));

  function find() {
    const sought = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    groups.forEach(({ operations }, at) => {
      let some = false;
      for (const { operationId } of operations) {
        const { details, item, text } = shown.get(operationId);
        const fits = sought.every((word) => text.includes(word));
        details.hidden = item.hidden = !fits;
        some ||= fits;
        found += fits;
      }
      lists[at].hidden = sections[at].element.hidden = !some;
    });
    // On a narrow page what is found is otherwise far below.
    if (sought.length) list.open = true;
    told.textContent = found === 0 ? "Nothing is called so." : `${found} ${found === 1 ? "operation" : "operations"}`;
  }
  field.addEventListener("input", find);
  const first = (event) => {
    event.preventDefault();
    for (const [name, { details }] of shown) {
      if (details.hidden) continue;
      location.hash = name;
      arrive();
      return;
    }
  };
  find();
  return h("form", { role: "search", class: "stack tight", onsubmit: first }, h("label", { class: "hush", for: "find" }, "Find an operation"), field, told, list);
}

/** Goes to what the address names. */
function arrive() {
  const name = decodeURIComponent(location.hash.slice(1));
  const place = name && document.getElementById(name);
  if (!place) return;
  const operation = shown.get(name)?.details;
  if (operation) {
    operation.hidden = false;
    operation.closest("section").hidden = false;
    operation.open = true;
  }
  // What is opened grows the page once the browser has told it so.
  requestAnimationFrame(() => {
    place.scrollIntoView();
    operation?.querySelector("summary").focus({ preventScroll: true });
  });
  mark();
}

/** Shows in the list where one is. */
function mark() {
  for (const [name, { item }] of shown) {
    if (location.hash === `#${name}`) item.firstChild.setAttribute("aria-current", "true");
    else item.firstChild.removeAttribute("aria-current");
  }
}
