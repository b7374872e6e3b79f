// The door: what this is, and the ways in.

import { h } from "../dom.js";
import { words } from "../language.js";
import { asset, drawing } from "../parts.js";

const w = words({
  en: {
    title: "Try the haircut before the scissors do",
    text: "Upload a photo, choose a few hairstyles, and see yourself with them in under a minute.",
    google: "Continue with Google", github: "Continue with GitHub",
    steps: [["Bring a photo", "From your phone, your camera or the clipboard. It is deleted after seven days."], ["Choose hairstyles", "Twenty-six cuts and twelve colours, or your own words."], ["Compare", "Slide between before and after, keep what you like."]],
    styles: "Some of the hairstyles", fine: "Only your hair changes: your face, your light, your room stay as they are.",
  },
  zh: {
    title: "先看效果，再动剪刀",
    text: "上传一张照片，挑几款发型，一分钟内看到自己的新样子。",
    google: "使用 Google 登录", github: "使用 GitHub 登录",
    steps: [["上传照片", "手机、相机或剪贴板都可以。七天后自动删除。"], ["选择发型", "二十六款发型，十二种发色，也可以写下自己的想法。"], ["前后对比", "拖动滑块对比前后，保存喜欢的。"]],
    styles: "部分发型", fine: "只改变头发：面容、光线和背景保持不变。",
  },
});

export const title = "";

const SHOWN = [["bob-cut", "#7a2e1d"], ["quiff", "#3b2417"], ["curtain-bangs", "#d8b36a"], ["afro", "#1b1714"], ["pixie-cut", "#b5592b"], ["box-braids", "#3b2417"], ["wolf-cut", "#a493c9"], ["man-bun", "#7b5334"]];

export function render() {
  // Back to where they wanted to be.
  const back = encodeURIComponent(location.pathname + location.search);
  return h(
    "div",
    { class: "page welcome" },
    h(
      "section",
      { class: "hero" },
      h(
        "div",
        { class: "stack" },
        h("h1", { tabindex: "-1" }, w.title),
        h("p", { class: "lead" }, w.text),
        h("div", { class: "row" }, h("a", { class: "button primary large", href: `/auth/login/google?redirect_to=${back}` }, w.google), h("a", { class: "button large", href: `/auth/login/github?redirect_to=${back}` }, w.github)),
        h("p", { class: "muted small" }, w.fine),
      ),
      h("img", { class: "picture", src: asset("img/hero.svg"), alt: "", width: 480, height: 420 }),
    ),
    h("ol", { class: "steps" }, w.steps.map(([head, text], at) => h("li", {}, h("span", { class: "count", "aria-hidden": "true" }, String(at + 1)), h("h2", {}, head), h("p", { class: "muted" }, text)))),
    h("div", { class: "strip", role: "img", "aria-label": w.styles }, SHOWN.map(([style, hex]) => drawing(style, hex))),
  );
}
