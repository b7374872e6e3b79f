// What one can spend, what one can buy, and the account book.

import { get, post, wish } from "../api.js";
import { h, put, svg } from "../dom.js";
import { clock, date, day, money, month, named, number, relative, words } from "../language.js";
import { ask, button, choices, empty, fill, folded, growing, link, note, pill } from "../parts.js";
import { follow, person, recount } from "../person.js";
import { atTill, credits, orderName, orderPill, planName, planWithCycle, products } from "../purchases.js";
import { catalogue, find, keyed } from "../tasks.js";

const w = words({
  en: {
    title: "Credits", lead: "A picture costs one credit. One that fails costs nothing: its credit comes back.",
    balance: "Your balance", unit: (n) => (n === 1 ? "credit" : "credits"), enough: (n) => (n === 1 ? "Enough for one picture." : `Enough for ${number(n)} pictures.`), none: "Buy some below, and go on making pictures.",
    make: "Make pictures",
    lots: "What it is made of", lotsText: "Used from the top: what ends soonest goes first.", left: (n, of) => `${number(n)} of ${number(of)} left`, ends: (day, when) => `until ${day}, ${when}`, endsSoon: (day, when) => `Ends ${when}: ${day}`, stays: "stays until you use it", allLots: (n) => `Show all ${number(n)}`,
    origins: { order: "Bought", period: "Plan", signup: "Welcome gift", gift: "Gift", back: "Came back" },
    waiting: (what, sum) => `Your order of ${what} for ${sum} waits for its payment.`, pay: "Pay now",
    buy: "Buy credits", buyText: "Paid once. They stay until you use them.", buyOne: (n) => `Buy ${credits(n)}`, each: (sum) => `${sum} a picture`, less: (percent) => `${percent} % less for each`,
    plans: "Or have them every month", plansText: "New credits each month, good for that month. Cancel when you like.", cycle: "How it is paid", monthly: "Monthly", yearly: "Yearly",
    month: "a month", year: "a year", eachMonth: (n) => `${credits(n)} each month`, isMonthly: (sum) => `${sum} a month`, saves: (sum) => `Saves ${sum} a year`, take: (plan) => `Take ${plan}`,
    tax: "Prices are in US dollars without tax, which the payment page adds where it is due. Payment is with creem.io; your card is never seen here.", taxOther: "Prices are without tax, which the payment page adds where it is due. Payment is with creem.io; your card is never seen here.",
    nothingSold: "Nothing is for sale at the moment.", hadPlan: "You have a plan already. Here it is.",
    plan: "Your plan", planStates: { active: "Active", frozen: "Payment is missing", ending: "Cancelled" },
    gives: "Credits", perMonth: "each month", nextCredits: "Next credits", nextPayment: "Next payment", paidUntil: "Paid until", endsOn: "Ends on", since: "Since", noMore: "none any more", whenPaid: "when it is paid again", onTheWay: "with the payment provider's word, usually at once",
    frozen: "Its last payment did not come through, or it is paused. No new credits come until that is over. What you have stays.",
    endingText: (day) => `It is cancelled and ends on ${day}. Nothing is charged any more, and what is paid goes on until then.`,
    onePlan: "One plan at a time: another can be taken when this one is over.",
    cancelPlan: "Cancel the plan", keepPlan: "Keep it", cancelHead: (plan) => `Cancel the ${plan} plan?`,
    cancelFacts: (day) => ["Nothing is charged any more.", day ? `The plan goes on until ${day}, as it is paid.` : "The plan goes on until the end of what is paid.", "Credits you have stay, each until its own end. Bought packs are not touched.", "It cannot be taken back; afterwards you can take a new plan."],
    cancelled: "The plan is cancelled.", lastPlan: (plan, day) => `Your last plan ended on ${day}: ${plan}.`, lastPlanShort: (plan) => `Your last plan is over: ${plan}.`,
    book: "Account book", bookText: "Every movement of your credits, the newest first. Credits whose time is over leave the balance without an entry.", bookNone: "Nothing is written yet", bookNoneText: "When you are given credits, buy some or make a picture, it stands here.",
    day: "Day", what: "What for", amount: "Credits",
    bought: (n) => `Bought ${credits(n)}`, planMonth: (n) => `Plan, month ${number(n)}`, planPaid: "Plan", welcome: "Welcome gift", gift: "Gift", picture: "Picture", pictureOf: (style) => `Picture: ${style}`, back: "Credit returned", backText: (style) => (style ? `the picture “${style}” was not made` : "the picture was not made"),
    takenBack: "Taken back with the money", takenBackText: "a refund, or a payment that is disputed", givenBack: "Given back", givenBackText: "the payment counts again", other: "Movement",
    until: (day) => `good until ${day}`, over: (day) => `its time was over on ${day}`, grace: "its lot was over, so it got seven more days",
    orders: "Orders", ordersNone: "None yet. What you buy stands here, with its state.",
  },
  zh: {
    title: "点数", lead: "每张图片消耗一点。生成失败不收费，点数会自动退回。",
    balance: "您的余额", unit: () => "点", enough: (n) => `可生成 ${number(n)} 张图片。`, none: "在下方购买点数，即可继续生成图片。",
    make: "生成图片",
    lots: "余额构成", lotsText: "自上而下使用：最先到期的最先用。", left: (n, of) => `剩余 ${number(n)} / ${number(of)}`, ends: (day, when) => `有效期至 ${day}（${when}）`, endsSoon: (day, when) => `即将到期：${day}（${when}）`, stays: "用完为止，长期有效", allLots: (n) => `显示全部 ${number(n)} 项`,
    origins: { order: "购买", period: "套餐", signup: "新用户赠送", gift: "赠送", back: "退回" },
    waiting: (what, sum) => `您的订单（${what}，${sum}）等待付款。`, pay: "去付款",
    buy: "购买点数", buyText: "一次付清，用完为止。", buyOne: (n) => `购买 ${credits(n)}`, each: (sum) => `每张图片 ${sum}`, less: (percent) => `单价便宜 ${percent}%`,
    plans: "或者每月自动获得", plansText: "每月发放新点数，当月有效。可随时取消。", cycle: "付费方式", monthly: "按月", yearly: "按年",
    month: "/ 月", year: "/ 年", eachMonth: (n) => `每月 ${credits(n)}`, isMonthly: (sum) => `相当于每月 ${sum}`, saves: (sum) => `每年省 ${sum}`, take: (plan) => `订阅${plan}`,
    tax: "价格以美元计，不含税；如需缴税，付款页面会另行计算。付款由 creem.io 处理，我们不会接触您的银行卡信息。", taxOther: "价格不含税；如需缴税，付款页面会另行计算。付款由 creem.io 处理，我们不会接触您的银行卡信息。",
    nothingSold: "目前没有可购买的商品。", hadPlan: "您已有套餐，见下方。",
    plan: "您的套餐", planStates: { active: "使用中", frozen: "欠费", ending: "已取消" },
    gives: "点数", perMonth: "每月", nextCredits: "下次发放", nextPayment: "下次扣款", paidUntil: "已付费至", endsOn: "结束日期", since: "开始日期", noMore: "不再发放", whenPaid: "恢复付款后", onTheWay: "等待支付方确认，通常立即到账",
    frozen: "最近一次扣款未成功，或套餐已暂停。恢复之前不会发放新点数，已有的点数不受影响。",
    endingText: (day) => `套餐已取消，将于 ${day} 结束。不再扣款，已付费的部分在此之前照常有效。`,
    onePlan: "同一时间只能有一个套餐，结束后可以订阅其他套餐。",
    cancelPlan: "取消套餐", keepPlan: "保留套餐", cancelHead: (plan) => `要取消${plan}套餐吗？`,
    cancelFacts: (day) => ["之后不再扣款。", day ? `已付费的部分有效至 ${day}。` : "已付费的部分照常有效至期末。", "已有的点数保留至各自的有效期，购买的点数包不受影响。", "取消后无法恢复，但之后可以订阅新的套餐。"],
    cancelled: "套餐已取消。", lastPlan: (plan, day) => `您上一个套餐（${plan}）已于 ${day} 结束。`, lastPlanShort: (plan) => `您上一个套餐（${plan}）已结束。`,
    book: "点数账本", bookText: "点数的每一笔变动，最新的在前。过期的点数会直接从余额中扣除，不单独记账。", bookNone: "还没有记录", bookNoneText: "获赠、购买点数或生成图片后，会记录在这里。",
    day: "日期", what: "事由", amount: "点数",
    bought: (n) => `购买 ${credits(n)}`, planMonth: (n) => `套餐第 ${number(n)} 个月`, planPaid: "套餐", welcome: "新用户赠送", gift: "赠送", picture: "图片", pictureOf: (style) => `图片：${style}`, back: "点数退回", backText: (style) => (style ? `图片“${style}”未能生成` : "图片未能生成"),
    takenBack: "随退款收回", takenBackText: "退款，或付款存在争议", givenBack: "重新发放", givenBackText: "付款恢复有效", other: "变动",
    until: (day) => `有效期至 ${day}`, over: (day) => `已于 ${day} 过期`, grace: "原点数已过期，另给七天有效期",
    orders: "订单", ordersNone: "还没有订单。您购买的内容和状态会显示在这里。",
  },
});

