// One order: what has become of it. The way back from paying leads here.

import { get } from "../api.js";
import { h, put } from "../dom.js";
import { money, time, words } from "../language.js";
import { announce, bones, failed, icon, link } from "../parts.js";
import { person, recount } from "../person.js";
import { credits, orderName, orderPill, products } from "../purchases.js";

const w = words({
  en: {
    title: "Order", back: "Credits",
    heads: {
      pending: "Waiting for the payment", booking: "Your payment is being booked", completed: "Thank you, your credits are here", plan: "Thank you, your plan has begun", coming: "Paid: your credits are on their way",
      refunding: "Being refunded", refunded: "Refunded", partly: "Partly refunded", disputed: "This payment is disputed", cancelled: "This order was given up", expired: "This order was not paid in time",
    },
    texts: {
      pending: "The payment provider has not said yet that it is paid. If you have paid, there is nothing to do: this page looks again by itself, and the credits come as soon as it says so.",
      long: "This takes longer than usual. You may leave this page: the credits come by themselves, within minutes of the provider's word. Nobody has to do anything.",
      booking: "The payment provider says that it is paid. A moment.",
      coming: "The payment has arrived. The plan's first credits come with the provider's next word, usually at once.",
      refunding: "The money is going back to you, and the credits with it.",
      refunded: "The money went back to you. What was left of its credits was taken back with it.",
      partly: (sum) => `${sum} went back to you, and the credits of that share with it.`,
      disputed: "The bank was asked to take the payment back. Its credits are held back until that is over.",
      cancelled: "The payment page could not be opened. Nothing was charged.",
      expired: "Nobody paid within a day, so the order is over. Nothing was charged.",
    },
    balance: (n) => `You have ${credits(n)} now.`, eachMonth: (n) => `${credits(n)} come each month.`,
    make: "Make pictures", pay: "Pay now", notYet: "You have not paid yet?", again: "Buy credits", book: "Account book",
    what: "What", price: "Price, without tax", ordered: "Ordered", paid: "Paid", number: "Order", state: "State",
    unknown: "There is no such order", unknownText: "At least none of yours: it may belong to another account than the one you are signed in with.",
    noContact: "The connection is gone for the moment; this page looks again by itself.",
  },
  zh: {
    title: "订单", back: "点数",
    heads: {
      pending: "等待付款确认", booking: "付款正在入账", completed: "谢谢，点数已到账", plan: "谢谢，套餐已开始", coming: "已付款，点数即将到账",
      refunding: "退款中", refunded: "已退款", partly: "已部分退款", disputed: "这笔付款存在争议", cancelled: "订单已取消", expired: "订单逾期未付款",
    },
    texts: {
      pending: "支付方尚未确认付款。如果您已付款，无需任何操作：本页会自动刷新，确认后点数立即到账。",
      long: "这次比平时久一些。您可以离开本页，支付方确认后几分钟内点数会自动到账，无需任何操作。",
      booking: "支付方已确认付款，请稍候。",
      coming: "付款已收到。套餐的首批点数将在支付方确认后发放，通常立即到账。",
      refunding: "款项正在退回，相应点数也会收回。",
      refunded: "款项已退回，剩余的相应点数已收回。",
      partly: (sum) => `已退回 ${sum}，相应比例的点数已收回。`,
      disputed: "银行收到了撤回付款的请求，处理完之前，相应点数暂时冻结。",
      cancelled: "付款页面未能打开，没有扣款。",
      expired: "一天内未付款，订单已失效，没有扣款。",
    },
    balance: (n) => `您现在有 ${credits(n)}。`, eachMonth: (n) => `每月发放 ${credits(n)}。`,
    make: "生成图片", pay: "去付款", notYet: "还没有付款？", again: "购买点数", book: "点数账本",
    what: "内容", price: "价格（不含税）", ordered: "下单时间", paid: "付款时间", number: "订单号", state: "状态",
    unknown: "没有这个订单", unknownText: "至少不在您的账户中：它可能属于另一个账户。",
    noContact: "暂时无法连接，本页会自动重试。",
  },
});

export const title = w.title;

/** Milliseconds between two looks: at first often, then less and less so. */
const PACE = [1_000, 1_000, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000];
/** Looks after which it is said to take long: about a minute. */
const MANY = 9;

export function render({ order: id, signal }) {
  const body = h("div", {}, bones(5));
  load({ id, body, signal, looks: 0, shown: null });
  return h("div", { class: "page narrow" }, h("p", { class: "small crumb" }, h("a", { href: "/credits" }, "← ", w.back)), body);
}

