// What is told of an operation once it is opened.

import { h } from "../js/dom.js";
import { request } from "./request.js";
import { ANSWERED, field, kind, resolve, sample, SENT, tree } from "./schema.js";
import { code, more, pre, prose, statusPill, terms } from "./words.js";

export function badge(method) {
  return h("span", { class: `method ${method}` }, method.toUpperCase());
}

/** How a request shows who is asking. */
export function credential(scheme) {
  if (scheme.type === "http") return "Authorization: Bearer …";
  return scheme.in === "cookie" ? `Cookie: ${scheme.name}=…` : `${scheme.name}: …`;
}

export function inside(api, operation) {
  const { description, parameters, requestBody } = operation;
  const block = (head, ...content) => h("section", { class: "stack tight" }, h("h4", {}, head), content);
  return [
    description && h("div", { class: "stack tight" }, prose(description)),
    needs(api, operation),
    parameters.length > 0 && block("Parameters", h("ul", { class: "fields" }, parameters.map((parameter) => field(api, parameter.name, parameter.schema ?? {}, { description: parameter.description, where: `in the ${parameter.in}`, mark: parameter.required && "required" })))),
    requestBody && block("Request body", takes(api, operation, resolve(api, requestBody))),
    block("Answers", answers(api, operation)),
    block("Try it", request(api, operation)),
  ];
}

function needs(api, { security = [] }) {
  const ways = security.map((way) => Object.keys(way).map((name) => code(credential(api.components.securitySchemes[name]))));
  if (!ways.length) return null;
  return h("p", { class: "small" }, "Needs ", ways.flatMap((all, at) => [at > 0 && " or ", all.flatMap((one, nth) => [nth > 0 && " and ", one])]));
}

function takes(api, { operationId }, body) {
  // Types that are taken in the same way stand together.
  const groups = Map.groupBy ? Map.groupBy(Object.entries(body.content), ([, media]) => JSON.stringify(media)) : new Map(Object.entries(body.content).map((entry) => [entry[0], [entry]]));
  return [...groups.values()].map((group) => {
    const [[type, media]] = group;
    const whole = media.schema.contentMediaType && ": the file itself";
    return h(
      "div",
      { class: "stack tight" },
      h("p", { class: "small" }, group.flatMap(([name], at) => [at > 0 && ", ", code(name)]), whole),
      whole ? null : tree(api, media.schema, SENT),
      type.includes("json") && example(api, media, `What ${operationId} takes, as an example`),
    );
  });
}

function example(api, media, name) {
  return [h("p", { class: "label" }, "Example"), pre(JSON.stringify(media.example ?? sample(api, media.schema), null, 2), name)];
}

function answers(api, { operationId, responses }) {
  const all = Object.entries(responses).map(([status, response]) => [status, resolve(api, response)]);
  const isProblem = ([, response]) => Boolean(response.content?.["application/problem+json"]);
  const bad = all.filter(isProblem);
  return [
    all.filter((one) => !isProblem(one)).map(([status, response]) => answer(api, operationId, status, response)),
    bad.length > 0 &&
      more(["What may go wrong: ", bad.map(([status]) => status).join(", ")], () => [
        terms(bad.map(([status, response]) => [statusPill(status), prose(response.description, true)])),
        h("p", { class: "small" }, "Each is a ", h("a", { href: "#problems" }, "problem"), "."),
      ]),
  ];
}

function answer(api, operationId, status, response) {
  const headers = Object.entries(response.headers ?? {}).map(([name, header]) => [code(name), prose(resolve(api, header).description ?? "", true)]);
  return h(
    "div",
    { class: "answer stack tight" },
    h("div", { class: "row" }, statusPill(status), h("span", {}, prose(response.description, true))),
    Object.entries(response.content ?? {}).map(([type, media]) =>
      more([code(type), " ", h("span", { class: "kind" }, kind(media.schema))], () => [tree(api, media.schema, ANSWERED), type.includes("json") && example(api, media, `What ${operationId} answers with ${status}, as an example`)]),
    ),
    headers.length > 0 && more(["Headers", h("span", { class: "hush" }, ` of ${status}`)], () => terms(headers)),
  );
}