export const title = w.title;

/** Lots that are shown at once. */
const LOTS = 3;
/** Seconds before its end from which a lot is said to end soon. */
const SOON = 7 * 86_400;
/** Entries of a page of the book, and of the orders. */
const ENTRIES = 15;
const ORDERS = 6;

let cycle = "monthly";

export function render({ signal }) {
  const places = Object.fromEntries(["purse", "waiting", "plan", "shop", "book", "orders"].map((name) => [name, h("div", { class: name })]));
  const page = {
    signal, places,
    // The balance that the page tells.
    told: undefined,
  };
  // Whoever comes back from the payment page with the browser's own button sees how things are now, not how they were.
  window.addEventListener("pageshow", (event) => event.persisted && window.dispatchEvent(new PopStateEvent("popstate")), { signal });
  drawPurse(page);
  drawShop(page);
  drawBook(page);
  drawOrders(page);
  // A picture failed, or an order was paid, while somebody looks at the book.
  follow(({ credits: now }) => {
    if (page.told === undefined || page.told === now) return;
    drawPurse(page);
    drawBook(page);
  }, signal);
  return h(
    "div",
    { class: "page credits" },
    h("div", { class: "head" }, h("div", {}, h("h1", { tabindex: "-1" }, w.title), h("p", {}, w.lead))),
    places.waiting,
    places.purse,
    places.plan,
    places.shop,
    h("div", { class: "books" }, places.book, places.orders),
  );
}

