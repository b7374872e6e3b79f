// Schemas: what they are called, what they are made of, and how a value of one looks.

import { h } from "../js/dom.js";
import { code, more, pill, prose } from "./words.js";

/** What a reference leads to; anything else is itself. */
export function resolve(api, value) {
  if (!value?.$ref) return value ?? {};
  const { $ref, ...own } = value;
  const target = $ref.slice(2).split("/").reduce((at, part) => at[part.replaceAll("~1", "/").replaceAll("~0", "~")], api);
  return { ...target, ...own };
}

const nameOf = (schema) => schema.$ref?.split("/").at(-1);
const isNull = (schema) => schema.type === "null";

/** What a schema is in a few words. */
export function kind(schema) {
  if (schema.$ref) return nameOf(schema);
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.map(kind).join(" or ");
  if (schema.contentMediaType) return `file (${schema.contentMediaType})`;
  const types = [schema.type ?? []].flat();
  if (!types.length) return schema.enum ? "value" : "any JSON";
  return types.map((type) => (type === "array" ? `list of ${kind(schema.items ?? {})}` : type === "object" && !schema.properties ? `map of string to ${kind(schema.additionalProperties ?? {})}` : plain(type, schema))).join(" or ");
}

function plain(type, { format }) {
  return format && type !== "null" ? `${type} (${format})` : type;
}

/** What a value has to keep to. */
function limits(schema) {
  const { minimum, maximum, minLength, maxLength, minItems, maxItems, pattern } = schema;
  const range = (least, most, unit) => {
    if (least !== undefined && most !== undefined) return `${least} to ${most}${unit}`;
    if (most !== undefined) return `at most ${most}${unit}`;
    return least !== undefined ? `at least ${least}${unit}` : null;
  };
  const words = [range(minimum, maximum, ""), range(minLength, maxLength, " characters"), range(minItems, maxItems, " entries"), pattern && `like ${pattern}`, schema.default !== undefined && `otherwise ${JSON.stringify(schema.default)}`];
  return words.filter(Boolean).join("; ");
}

/** The schema that is inside: of a list its items, of what may be null the other choice. */
function core(api, schema) {
  const full = resolve(api, schema);
  const choices = (full.oneOf ?? full.anyOf)?.filter((choice) => !isNull(choice));
  if (choices?.length === 1) return core(api, choices[0]);
  if (full.items) return core(api, full.items);
  if (full.properties) return full;
  if (full.additionalProperties && typeof full.additionalProperties === "object") return core(api, full.additionalProperties);
  return full;
}

/** The name of the schema that is inside, if it has one. */
function within(schema) {
  const choices = (schema.oneOf ?? schema.anyOf)?.filter((choice) => !isNull(choice));
  if (choices?.length === 1) return within(choices[0]);
  const inner = schema.items ?? (typeof schema.additionalProperties === "object" ? schema.additionalProperties : undefined);
  return nameOf(schema) ?? (inner && within(inner));
}

// What is worth a word about a property: that it has to be sent, or that it may be left out of an answer.
export const SENT = (required) => required && "required";
export const ANSWERED = (required) => !required && "optional";

/** A property or a parameter: its name, what it is, and what that is made of. `where` says where a parameter belongs; `way` is for what is inside. */
export function field(api, name, schema, { description, where, mark, way = SENT } = {}) {
  const full = resolve(api, schema);
  const inside = core(api, schema);
  const told = description ?? full.description ?? full.oneOf?.find((choice) => choice.description)?.description;
  const limit = limits(full);
  return h(
    "li",
    {},
    h("div", { class: "name" }, code(name), h("span", { class: "kind" }, where && `${where}, `, kind(schema)), mark && pill(mark)),
    told && h("p", {}, prose(told, true)),
    (limit || inside.enum) && h("p", { class: "muted" }, limit, limit && inside.enum && "; ", inside.enum && among(inside.enum)),
    inside.properties && more(["What is in it", h("span", { class: "hush" }, ` (${name})`)], () => tree(api, schema, way)),
  );
}

function among(values) {
  return ["one of ", values.flatMap((value, at) => [at > 0 && ", ", code(String(value))])];
}

/** What a schema is made of. `way` is SENT or ANSWERED. */
export function tree(api, schema, way) {
  const full = core(api, schema);
  const name = within(schema);
  const head = full.description && h("p", { class: "small" }, name && [code(name), ": "], prose(full.description, true));
  if (!full.properties) return [head, h("p", { class: "small muted" }, kind(schema), full.enum && [": ", among(full.enum)])];
  const required = new Set(full.required);
  const entries = Object.entries(full.properties);
  return [head, h("ul", { class: "fields" }, entries.map(([key, value]) => field(api, key, value, { mark: way(required.has(key)), way })))];
}

// What values look like that are told apart by their names only.
const LOOKS = [
  [/(^|_)at$|^(since|until|expires)/, (type) => (type === "string" ? undefined : 1_767_225_600)],
  [/email/, () => "ada@example.com"],
  [/url|href|location/, () => "https://example.com/…"],
  [/currency/, () => "USD"],
  [/^(id|.*_id|task_no|order_no)$/, () => "019ab1c0-7d1f-7000-8000-000000000000"],
];

/** A value of a schema. */
export function sample(api, schema, name = "", seen = []) {
  if (schema.$ref) {
    if (seen.includes(schema.$ref)) return null;
    return sample(api, resolve(api, schema), name, [...seen, schema.$ref]);
  }
  if (schema.example !== undefined) return schema.example;
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  const choice = (schema.oneOf ?? schema.anyOf)?.find((one) => !isNull(one));
  if (choice) return sample(api, choice, name, seen);
  const type = [schema.type ?? []].flat().find((one) => one !== "null");
  if (type === "array") return [sample(api, schema.items ?? {}, name, seen)];
  if (type === "object" || schema.properties) return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([key, value]) => [key, sample(api, value, key, seen)]));
  if (type === "boolean") return true;
  if (!type) return {};
  const look = LOOKS.find(([pattern]) => pattern.test(name))?.[1](type);
  if (look !== undefined && (typeof look === "string") === (type === "string")) return look;
  return type === "string" ? "…" : (schema.minimum ?? 1);
}
