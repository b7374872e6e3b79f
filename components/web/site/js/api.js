// The one way to the API. Answers are JSON; whatever goes wrong is a Trouble, with the problem's code (README, "Endpoints").

import { relative, words } from "./language.js";

/** What the server says better than its code alone does, and the same in Chinese. A test holds the sentences to the server's. */
const SAID = {
  "No more pictures can be made today. Nothing was charged; come back tomorrow.": "今天的图片名额已用完，没有扣除点数，请明天再来。",
  "You have had your share of today's pictures. Nothing was charged; come back tomorrow.": "您今天的图片名额已用完，没有扣除点数，请明天再来。",
  "Your own words could not be checked. Nothing was charged; try again in a moment, or order without them.": "您写的补充说明暂时无法审核，没有扣除点数。请稍后重试，或去掉说明后再下单。",
  "These words cannot be used for a picture. Put them otherwise, or order without them.": "这段说明不能用于生成图片。请换一种说法，或去掉说明后再下单。",
};

const w = words({
  en: {
    offline: "The server cannot be reached. Check your connection; nothing was lost.",
    late: (when) => `Too many requests. Try again ${when}.`,
    signedOut: "You are signed out. Sign in again to go on.",
    down: "The service is not available for a moment. Try again shortly.",
    provider: "The service that makes the pictures cannot be reached right now. Nothing was charged that will not come back.",
    credits: "You do not have enough credits for this.",
    internal: (id) => `Something went wrong on our side. If it happens again, report this number: ${id}`,
    tooLarge: "The file is too large.",
    notFound: "It is not there any more.",
    conflict: null,
    said: (sentence) => sentence,
  },
  zh: {
    offline: "无法连接服务器。请检查网络，没有任何内容丢失。",
    late: (when) => `请求过于频繁，请在${when}重试。`,
    signedOut: "您已退出登录，请重新登录后继续。",
    down: "服务暂时不可用，请稍后重试。",
    provider: "图片生成服务暂时无法连接。已扣的点数会退回。",
    credits: "点数不足。",
    internal: (id) => `我们这边出了问题。如再次出现，请报告此编号：${id}`,
    tooLarge: "文件太大。",
    notFound: "内容已不存在。",
    conflict: "目前的状态不允许此操作。",
    said: (sentence) => SAID[sentence],
  },
});

export class Trouble extends Error {
  constructor(status, body, retryAfter, requestId) {
    super(body?.detail ?? w.offline);
    this.status = status;
    this.code = body?.code ?? "offline";
    this.detail = SAID[body?.detail] ? w.said(body.detail) : body?.detail;
    this.saysMore = body?.detail in SAID;
    /** Field by field: {field, message}. */
    this.errors = (body?.errors ?? []).map((error) => (SAID[error.message] ? { ...error, message: w.said(error.message) } : error));
    this.retryAfter = retryAfter;
    this.requestId = body?.request_id ?? requestId;
  }

  /** What a person is told. */
  get words() {
    if (this.saysMore) return this.detail;
    switch (this.code) {
      case "offline": return w.offline;
      case "unauthenticated": return w.signedOut;
      case "rate_limited": return this.retryAfter ? w.late(relative(Date.now() / 1000 + this.retryAfter + 0.5)) : this.detail;
      case "service_unavailable":
      case "storage_unavailable": return w.down;
      case "provider_unavailable": return w.provider;
      case "insufficient_credits": return w.credits;
      case "payload_too_large": return w.tooLarge;
      case "not_found": return w.notFound;
      case "conflict": return w.conflict ?? this.detail;
      case "internal": return w.internal(this.requestId ?? "");
      default: return this.detail ?? w.down;
    }
  }
}

/** What whoever is not signed in any more is told. */
export const signedOut = w.signedOut;

const leavers = new Set();
/** Calls back when the server says that nobody is signed in here any more. */
export function whenSignedOut(callback) {
  leavers.add(callback);
}

/**
 * One request. `json` is sent as JSON, `body` as it is with `type`; `once` is an Idempotency-Key, so that a request may be sent again.
 * Answers the body, or null for one without.
 */
export async function api(method, path, { json, body, type, once, signal } = {}) {
  const headers = { accept: "application/json" };
  if (json !== undefined) headers["content-type"] = "application/json";
  if (type) headers["content-type"] = type;
  if (once) headers["idempotency-key"] = once;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: json === undefined ? body : JSON.stringify(json), signal, cache: "no-cache" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble(0, undefined);
  }
  const text = await answer.text().catch((error) => {
    if (error.name === "AbortError") throw error;
    return "";
  });
  let parsed = null;
  try {
    parsed = text ? JSON.parse(text) : null;
  } catch {
    // A proxy's page instead of an answer of ours.
    if (answer.ok) throw new Trouble(answer.status, { code: "service_unavailable", detail: w.down });
  }
  if (!answer.ok) {
    const trouble = new Trouble(
      answer.status,
      parsed?.code ? parsed : { code: answer.status >= 500 ? "service_unavailable" : "internal", detail: w.down },
      Number(answer.headers.get("retry-after")) || undefined,
      answer.headers.get("x-request-id"),
    );
    if (trouble.code === "unauthenticated") leavers.forEach((callback) => callback());
    throw trouble;
  }
  return parsed;
}

export const get = (path, options) => api("GET", path, options);
export const post = (path, options) => api("POST", path, options);

/** A fresh Idempotency-Key. The same is used for every try of one wish. */
export const wish = () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
