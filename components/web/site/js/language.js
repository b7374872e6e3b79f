// English and Chinese. Every module brings its own words in both: `const w = words({en: {...}, zh: {...}})`.

const KNOWN = ["en", "zh"];

function chosen() {
  try {
    const stored = localStorage.getItem("language");
    if (KNOWN.includes(stored)) return stored;
  } catch {
    // Not allowed to remember: the browser's languages count.
  }
  for (const tag of navigator.languages ?? []) {
    const language = tag.slice(0, 2).toLowerCase();
    if (KNOWN.includes(language)) return language;
  }
  return "en";
}

export const language = chosen();
document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";

export function words(both) {
  return both[language];
}

export function speak(other) {
  try {
    localStorage.setItem("language", other);
  } catch {
    // Then it holds until the page is left.
  }
  location.reload();
}

/** A name of the catalogue. */
export function named(entry) {
  return (language === "zh" && entry.name_zh) || entry.name;
}

const locale = language === "zh" ? "zh-CN" : navigator.languages?.find((tag) => tag.startsWith("en")) ?? "en";
const when = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
const whole = new Intl.DateTimeFormat(locale, { dateStyle: "medium" });
const ago = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });
const monthOfYear = new Intl.DateTimeFormat(locale, { year: "numeric", month: "long" });
const dayOfMonth = new Intl.DateTimeFormat(locale, { month: "short", day: "numeric" });
const timeOfDay = new Intl.DateTimeFormat(locale, { timeStyle: "short" });
const figures = new Intl.NumberFormat(locale);

/** Unix seconds as a date with the time of day. */
export const time = (seconds) => when.format(new Date(seconds * 1000));
/** Unix seconds as a date. */
export const date = (seconds) => whole.format(new Date(seconds * 1000));
/** Unix seconds as a month with its year, as a day without one, and as the time of day. */
export const month = (seconds) => monthOfYear.format(new Date(seconds * 1000));
export const day = (seconds) => dayOfMonth.format(new Date(seconds * 1000));
export const clock = (seconds) => timeOfDay.format(new Date(seconds * 1000));
export const number = (value) => figures.format(value);

/** Unix seconds as "5 minutes ago", or "in 3 days". */
export function relative(seconds, now = Date.now() / 1000) {
  const distance = seconds - now;
  const steps = [["year", 31_536_000], ["month", 2_592_000], ["day", 86_400], ["hour", 3_600], ["minute", 60]];
  for (const [unit, length] of steps) {
    if (Math.abs(distance) >= length) return ago.format(Math.trunc(distance / length), unit);
  }
  return ago.format(Math.trunc(distance), "second");
}

/** Cents as money. */
export function money(cents, currency) {
  return new Intl.NumberFormat(locale, { style: "currency", currency }).format(cents / 100);
}

/** Bytes as kilobytes or megabytes. */
export function size(bytes) {
  return bytes < 1_048_576 ? `${figures.format(Math.max(1, Math.round(bytes / 1024)))} KB` : `${figures.format(Math.round(bytes / 104_857.6) / 10)} MB`;
}
