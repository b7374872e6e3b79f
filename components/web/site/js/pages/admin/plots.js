// Small plots: drawn as SVG, told as a table or a list to those who do not see them.

import { h, svg } from "../../dom.js";
import { language, number, words } from "../../language.js";

const w = words({
  en: { day: "Day", none: "Nothing in these days.", today: "today", most: (n) => `most: ${n}` },
  zh: { day: "日期", none: "这段时间没有数据。", today: "今天", most: (n) => `最高 ${n}` },
});

const DAYS = 14;
const dayName = new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en", { day: "numeric", month: "short", timeZone: "UTC" });
/** A day's number, days since 1970 in UTC, as a date. */
export const nameOf = (day) => dayName.format(new Date(day * 86_400_000));

/**
 * Days as bars, today last. `series` is [{name, kind, of(day)}], stacked from below; `tell` turns a number into words.
 */
export function days({ caption, today, series, tell = number }) {
  const all = Array.from({ length: DAYS }, (_, at) => today - DAYS + 1 + at);
  const sums = all.map((day) => series.reduce((sum, { of }) => sum + of(day), 0));
  const most = Math.max(...sums);
  const [width, height, step, gap] = [280, 72, 20, 4];
  const bars = all.map((day, at) => {
    let top = height;
    const said = series.map(({ name, of }) => `${name}: ${tell(of(day))}`).join(", ");
    return svg(
      "g",
      {},
      svg("title", {}, `${nameOf(day)} · ${said}`),
      svg("rect", { class: "plot-ground", x: at * step, y: 0, width: step, height }),
      series.map(({ kind, of }) => {
        const value = of(day);
        if (value === 0 || most === 0) return null;
        const tall = Math.max(2, (value / most) * (height - 4));
        top -= tall;
        return svg("rect", { class: `plot-${kind}`, x: at * step + gap / 2, y: Math.max(0, top), width: step - gap, height: tall, rx: 2 });
      }),
      sums[at] === 0 && svg("rect", { class: "plot-nothing", x: at * step + gap / 2, y: height - 2, width: step - gap, height: 2, rx: 1 }),
    );
  });
  return h(
    "figure",
    { class: "plot" },
    svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, bars),
    h("div", { class: "plot-axis tiny muted", "aria-hidden": "true" }, h("span", {}, nameOf(all[0])), most > 0 && h("span", {}, w.most(tell(most))), h("span", {}, w.today)),
    h(
      "div",
      { class: "hush" },
      h(
        "table",
        {},
        h("caption", {}, caption),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, w.day), series.map(({ name }) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, all.filter((_, at) => sums[at] > 0).map((day) => h("tr", {}, h("th", { scope: "row" }, nameOf(day)), series.map(({ of }) => h("td", {}, tell(of(day)))))), most === 0 && h("tr", {}, h("td", { colspan: series.length + 1 }, w.none))),
      ),
    ),
  );
}

/** Parts of a whole as one bar, each with its name and number. Parts are [{name, kind, value, href}]. */
export function parts(all) {
  const whole = all.reduce((sum, { value }) => sum + value, 0);
  let from = 0;
  const pieces = all.map(({ kind, value }) => {
    if (value === 0) return null;
    const piece = svg("rect", { class: `plot-${kind}`, x: from, y: 0, width: Math.max(0, (value / whole) * 280 - 1.5), height: 12, rx: 2 });
    from += (value / whole) * 280;
    return piece;
  });
  return h(
    "div",
    { class: "plot" },
    svg("svg", { class: "flat", viewBox: "0 0 280 12", preserveAspectRatio: "none", "aria-hidden": "true" }, whole === 0 && svg("rect", { class: "plot-nothing", x: 0, y: 0, width: 280, height: 12, rx: 2 }), pieces),
    h("ul", { class: "legend small" }, all.map(({ name, kind, value, href }) => h("li", {}, h("span", { class: `dot plot-${kind}`, "aria-hidden": "true" }), href ? h("a", { href }, name) : h("span", {}, name), h("strong", { class: "number" }, number(value))))),
  );
}

/** How much of a limit is used: a half circle that fills, with the numbers in it. */
export function gauge(value, limit, label) {
  const share = limit ? Math.min(1, value / limit) : 0;
  const kind = share >= 1 ? "bad" : share >= 0.8 ? "wait" : "accent";
  // A half circle of radius 70 is 219.9 long.
  const arc = { d: "M 20 90 A 70 70 0 0 1 160 90", fill: "none", "stroke-width": 14, pathLength: 100 };
  return h(
    "div",
    { class: "dial" },
    svg(
      "svg",
      { viewBox: "0 0 180 100", "aria-hidden": "true" },
      svg("path", { ...arc, class: "dial-ground" }),
      share > 0 && svg("path", { ...arc, class: `dial-${kind}`, "stroke-dasharray": `${Math.max(1, share * 100)} 200` }),
    ),
    h("strong", { class: "big number" }, number(value)),
    h("span", { class: "muted small" }, label),
  );
}

/** Names with numbers, each with a bar as long as its number. */
export function ranks(all) {
  const most = Math.max(1, ...all.map(({ value }) => value));
  return h(
    "ul",
    { class: "ranks small" },
    all.map(({ name, kind = "accent", value, text }) =>
      h("li", {}, h("span", {}, name), h("strong", { class: "number" }, text ?? number(value)), svg("svg", { class: "flat", viewBox: "0 0 280 6", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { class: "plot-nothing", x: 0, y: 0, width: 280, height: 6, rx: 3 }), value > 0 && svg("rect", { class: `plot-${kind}`, x: 0, y: 0, width: Math.max(4, (value / most) * 280), height: 6, rx: 3 }))),
    ),
  );
}
