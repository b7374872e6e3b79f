// Who one is here: ways to sign in, sessions, what is kept, and the end of it.

import { api, get, post } from "../api.js";
import { h, put } from "../dom.js";
import { date, number, relative, words } from "../language.js";
import { ask, button, field, fill, folded, note, pill } from "../parts.js";
import { person } from "../person.js";
import { credits } from "../purchases.js";

const w = words({
  en: {
    title: "Account", lead: "Who you are here, how you come in, and what is kept.",
    since: (day) => `Member since ${day}`, admin: "Admin",
    figures: "Figures", ordered: "Pictures ordered", made: "Pictures made", failed: "Failed, not charged", used: "Credits used",
    ways: "Ways to sign in", waysText: "Each of them opens this account.", added: (day) => `added ${day}`, onlyWay: "Your only one, so it stays. Add another before you take it away.",
    remove: "Remove", removeOf: (name) => `Remove ${name}`, removeHead: (name) => `Remove ${name}?`, removeFacts: (name) => [`${name} opens this account no more.`, "All your other sessions end. This one stays."], removed: (name) => `${name} is removed.`,
    add: (name) => `Add ${name}`, addText: "You go to it once, and come back here.", linked: (name) => `${name} is added. You can sign in with either now.`,
    recent: "To change this you have to have signed in within the last hour, so that nobody who finds your browser open can do it.", signAgain: "Sign in again",
    sessions: "Where you are signed in", sessionsText: "End what you do not know. A session ends by itself after eight days without use.", current: "This one", browserOn: (browser, system) => (system ? `${browser} on ${system}` : browser), unknown: "Unknown browser", seen: (when) => `used ${when}`, began: (day) => `since ${day}`, noAddress: "address unknown", allSessions: (n) => `Show all ${number(n)}`,
    end: "End", endOf: (name) => `End the session of ${name}`, ended: "The session is over.", endAll: "Sign out everywhere", endHead: "Sign out everywhere?",
    endFacts: ["Every session ends at once, this one too: you have to sign in again here.", "Pictures that are being made go on.", "Nothing is deleted."],
    data: "Your data", dataText: "Everything that is kept about you, as one JSON file: profile, sign-ins, photos and pictures by their addresses, orders, every movement of your credits.", export: "Download my data", exported: "Your data is being saved.",
    gone: "Delete the account", goneText: "At once and for good. Nobody can bring it back.", delete: "Delete my account", deleteHead: "Delete your account?", keep: "Keep it",
    goes: "What goes, at once", goesFacts: (n) => ["Your name, your e-mail address, your ways to sign in and all sessions.", "All your photos and pictures. Download first what you want to keep.", n > 0 ? `Your ${credits(n)}. They are not paid back.` : "What is being made at the moment."],
    stays: "What stays", staysFacts: ["Payments and credit movements, without your name and address: for taxes, and for disputes that a bank may open later.", "Backups, for 42 days at most."],
    word: "delete", typeWord: (word) => `Type “${word}” to go on`, wrongWord: (word) => `Please type “${word}”.`,
    planFirst: "Cancel your plan first", planFirstText: "You have a plan that would go on being charged. Cancel it on the page Credits; then the account can be deleted at once, even before the plan ends.", toPlan: "To the plan",
  },
  zh: {
    title: "账户", lead: "您的身份、登录方式，以及我们保存的内容。",
    since: (day) => `${day} 注册`, admin: "管理员",
    figures: "统计", ordered: "已下单图片", made: "已生成图片", failed: "失败（未收费）", used: "已用点数",
    ways: "登录方式", waysText: "每种方式都可以登录此账户。", added: (day) => `${day} 添加`, onlyWay: "这是唯一的登录方式，因此需要保留。如需移除，请先添加另一种。",
    remove: "移除", removeOf: (name) => `移除 ${name}`, removeHead: (name) => `要移除 ${name} 吗？`, removeFacts: (name) => [`${name} 将无法再登录此账户。`, "其他所有登录都会结束，当前登录保留。"], removed: (name) => `已移除 ${name}。`,
    add: (name) => `添加 ${name}`, addText: "您会前往该网站一次，然后回到这里。", linked: (name) => `已添加 ${name}，现在两种方式都可以登录。`,
    recent: "更改此项需要您在一小时内登录过，以防他人使用您打开的浏览器进行操作。", signAgain: "重新登录",
    sessions: "登录设备", sessionsText: "如有不认识的，请将其结束。八天未使用的登录会自动失效。", current: "当前", browserOn: (browser, system) => (system ? `${browser}（${system}）` : browser), unknown: "未知浏览器", seen: (when) => `${when}使用过`, began: (day) => `${day} 登录`, noAddress: "地址未知", allSessions: (n) => `显示全部 ${number(n)} 项`,
    end: "结束", endOf: (name) => `结束 ${name} 的登录`, ended: "该登录已结束。", endAll: "退出所有设备", endHead: "要退出所有设备吗？",
    endFacts: ["所有登录立即结束，包括当前设备，您需要重新登录。", "正在生成的图片会继续。", "不会删除任何内容。"],
    data: "您的数据", dataText: "我们保存的关于您的全部内容，合为一个 JSON 文件：个人资料、登录记录、照片和图片的地址、订单，以及点数的每一笔变动。", export: "下载我的数据", exported: "正在保存您的数据。",
    gone: "删除账户", goneText: "立即生效，永久删除，任何人都无法恢复。", delete: "删除我的账户", deleteHead: "要删除账户吗？", keep: "保留账户",
    goes: "立即删除的内容", goesFacts: (n) => ["您的姓名、邮箱、登录方式和所有登录。", "您的全部照片和图片。如需保留，请先下载。", n > 0 ? `您的 ${credits(n)}，不予退款。` : "正在生成的内容。"],
    stays: "保留的内容", staysFacts: ["付款和点数变动，不含您的姓名和地址：用于税务，以及日后可能的银行争议。", "备份，最多保留 42 天。"],
    word: "删除", typeWord: (word) => `请输入“${word}”以继续`, wrongWord: (word) => `请输入“${word}”。`,
    planFirst: "请先取消套餐", planFirstText: "您的套餐会继续扣款。请先在“点数”页面取消；取消后即可立即删除账户，无需等到套餐结束。", toPlan: "前往套餐",
  },
});