// The balance, and the lots that it is made of.

function drawPurse(page) {
  return fill(page.places.purse, async () => {
    const { balance, lots } = await get("/api/me/credits", { signal: page.signal });
    page.told = balance;
    put(
      page.places.purse,
      h(
        "section",
        { class: "card hold", "aria-labelledby": "balance-of" },
        h("div", { class: "stack tight sum" }, h("h2", { class: "label", id: "balance-of" }, w.balance), h("p", { class: "amount number" }, number(balance), h("span", {}, w.unit(balance))), h("p", { class: "muted" }, balance > 0 ? w.enough(balance) : w.none), balance > 0 && h("div", { class: "row" }, link(w.make, "/"))),
        lots.length > 0 && lotsOf(lots),
      ),
    );
    if (person.credits !== balance) recount();
  }, { signal: page.signal, lines: 2 });
}

function lotsOf(lots) {
  const list = h("ol", { class: "lots" });
  const more = folded(list, lots, lotOf, LOTS, w.allLots);
  return h("div", { class: "stack tight" }, h("h3", { class: "label" }, w.lots), lots.length > 1 && h("p", { class: "muted tiny" }, w.lotsText), list, more);
}

function lotOf(lot) {
  const soon = lot.expires_at && lot.expires_at - Date.now() / 1000 < SOON;
  const end = !lot.expires_at ? w.stays : (soon ? w.endsSoon : w.ends)(date(lot.expires_at), relative(lot.expires_at));
  return h(
    "li",
    {},
    h("div", { class: "row apart" }, h("strong", {}, originOf(lot)), h("span", { class: "number" }, w.left(lot.remaining, lot.amount))),
    h("div", { class: soon ? "share soon" : "share", "aria-hidden": "true", vars: { "--share": `${(100 * lot.remaining) / lot.amount}%` } }),
    h("div", { class: soon ? "tiny soon" : "muted tiny" }, end),
  );
}