async function load(view) {
  try {
    view.shop = await products();
    await look(view);
  } catch (error) {
    if (error.name === "AbortError" || view.signal.aborted) return;
    if (error.status === 404) put(view.body, h("section", { class: "card receipt" }, h("h1", { tabindex: "-1" }, w.unknown), h("p", { class: "muted" }, w.unknownText), link(w.book, "/credits")));
    else put(view.body, h("h1", { class: "hush", tabindex: "-1" }, w.title), failed(error, () => (put(view.body, bones(5)), load(view))));
  }
}

/** Asks how it stands, shows it, and asks again while something is to come. */
async function look(view) {
  const { id, signal, shop } = view;
  const { order } = await get(`/api/orders/${encodeURIComponent(id)}`, { signal });
  const isPlan = shop.plans.some((plan) => plan.id === order.product_id);
  // A plan's credits come with its first period, which the provider may tell of a little later.
  const { subscription } = isPlan && order.status === "completed" ? await get("/api/subscription", { signal }) : {};
  const coming = subscription?.id === order.id && !subscription.expires_at;
  const state = stateOf(order, isPlan, coming, view.looks);
  if (state !== view.shown) {
    // A balance that is told is one that was asked for just now.
    const counted = order.status === "completed" && (await recount());
    if (signal.aborted) return;
    show(view, order, state, counted);
  }
  if (["pending", "paid", "processing", "refunding"].includes(order.status) || coming) later(view);
}

function later(view) {
  const timer = setTimeout(async () => {
    view.looks += 1;
    try {
      await look(view);
      if (view.contact) view.contact.hidden = true;
    } catch (error) {
      if (error.name === "AbortError" || view.signal.aborted) return;
      if (view.contact) view.contact.hidden = false;
      later(view);
    }
  }, PACE[Math.min(view.looks, PACE.length - 1)]);
  view.signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
}

function stateOf(order, isPlan, coming, looks) {
  if (order.disputed) return "disputed";
  switch (order.status) {
    case "pending": return looks >= MANY ? "long" : "pending";
    case "paid":
    case "processing": return "booking";
    case "completed": return coming ? "coming" : order.refunded_amount > 0 ? "partly" : isPlan ? "plan" : "completed";
    default: return order.status;
  }
}

const SIGNS = { completed: ["check", "good"], plan: ["check", "good"], coming: ["check", "good"], pending: ["coin", "wait"], long: ["coin", "wait"], booking: ["coin", "wait"], refunding: ["coin", "wait"], refunded: ["coin", ""], partly: ["coin", ""] };

function show(view, order, state, counted) {
  const { body, shop } = view;
  const first = view.shown === null;
  const hadFocus = body.contains(document.activeElement);
  view.shown = state;
  const done = state === "completed" || state === "plan";
  const waits = ["pending", "long", "booking", "coming"].includes(state);
  const [sign, kind] = SIGNS[state] ?? ["close", "bad"];
  view.contact = h("p", { class: "say wait", hidden: true }, w.noContact);
  const text = done
    ? [state === "plan" && w.eachMonth(order.credits), " ", counted && w.balance(person.credits)]
    : state === "partly" ? w.texts.partly(money(order.refunded_amount, order.currency)) : w.texts[state];
  const head = h("h1", { tabindex: "-1" }, w.heads[state === "long" ? "pending" : state] ?? w.title);
  put(
    body,
    h(
      "section",
      { class: "card receipt" },
      h("div", { class: `sign ${kind}${waits ? " waits" : ""}`, "aria-hidden": "true" }, icon(sign)),
      head,
      h("p", { class: "muted" }, text),
      h("div", { class: "row" }, deeds(order, state, done)),
      view.contact,
      h(
        "dl",
        { class: "facts" },
        fact(w.what, orderName(order, shop)),
        fact(w.price, money(order.amount, order.currency)),
        fact(w.state, orderPill(order)),
        fact(w.ordered, time(order.created_at)),
        order.paid_at && fact(w.paid, time(order.paid_at)),
        fact(w.number, h("code", {}, order.id)),
      ),
    ),
  );
  // What changes while somebody waits is told to those who do not see it, and does not take the focus away from where it was.
  if (!first) announce([head.textContent, ...[text].flat()].filter(Boolean).join(" "));
  if (first || hadFocus) head.focus({ preventScroll: true });
}

function deeds(order, state, done) {
  if (done || state === "partly") return [link(w.make, "/", "primary large"), link(w.book, "/credits", "large")];
  if (order.payment_url) return [h("span", { class: "muted small" }, w.notYet), link(w.pay, order.payment_url)];
  if (state === "cancelled" || state === "expired") return link(w.again, "/credits", "primary");
  return link(w.book, "/credits");
}

function fact(term, text) {
  return [h("dt", {}, term), h("dd", {}, text)];
}