export const title = w.title;

/** Sessions that are shown at once. */
const SESSIONS = 4;
const PROVIDERS = { google: "Google", github: "GitHub" };
const SIGNS = { google: "G", github: "GH" };
const nameOf = (provider) => PROVIDERS[provider] ?? provider;

export function render({ query, signal }) {
  const places = Object.fromEntries(["who", "ways", "sessions"].map((name) => [name, h("div", { class: name })]));
  const page = { places, signal, linked: query.get("linked") };
  drawWho(page);
  drawWays(page);
  drawSessions(page);
  // What the address told is told once.
  if (page.linked) history.replaceState(null, "", location.pathname);
  return h(
    "div",
    { class: "page account" },
    h("div", { class: "head" }, h("div", {}, h("h1", { tabindex: "-1" }, w.title), h("p", {}, w.lead))),
    places.who,
    h("div", { class: "columns" }, places.ways, places.sessions),
    h("div", { class: "columns" }, dataOf(), endOf()),
  );
}

const card = (content) => h("section", { class: "card" }, content);

// The person, and what they did here.

function drawWho(page) {
  const { who } = page.places;
  return fill(who, async () => {
    const [{ user }, stats] = await Promise.all([get("/api/me", { signal: page.signal }), get("/api/me/stats", { signal: page.signal })]);
    const name = user.name || user.email;
    put(
      who,
      h(
        "section",
        { class: "card self", "aria-label": name },
        h("span", { class: "avatar large", "aria-hidden": "true" }, initials(name)),
        h("div", {}, h("div", { class: "row" }, h("h2", {}, name), user.role === "admin" && pill(w.admin)), h("p", {}, user.email), h("p", { class: "muted small" }, w.since(date(user.created_at)))),
        h(
          "dl",
          { class: "doings", "aria-label": w.figures },
          [[w.ordered, stats.total_tasks], [w.made, stats.completed_tasks], [w.failed, stats.failed_tasks], [w.used, stats.credits_used]].map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", { class: "number" }, number(value)))),
        ),
      ),
    );
  }, { signal: page.signal, wrap: card });
}

function initials(name) {
  const parts = name.trim().split(/\s+/);
  return (parts.length > 1 ? parts[0][0] + parts.at(-1)[0] : name.slice(0, 2)).toUpperCase();
}