/** A lot's id says how it came: `order:...`, `period:...`, `signup:...`; what came back to a lot that was over has one of its own. */
function originOf({ id, type }) {
  if (type === "refund") return w.origins.back;
  return w.origins[id.slice(0, id.indexOf(":"))] ?? (type === "purchase" ? w.origins.order : w.origins.gift);
}

// What is for sale, and one's plan.

function drawShop(page) {
  const { plan: planPlace, shop } = page.places;
  return fill(shop, async () => {
    const [{ packs, plans }, { subscription: plan }] = await Promise.all([products(), get("/api/subscription", { signal: page.signal })]);
    if (page.signal.aborted) return;
    const active = plan?.status === "active";
    put(planPlace, active && planOf(page, plan, plans));
    const currencies = new Set([...packs, ...plans].map(({ currency }) => currency));
    put(
      shop,
      h(
        "section",
        { class: "stack", "aria-labelledby": "packs" },
        h("div", { class: "stack tight" }, h("h2", { id: "packs" }, w.buy), h("p", { class: "muted" }, packs.length || plans.length ? w.buyText : w.nothingSold)),
        packs.length > 0 && h("ul", { class: "offers" }, packs.map((pack) => packOf(page, pack, packs))),
      ),
      !active && plans.length > 0 && plansOf(page, plans, plan),
      packs.length + plans.length > 0 && h("p", { class: "muted tiny fine" }, currencies.size === 1 && currencies.has("USD") ? w.tax : w.taxOther),
    );
  }, { signal: page.signal, lines: 5 });
}

/** What a picture costs: one credit, with every model. */
const eachOf = ({ amount, credits: n, billing_cycle: of }) => amount / (of === "yearly" ? 12 * n : n);

function packOf(page, pack, packs) {
  const dearest = Math.max(...packs.map(eachOf));
  const best = packs.length > 1 && eachOf(pack) === Math.min(...packs.map(eachOf));
  const less = Math.round(100 * (1 - eachOf(pack) / dearest));
  return h(
    "li",
    { class: best ? "card offer best" : "card offer" },
    coins(Math.min(3, 1 + packs.filter((other) => other.credits < pack.credits).length)),
    h("h3", {}, credits(pack.credits)),
    h("p", { class: "price" }, money(pack.amount, pack.currency)),
    h("p", { class: "row muted small" }, w.each(money(eachOf(pack), pack.currency)), less > 0 && pill(w.less(less), "good")),
    button(w.buyOne(pack.credits), { kind: best ? "primary" : "", onclick: () => buy(page, pack) }),
  );
}

/** One to three heaps of coins: the more, the larger the pack. */
function coins(size) {
  const heaps = [[28, size + 1], [60, size - 1], [92, size]].slice(size > 2 ? 0 : size > 1 ? 1 : 2);
  return svg(
    "svg",
    { class: "coins", viewBox: "0 0 120 44", width: 120, height: 44, "aria-hidden": "true" },
    heaps.map(([x, high]) => Array.from({ length: high }, (_, at) => svg("g", {}, svg("path", { d: `M${x - 14} ${36 - 7 * at}v-4h28v4a14 5 0 0 1-28 0Z` }), svg("ellipse", { cx: x, cy: 32 - 7 * at, rx: 14, ry: 5 })))),
  );
}

