// What a person finds on a page. Each script of the harness begins with this.

const tidy = (text) => (text ?? "").replace(/\s+/g, " ").trim();

/** Whether it is there to be seen. */
const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;

/** What it is called, as somebody who reads or hears it would say. */
function called(element) {
  const labelledBy = element.getAttribute("aria-labelledby");
  if (labelledBy) return tidy(labelledBy.split(/\s+/).map((id) => document.getElementById(id)?.textContent).join(" "));
  if (element.getAttribute("aria-label")) return tidy(element.getAttribute("aria-label"));
  if (element.labels?.length) return tidy([...element.labels].map((label) => label.innerText || label.textContent).join(" "));
  if (element.matches("input[type=submit], input[type=button]")) return tidy(element.value);
  const pictures = [...element.querySelectorAll("img[alt]")].map((picture) => picture.alt).join(" ");
  return tidy(element.innerText) || tidy(pictures) || tidy(element.title) || tidy(element.placeholder);
}

/** Whether something else lies over its middle. */
function covered(element) {
  const box = element.getBoundingClientRect();
  const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  return !top || !(element.contains(top) || top.contains(element) || [...(element.labels ?? [])].some((label) => label.contains(top)));
}

/** Scrolls as a person does who wants to get at something that lies under the edge of something else. */
function bring(element) {
  if (covered(element)) element.scrollIntoView({ block: "center", behavior: "instant" });
}

const PRESSED =
  "a[href], button, summary, label, input[type=submit], input[type=button], input[type=checkbox], input[type=radio], " +
  "[role=button], [role=link], [role=tab], [role=menuitem], [role=option], [role=radio], [role=checkbox], [role=switch]";
const FILLED = "input:not([type=hidden], [type=file], [type=checkbox], [type=radio], [type=submit], [type=button]), textarea, select, [contenteditable=true]";

/** The elements of a kind that are called so: those whose whole name it is, or else those whose name has it in it. */
function find(kind, name, within) {
  const roots = within ? [...document.querySelectorAll(within)] : [document];
  // Behind an open dialog nothing can be reached.
  const dialog = [...document.querySelectorAll("dialog[open]")].filter((dialog) => dialog.matches(":modal")).at(-1);
  const all = roots.flatMap((root) => [...root.querySelectorAll(kind)]).filter((element) => !dialog || dialog.contains(element));
  const there = all.filter(shown);
  // A control inside of its label is the label's.
  const apart = there.filter((element) => !(element.labels && [...element.labels].some((label) => there.includes(label) && label.contains(element))));
  const whole = apart.filter((element) => called(element) === name);
  const found = whole.length > 0 ? whole : apart.filter((element) => called(element).includes(name));
  return found.filter((element) => !found.some((other) => other !== element && element.contains(other)));
}

/** What of the page can be read. */
const text = () => tidy(document.body?.innerText);