// Ways to sign in.

function drawWays(page) {
  const { ways } = page.places;
  return fill(ways, async () => {
    const { identities } = await get("/auth/identities", { signal: page.signal });
    page.providers = identities.map(({ provider }) => provider);
    if (page.linked && page.providers.includes(page.linked)) note(w.linked(nameOf(page.linked)));
    page.linked = null;
    const told = h("div", { role: "alert" });
    const missing = Object.keys(PROVIDERS).filter((provider) => !page.providers.includes(provider));
    put(
      ways,
      h(
        "section",
        { class: "card stack", "aria-labelledby": "ways" },
        h("div", { class: "stack tight" }, h("h2", { id: "ways", tabindex: "-1" }, w.ways), h("p", { class: "muted small" }, w.waysText)),
        h("ul", { class: "list" }, identities.map((identity) => wayOf(page, identity, identities.length, told))),
        identities.length === 1 && h("p", { class: "muted tiny" }, w.onlyWay),
        missing.length > 0 && h("div", { class: "row" }, missing.map((provider) => button(w.add(nameOf(provider)), { onclick: () => recently(page, told, () => add(provider)) })), h("span", { class: "muted tiny" }, w.addText)),
        told,
      ),
    );
  }, { signal: page.signal, wrap: card });
}

function wayOf(page, identity, ways, told) {
  const name = nameOf(identity.provider);
  return h(
    "li",
    {},
    h("div", { class: "row" }, h("span", { class: "avatar", "aria-hidden": "true" }, SIGNS[identity.provider] ?? name[0]), h("div", {}, h("strong", {}, name), h("div", { class: "muted tiny" }, w.added(date(identity.created_at))))),
    ways > 1 && button(w.remove, { kind: "danger", "aria-label": w.removeOf(name), onclick: () => remove(page, identity, name, told) }),
  );
}

async function add(provider) {
  const { url } = await post(`/auth/link/${provider}?redirect_to=${encodeURIComponent(`/account?linked=${provider}`)}`);
  location.assign(url);
  await new Promise((resolve) => setTimeout(resolve, 10_000));
}

async function remove(page, identity, name, told) {
  let refused = false;
  const sure = await ask({
    head: w.removeHead(name), yes: w.remove, danger: true, body: points(w.removeFacts(name)),
    act: () => recently(page, told, () => api("DELETE", `/auth/identities/${encodeURIComponent(identity.id)}`), () => (refused = true)),
  });
  if (!sure || refused) return;
  note(w.removed(name));
  await Promise.all([drawWays(page), drawSessions(page)]);
  page.places.ways.querySelector("h2")?.focus({ preventScroll: true });
}

/** Does what needs a sign-in of the last hour, or tells that it does. */
async function recently(page, told, act, refuse = () => {}) {
  put(told);
  try {
    await act();
  } catch (error) {
    if (error.code !== "forbidden") throw error;
    refuse();
    const again = `/auth/login/${page.providers[0] ?? "google"}?redirect_to=${encodeURIComponent("/account")}`;
    put(told, h("div", { class: "say wait remind" }, h("span", {}, w.recent), h("a", { class: "button", href: again }, w.signAgain)));
  }
}

// Sessions.

function drawSessions(page) {
  const { sessions } = page.places;
  return fill(sessions, async () => {
    const { sessions: all } = await get("/auth/sessions", { signal: page.signal });
    // This one first, then those that were used last.
    all.sort((one, other) => other.current - one.current || other.last_seen_at - one.last_seen_at);
    const list = h("ul", { class: "list" });
    const more = folded(list, all, (session) => sessionOf(page, session), SESSIONS, w.allSessions);
    put(
      sessions,
      h(
        "section",
        { class: "card stack", "aria-labelledby": "sessions" },
        h("div", { class: "stack tight" }, h("h2", { id: "sessions", tabindex: "-1" }, w.sessions), h("p", { class: "muted small" }, w.sessionsText)),
        list,
        more,
        h("div", { class: "row" }, button(w.endAll, { kind: "danger", onclick: endAll })),
      ),
    );
  }, { signal: page.signal, wrap: card });
}