function plansOf(page, plans, last) {
  const list = h("ul", { class: "offers" });
  const cycles = ["monthly", "yearly"].filter((of) => plans.some(({ billing_cycle: is }) => is === of));
  if (!cycles.includes(cycle)) [cycle] = cycles;
  const draw = () => put(list, plans.filter(({ billing_cycle: of }) => of === cycle).map((plan) => offerOf(page, plan, plans)));
  draw();
  return h(
    "section",
    { class: "stack", "aria-labelledby": "plans" },
    h(
      "div",
      { class: "row apart" },
      h("div", { class: "stack tight" }, h("h2", { id: "plans" }, w.plans), h("p", { class: "muted" }, w.plansText)),
      cycles.length > 1 && choices(w.cycle, cycles.map((of) => [of, w[of]]), cycle, (of) => ((cycle = of), draw())),
    ),
    last && h("p", { class: "say" }, last.expires_at && last.expires_at < Date.now() / 1000 ? w.lastPlan(planWithCycle(last), date(last.expires_at)) : w.lastPlanShort(planWithCycle(last))),
    h("div", { "aria-live": "polite" }, list),
  );
}

function offerOf(page, plan, plans) {
  const yearly = plan.billing_cycle === "yearly";
  const monthly = plans.find(({ plan_type: type, billing_cycle: of }) => type === plan.plan_type && of === "monthly");
  const saved = yearly && monthly ? 12 * monthly.amount - plan.amount : 0;
  return h(
    "li",
    { class: "card offer" },
    h("h3", {}, planName(plan.plan_type)),
    h("p", { class: "price" }, money(plan.amount, plan.currency), " ", h("span", {}, yearly ? w.year : w.month)),
    h("p", { class: "small" }, h("strong", {}, w.eachMonth(plan.credits))),
    h("p", { class: "muted small" }, yearly && [w.isMonthly(money(plan.amount / 12, plan.currency)), " · "], w.each(money(eachOf(plan), plan.currency))),
    saved > 0 && h("p", {}, pill(w.saves(money(saved, plan.currency)), "good")),
    button(w.take(planName(plan.plan_type)), { onclick: () => buy(page, plan) }),
  );
}

/** What a conflict is that has nothing to do with the key. */
const HAS_PLAN = "has_plan";

async function buy(page, product) {
  try {
    const { order } = await keyed({ buy: product.id }, async (once) => {
      try {
        return await post("/api/orders", { json: { product_id: product.id }, once });
      } catch (error) {
        // Either there is a plan, or the order from before is still being made: its answer was lost.
        if (error.code === "conflict" && product.kind === "plan" && (await get("/api/subscription")).subscription?.status === "active") error.code = HAS_PLAN;
        throw error;
      }
    });
    location.assign(order.payment_url ?? `/credits/orders/${order.id}`);
  } catch (error) {
    if (error.code !== HAS_PLAN) throw atTill(error);
    note(w.hadPlan);
    await drawShop(page);
    page.places.plan.scrollIntoView({ block: "center", behavior: "smooth" });
    return;
  }
  // The button stays busy until the payment page is there.
  await new Promise((resolve) => setTimeout(resolve, 10_000));
}

function planOf(page, plan, plans) {
  const name = planName(plan.plan_type);
  const state = plan.frozen ? "frozen" : plan.ends_with_period ? "ending" : "active";
  const product = plans.find(({ id }) => id === plan.product_id);
  const nextCredits = plan.next_credits_at ?? (plan.ends_with_period ? null : plan.next_billing_at);
  const cancelled = wish();
  return h(
    "section",
    { class: "card stack", "aria-labelledby": "plan-of" },
    h("div", { class: "row apart" }, h("div", { class: "row" }, h("h2", { id: "plan-of", tabindex: "-1" }, w.plan), pill(w.planStates[state], { active: "good", frozen: "bad", ending: "wait" }[state])), h("strong", {}, planWithCycle(plan))),
    plan.frozen && h("p", { class: "say bad" }, w.frozen),
    plan.ends_with_period && plan.expires_at && h("p", { class: "say wait" }, w.endingText(date(plan.expires_at))),
    h(
      "dl",
      { class: "terms" },
      term(w.gives, credits(plan.credits), w.perMonth),
      nextCredits ? term(w.nextCredits, date(nextCredits), relative(nextCredits)) : term(w.nextCredits, plan.frozen ? w.whenPaid : plan.expires_at ? w.noMore : w.onTheWay),
      plan.next_billing_at && !plan.ends_with_period && term(w.nextPayment, date(plan.next_billing_at), product && money(product.amount, product.currency)),
      plan.expires_at && (plan.ends_with_period || plan.expires_at !== plan.next_billing_at) && term(plan.ends_with_period ? w.endsOn : w.paidUntil, date(plan.expires_at), plan.ends_with_period && relative(plan.expires_at)),
      term(w.since, date(plan.created_at)),
    ),
    h(
      "div",
      { class: "row apart" },
      h("p", { class: "muted tiny" }, w.onePlan),
      !plan.ends_with_period && button(w.cancelPlan, {
        kind: "danger",
        onclick: async () => {
          const sure = await ask({
            head: w.cancelHead(name), yes: w.cancelPlan, no: w.keepPlan, danger: true,
            body: h("ul", { class: "points" }, w.cancelFacts(plan.expires_at && date(plan.expires_at)).map((text) => h("li", {}, text))),
            act: () => post("/api/subscription/cancel", { once: cancelled }).catch((error) => { throw atTill(error); }),
          });
          if (!sure) return;
          note(w.cancelled);
          await drawShop(page);
          page.places.plan.querySelector("h2")?.focus({ preventScroll: true });
        },
      }),
    ),
  );
}

const term = (name, text, more) => h("div", {}, h("dt", {}, name), h("dd", {}, text, more && h("span", { class: "muted tiny" }, more)));

// The account book.