function sessionOf(page, session) {
  const name = browserOf(session.user_agent);
  return h(
    "li",
    {},
    h(
      "div",
      {},
      h("div", { class: "row" }, h("strong", {}, name), session.current && pill(w.current, "good")),
      h("div", { class: "muted tiny" }, [session.ip_address ?? w.noAddress, w.seen(relative(session.last_seen_at)), w.began(date(session.created_at))].join(" · ")),
    ),
    !session.current && button(w.end, {
      "aria-label": w.endOf(name),
      onclick: async () => {
        try {
          await api("DELETE", `/auth/sessions/${encodeURIComponent(session.id)}`);
        } catch (error) {
          // Over already is what was wished for.
          if (error.status !== 404) throw error;
        }
        note(w.ended);
        await drawSessions(page);
        page.places.sessions.querySelector("h2")?.focus({ preventScroll: true });
      },
    }),
  );
}

async function endAll() {
  if (await ask({ head: w.endHead, yes: w.endAll, danger: true, body: points(w.endFacts), act: () => post("/auth/logout?all=true") })) location.assign("/");
}

const BROWSERS = [[/Edg(e|A|iOS)?\//, "Edge"], [/OPR\/|Opera/, "Opera"], [/SamsungBrowser\//, "Samsung Internet"], [/MicroMessenger\//, "WeChat"], [/Firefox\/|FxiOS\//, "Firefox"], [/Chrome\/|CriOS\/|Chromium\//, "Chrome"], [/Safari\//, "Safari"], [/^curl\//, "curl"]];
const SYSTEMS = [[/iPhone/, "iPhone"], [/iPad/, "iPad"], [/Android/, "Android"], [/CrOS/, "ChromeOS"], [/Windows/, "Windows"], [/Macintosh|Mac OS X/, "macOS"], [/Linux/, "Linux"]];

/** What a `User-Agent` names itself, in the words people use. */
function browserOf(agent) {
  if (!agent) return w.unknown;
  const found = (list) => list.find(([pattern]) => pattern.test(agent))?.[1];
  const browser = found(BROWSERS);
  return browser ? w.browserOn(browser, found(SYSTEMS)) : agent.split(/[\s/]/)[0].slice(0, 40) || w.unknown;
}

// What is kept, and the end of it.

function dataOf() {
  const save = button(w.export, {
    icon: "download",
    // Fetched first, not only linked, so that a refusal is told in words.
    onclick: async () => {
      const everything = await get("/api/me/export");
      const url = URL.createObjectURL(new Blob([JSON.stringify(everything, null, 2)], { type: "application/json" }));
      h("a", { href: url, download: "ai-hairstyle-export.json" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      note(w.exported);
    },
  });
  return h("section", { class: "card stack", "aria-labelledby": "data" }, h("h2", { id: "data" }, w.data), h("p", { class: "muted small" }, w.dataText), h("div", { class: "row" }, save));
}

function endOf() {
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "gone" },
    h("h2", { id: "gone" }, w.gone),
    h("p", { class: "muted small" }, w.goneText),
    h("div", { class: "row" }, button(w.delete, { kind: "danger", onclick: erase })),
  );
}

async function erase() {
  const { subscription: plan } = await get("/api/subscription");
  if (plan?.status === "active" && !plan.ends_with_period) {
    if (await ask({ head: w.planFirst, text: w.planFirstText, yes: w.toPlan, no: w.keep })) window.dispatchEvent(new CustomEvent("go", { detail: "/credits" }));
    return;
  }
  const input = h("input", { type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
  const typed = field(w.typeWord(w.word), input);
  let later = false;
  const sure = await ask({
    head: w.deleteHead, yes: w.delete, no: w.keep, danger: true,
    body: h(
      "div",
      { class: "stack" },
      h("div", { class: "stack tight" }, h("h3", { class: "label" }, w.goes), points(w.goesFacts(person.credits))),
      h("div", { class: "stack tight" }, h("h3", { class: "label" }, w.stays), points(w.staysFacts)),
      typed,
    ),
    act: async () => {
      const right = input.value.trim().toLowerCase() === w.word;
      typed.mark(right ? null : w.wrongWord(w.word));
      if (!right) {
        input.focus();
        return false;
      }
      later = !(await api("DELETE", "/api/me")).done;
    },
  });
  // A page of its own, so that nothing of what was known here is left.
  if (sure) location.assign(later ? "/account/farewell?later" : "/account/farewell");
}

const points = (texts) => h("ul", { class: "points" }, texts.map((text) => h("li", {}, text)));