function drawBook(page) {
  const { book } = page.places;
  const body = h("div", {});
  put(book, h("section", { class: "stack", "aria-labelledby": "book" }, h("div", { class: "stack tight" }, h("h2", { id: "book" }, w.book), h("p", { class: "muted small" }, w.bookText)), body));
  return fill(body, async () => {
    const table = h(
      "table",
      { class: "table ledger", "aria-labelledby": "book" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, w.day), h("th", { scope: "col" }, w.what), h("th", { scope: "col", class: "number" }, w.amount))),
    );
    const styles = stylesOfTasks(page.signal);
    let shown;
    let rows;
    const holder = h("div", {}, table);
    await growing(
      table,
      async (cursor) => {
        const { history, next_cursor: next } = await get(`/api/me/credits/history?limit=${ENTRIES}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, { signal: page.signal });
        const known = await styles;
        return { items: history.map((entry) => ({ entry, known })), next };
      },
      ({ entry, known }) => {
        const of = month(entry.created_at);
        const begins = of !== shown;
        if (begins) {
          shown = of;
          rows = h("tbody", {}, h("tr", { class: "month" }, h("th", { scope: "rowgroup", colspan: 3 }, of)));
        }
        rows.append(entryOf(entry, known));
        return begins ? rows : document.createDocumentFragment();
      },
      { none: () => empty("empty-book", w.bookNone, w.bookNoneText), signal: page.signal },
    );
    put(body, holder);
  }, { signal: page.signal, lines: 6 });
}

/** Task numbers and the names of their hairstyles, of the newest hundred. The book reads well without, too. */
async function stylesOfTasks(signal) {
  try {
    const [{ styles }, { tasks }] = await Promise.all([catalogue(), get("/api/tasks?limit=100", { signal })]);
    return new Map(tasks.map(({ task_no: no, hairstyle }) => [no, find(styles, hairstyle)]).map(([no, style]) => [no, style && named(style)]));
  } catch {
    return new Map();
  }
}

function entryOf(entry, styles) {
  const { text, more, href } = reasonOf(entry, styles);
  const gone = entry.expires_at && entry.expires_at <= Date.now() / 1000;
  // The end of a lot stands where it came, not at every movement of it.
  const end = entry.amount > 0 && entry.expires_at && entry.type !== "refund" && (gone ? w.over : w.until)(date(entry.expires_at));
  const below = [more, end].filter(Boolean).join(" · ");
  return h(
    "tr",
    {},
    h("td", { class: "when" }, h("time", { datetime: new Date(entry.created_at * 1000).toISOString() }, h("span", {}, day(entry.created_at)), h("span", { class: "muted tiny" }, clock(entry.created_at)))),
    h("td", {}, href ? h("a", { href }, text) : text, below && h("div", { class: "muted tiny" }, below)),
    h("td", { class: entry.amount > 0 ? "number in" : "number" }, entry.amount > 0 ? "+" : "−", number(Math.abs(entry.amount))),
  );
}

/** Why an entry is there: {text, more, href}. */
function reasonOf({ type, entity_type: entity, entity_id: id, note: own, amount, expires_at: end, created_at: at }, styles) {
  if (entity === "task") {
    // The note names the task by the number that people know: "task TASK_...", "returned: task TASK_...".
    const no = own?.match(/task (\S+)$/)?.[1];
    const style = styles.get(no);
    const href = no && `/gallery/${encodeURIComponent(no)}`;
    if (amount < 0) return { text: style ? w.pictureOf(style) : w.picture, href };
    // Only what came back to a lot that was over has an end of its own, a week later.
    const grace = end === at + 604_800;
    return { text: w.back, more: [w.backText(style), grace && w.grace].filter(Boolean).join("; "), href };
  }
  const order = entity === "order" && id ? `/credits/orders/${encodeURIComponent(id)}` : undefined;
  if (type === "refund") return amount < 0 ? { text: w.takenBack, more: w.takenBackText, href: order } : { text: w.givenBack, more: w.givenBackText, href: order };
  if (entity === "order") return { text: w.bought(amount), href: order };
  if (entity === "subscription") {
    const nth = own?.match(/month (\d+)$/)?.[1];
    return { text: nth ? w.planMonth(Number(nth)) : w.planPaid };
  }
  if (entity === "signup") return { text: w.welcome };
  if (type === "gift") return { text: w.gift, more: own };
  return { text: w.other, more: own };
}

// Orders.

function drawOrders(page) {
  const { orders } = page.places;
  const body = h("div", {});
  put(orders, h("section", { class: "stack", "aria-labelledby": "orders" }, h("h2", { id: "orders" }, w.orders), body));
  return fill(body, async () => {
    const shop = await products();
    const list = h("ul", { class: "list" });
    const holder = h("div", {}, list);
    let first = true;
    await growing(
      list,
      async (cursor) => {
        const { orders: items, next_cursor: next } = await get(`/api/orders?limit=${ORDERS}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, { signal: page.signal });
        if (first) remind(page, items, shop);
        first = false;
        return { items, next };
      },
      (order) =>
        h(
          "li",
          {},
          h("div", {}, h("a", { href: `/credits/orders/${order.id}` }, orderName(order, shop)), h("div", { class: "muted tiny" }, `${money(order.amount, order.currency)} · ${date(order.created_at)}`)),
          h("div", { class: "row" }, orderPill(order), order.payment_url && h("a", { class: "button", href: order.payment_url }, w.pay)),
        ),
      { none: () => h("p", { class: "muted" }, w.ordersNone), signal: page.signal },
    );
    put(body, holder);
  }, { signal: page.signal, lines: 3 });
}

/** The newest order, if it waits for its payment. */
function remind(page, orders, shop) {
  const [order] = orders;
  put(
    page.places.waiting,
    order?.payment_url && h("p", { class: "say wait remind" }, h("span", {}, w.waiting(orderName(order, shop), money(order.amount, order.currency))), h("a", { class: "button", href: order.payment_url }, w.pay)),
  );
}
