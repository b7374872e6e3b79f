// Where pictures are ordered: a photo, hairstyles, a colour, and a mirror that shows what becomes of it.

import { Trouble, get, post, wish } from "../api.js";
import { h, put } from "../dom.js";
import { language, named, number, size, words } from "../language.js";
import { isFinal, watch } from "../live.js";
import { asset, bones, button, choices, compare, complain, drawing, failed, field, icon, link, note, statusPill } from "../parts.js";
import { follow, person, recount } from "../person.js";
import { cancel, catalogue, find, order, pathOf, reason } from "../tasks.js";

const w = words({
  en: {
    title: "Studio", head: "What would suit you?",
    photo: "Your photo", drop: "Drop a photo here, paste one, or", choose: "choose a file", camera: "Take a photo", other: "Another photo", recent: "Photos from the last days",
    rules: "JPEG, PNG or WebP, up to 10 MB. A clear face works best.", sending: "Sending the photo", mirror: "Mirror", photoAlt: "Your photo",
    notPhoto: "This file is not a photo that can be used. JPEG, PNG and WebP work.", heic: "This is a HEIC photo, which browsers cannot show. Export it as JPEG and try again.",
    empty: "This file is empty.", broken: "This photo is damaged: it cannot be opened.", small: (a, b) => `This photo has ${a} × ${b} pixels. It needs at least 64 on each side.`, large: (is) => `This photo has ${is}, and 10 MB is the most.`,
    styles: "Hairstyles", all: "All", groups: { long: "Longer", short: "Shorter", any: "For anyone" }, upTo: (n) => `Choose up to ${n}.`, chosen: (n) => `${n} chosen`, most: (n) => `Up to ${n} hairstyles at once.`,
    color: "Hair colour", detail: "Anything else about the hair?", detailHint: "Optional, up to 200 characters: “a little shorter on the left”.", model: "Model",
    cost: (pictures, credits) => `${pictures} ${pictures === 1 ? "picture" : "pictures"} · ${credits} ${credits === 1 ? "credit" : "credits"}`, have: (n) => `You have ${number(n)}.`, after: (n) => `${number(n)} left after this.`,
    short: (n) => `${number(n)} more needed.`, buy: "Buy credits", go: "Make pictures", needPhoto: "Bring a photo first.", needStyle: "Choose a hairstyle.",
    ordered: (n) => (n === 1 ? "One picture is in the making." : `${n} pictures are in the making.`), ready: "A picture is ready.", made: "Made just now", open: "Open", photoTab: "Your photo",
    working: "In the making. This usually takes less than a minute; you may leave this page.", waiting: "Waiting for its turn.", slow: "This one takes longer than usual. It goes on by itself; if it does not end, your credit comes back.",
    noContact: "The connection is gone for the moment. The picture is still being made; this page looks again by itself.", cancel: "Cancel", tryAgain: "Try again",
    snap: "Take the picture", noCamera: "The camera cannot be used here. Choose a file instead.", close: "Close", gone: "Nobody knows this photo any more. Choose another one.",
  },
  zh: {
    title: "工作室", head: "什么发型适合您？",
    photo: "您的照片", drop: "把照片拖到这里、粘贴，或", choose: "选择文件", camera: "拍照", other: "换一张照片", recent: "最近几天的照片",
    rules: "JPEG、PNG 或 WebP，最大 10 MB。面部清晰效果最好。", sending: "正在上传照片", mirror: "镜子", photoAlt: "您的照片",
    notPhoto: "这个文件不是可用的照片。支持 JPEG、PNG 和 WebP。", heic: "这是 HEIC 照片，浏览器无法显示。请导出为 JPEG 后重试。",
    empty: "文件是空的。", broken: "照片已损坏，无法打开。", small: (a, b) => `照片只有 ${a} × ${b} 像素，每边至少需要 64 像素。`, large: (is) => `照片大小为 ${is}，最大为 10 MB。`,
    styles: "发型", all: "全部", groups: { long: "偏长", short: "偏短", any: "通用" }, upTo: (n) => `最多选择 ${n} 款。`, chosen: (n) => `已选 ${n} 款`, most: (n) => `一次最多 ${n} 款发型。`,
    color: "发色", detail: "对头发还有什么要求？", detailHint: "可选，最多 200 字，例如“左边稍短一些”。", model: "模型",
    cost: (pictures, credits) => `${pictures} 张图片 · ${credits} 点`, have: (n) => `您有 ${number(n)} 点。`, after: (n) => `完成后剩余 ${number(n)} 点。`,
    short: (n) => `还差 ${number(n)} 点。`, buy: "购买点数", go: "生成图片", needPhoto: "请先选择照片。", needStyle: "请选择发型。",
    ordered: (n) => `${n} 张图片正在生成。`, ready: "一张图片已完成。", made: "刚刚生成", open: "打开", photoTab: "您的照片",
    working: "正在生成，通常不到一分钟；您可以离开此页。", waiting: "排队中。", slow: "这张比平时久一些。它会自动继续；如果没有完成，点数会退回。",
    noContact: "暂时无法连接。图片仍在生成，本页会自动重试。", cancel: "取消", tryAgain: "重试",
    snap: "拍照", noCamera: "无法使用相机，请选择文件。", close: "关闭", gone: "找不到这张照片，请另选一张。",
  },
});

export const title = w.title;

/** As the server has it: hairstyles in one order, pixels a side, bytes (its default). */
const MOST_STYLES = 8;
const LEAST_SIDE = 64;
const MOST_BYTES = 10 << 20;
/** Seconds after which a picture is said to take long. */
const LONG = 90;

// What somebody has chosen stays while they look at other pages, and while they are away to pay.
const nothing = () => ({ upload: null, styles: new Set(), color: "keep-original", detail: "", model: null, group: "" });
const chosen = nothing();
let owner;

/** Where it is kept while this page is not there: in this tab, for this person. */
const shelfOf = (user) => `studio of ${user}`;

window.addEventListener("pagehide", () => {
  if (!owner) return;
  const { upload, styles, ...rest } = chosen;
  try {
    sessionStorage.setItem(shelfOf(owner), JSON.stringify({ ...rest, styles: [...styles], upload: upload && { ...upload, preview: undefined } }));
  } catch {
    // Not allowed to remember.
  }
});

/** What this person had chosen, whoever was here before. */
function recall() {
  const user = person.user?.id;
  if (!user || user === owner) return;
  Object.assign(chosen, nothing());
  made = [];
  owner = user;
  try {
    const kept = JSON.parse(sessionStorage.getItem(shelfOf(user)));
    if (kept) Object.assign(chosen, kept, { styles: new Set(kept.styles) });
  } catch {
    // Then it is chosen again.
  }
}
let made = [];

export function render({ signal }) {
  recall();
  const mirror = h("section", { class: "mirror", "aria-label": w.mirror });
  const shelf = h("section", { class: "stack loose" });
  const till = h("section", { class: "till", "aria-live": "polite" });
  put(shelf, bones(6));
  const page = h("div", { class: "page studio" }, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, w.head)), h("div", { class: "desk" }, mirror, h("div", { class: "stack loose" }, shelf, till)));
  const bench = { page, mirror, shelf, till, signal, shown: null, books: null, once: wish() };
  draw(bench);
  return page;
}

async function draw(bench) {
  try {
    bench.books = await catalogue();
  } catch (error) {
    put(bench.shelf, failed(error, () => draw(bench)));
    return;
  }
  if (bench.signal.aborted) return;
  chosen.model ??= bench.books.models[0].id;
  drawShelf(bench);
  follow(() => drawTill(bench), bench.signal);
  drawMirror(bench);
  listenForPhotos(bench);
  resume(bench);
}

/** What is being made already, from another visit. */
async function resume(bench) {
  try {
    const { tasks } = await get("/api/tasks?limit=8", { signal: bench.signal });
    const running = tasks.filter((task) => !isFinal(task) && !made.some((known) => known.task_no === task.task_no));
    made = [...made, ...running];
    for (const task of made) if (!isFinal(task)) attend(bench, task.task_no);
    // Unless somebody is about to order the next ones.
    if (running.length && !bench.shown && !(chosen.upload && chosen.styles.size)) bench.shown = running[0].task_no;
    drawMirror(bench);
  } catch (error) {
    // Then they are in the gallery.
    if (error.name !== "AbortError" && !(error instanceof Trouble)) console.warn("running tasks are not shown:", error.message);
  }
}

// The photo.

function listenForPhotos(bench) {
  const { page, signal } = bench;
  document.addEventListener(
    "paste",
    (event) => {
      const file = [...(event.clipboardData?.files ?? [])][0];
      if (!file) return;
      event.preventDefault();
      take(bench, file);
    },
    { signal },
  );
  // A file that is dropped beside the field must not replace the page.
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault(), { signal });
  page.addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (file) take(bench, file);
  });
}

/** A word about a file that is not acceptable, or nothing. */
async function refusal(file) {
  if (!file.size) return w.empty;
  const head = new Uint8Array(await file.slice(0, 16).arrayBuffer());
  const text = String.fromCharCode(...head);
  if (text.slice(4, 8) === "ftyp" && /^(hei|mif1|msf1)/.test(text.slice(8))) return w.heic;
  const isPhoto = (head[0] === 0xff && head[1] === 0xd8) || text.startsWith("\x89PNG") || (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP");
  if (!isPhoto) return w.notPhoto;
  try {
    const picture = await createImageBitmap(file);
    const { width, height } = picture;
    picture.close();
    if (Math.min(width, height) < LEAST_SIDE) return w.small(width, height);
  } catch {
    return w.broken;
  }
  return file.size > MOST_BYTES ? w.large(size(file.size)) : null;
}

async function take(bench, file) {
  const refused = await refusal(file);
  if (refused) return refusePhoto(bench, refused);
  bench.wrong = null;
  bench.sending = URL.createObjectURL(file);
  bench.shown = null;
  drawMirror(bench);
  try {
    const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    const type = head[0] === 0xff ? "image/jpeg" : head[0] === 0x89 ? "image/png" : "image/webp";
    const { uploads } = await post("/api/uploads", { body: file, type, once: wish() });
    chosen.upload = { ...uploads[0], preview: bench.sending };
    // The pictures are of another photo from now on.
    made = made.filter((task) => !isFinal(task));
  } catch (error) {
    bench.wrong = error.code === "unsupported_media_type" || error.code === "invalid_input" ? serverWord(error) : error.words;
    if (!(error instanceof Trouble)) complain(error);
  }
  bench.sending = null;
  if (!bench.signal.aborted) {
    drawMirror(bench);
    drawTill(bench);
  }
}

function serverWord(error) {
  return language === "zh" ? w.notPhoto : error.detail;
}

function refusePhoto(bench, text) {
  bench.wrong = text;
  drawMirror(bench);
}

async function openCamera(bench) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 1280 } } });
  } catch {
    note(w.noCamera);
    return;
  }
  const video = h("video", { autoplay: true, playsinline: true, muted: true });
  video.srcObject = stream;
  const stop = () => stream.getTracks().forEach((track) => track.stop());
  const dialog = h(
    "dialog",
    { "aria-label": w.camera, onclose: () => (stop(), dialog.remove()) },
    video,
    h(
      "div",
      { class: "row" },
      button(w.close, { onclick: () => dialog.close() }),
      button(w.snap, {
        kind: "primary",
        onclick: () => {
          const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
          canvas.getContext("2d").drawImage(video, 0, 0);
          canvas.toBlob((blob) => blob && take(bench, blob), "image/jpeg", 0.92);
          dialog.close();
        },
      }),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}

// The mirror.

function drawMirror(bench) {
  const { mirror } = bench;
  const shown = made.find((task) => task.task_no === bench.shown);
  bench.parts ??= put(mirror, h("div"), h("div", { role: "alert" }), h("div")).children;
  const [face, wrong, below] = bench.parts;
  // What somebody looks at, or holds with the mouse, is not drawn anew because something else went on.
  const state = shown ? [shown.task_no, shown.status, shown.progress, bench.cutOff].join() : ["photo", chosen.upload?.id, bench.sending].join();
  if (bench.state !== state) {
    bench.state = state;
    put(face, shown ? pictureFace(bench, shown) : photoFace(bench));
  }
  if (wrong.textContent !== (bench.wrong ?? "")) put(wrong, bench.wrong && h("p", { class: "say bad" }, bench.wrong));
  put(below, strip(bench));
}

function photoFace(bench) {
  const input = h("input", { type: "file", accept: "image/jpeg,image/png,image/webp", class: "hush", id: "photo", tabindex: "-1", "aria-label": w.photo, onchange: () => input.files[0] && take(bench, input.files[0]) });
  const pick = (text, kind) => button(text, { kind, icon: "upload", onclick: () => input.click() });
  const snap = (kind) => navigator.mediaDevices?.getUserMedia && button(w.camera, { kind, icon: "camera", onclick: () => openCamera(bench) });
  const picture = bench.sending ?? chosen.upload?.preview ?? (chosen.upload && pathOf(chosen.upload.url));
  if (picture) {
    return h(
      "div",
      { class: "glass" },
      h("img", { src: picture, alt: w.photoAlt, onerror: () => forget(bench) }),
      bench.sending ? h("p", { class: "over", role: "status" }, h("span", { class: "spin" }), w.sending) : h("div", { class: "row corner" }, pick(w.other, "slim"), snap("slim")),
      input,
    );
  }
  const zone = h(
    "div",
    { class: "glass drop" },
    h("img", { src: asset("img/favicon.svg"), alt: "", width: 56, height: 56 }),
    h("p", {}, w.drop),
    h("div", { class: "row" }, pick(w.choose, "primary"), snap()),
    h("p", { class: "muted tiny" }, w.rules),
    input,
  );
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, () => zone.classList.add("near"));
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("near"));
  recent(bench, zone);
  return zone;
}

/** The photo is not there any more: seven days are over, or it was deleted elsewhere. */
function forget(bench) {
  if (!chosen.upload || chosen.upload.preview) return;
  chosen.upload = null;
  refusePhoto(bench, w.gone);
  drawTill(bench);
}

/** Photos that are still kept, to choose again. */
async function recent(bench, zone) {
  try {
    const { uploads } = await get("/api/uploads?limit=5", { signal: bench.signal });
    if (!uploads.length || !zone.isConnected) return;
    const use = (upload) => {
      chosen.upload = upload;
      bench.wrong = null;
      drawMirror(bench);
      drawTill(bench);
    };
    zone.append(
      h("div", { class: "stack tight recent" }, h("span", { class: "muted tiny" }, w.recent), h("div", { class: "row" }, uploads.map((upload, at) => h("button", { type: "button", class: "thumb", "aria-label": `${w.photo} ${at + 1}`, onclick: () => use(upload) }, h("img", { src: pathOf(upload.url), alt: "", loading: "lazy" }))))),
    );
  } catch {
    // Then a new one is chosen.
  }
}

function pictureFace(bench, task) {
  const { styles, colors } = bench.books;
  const style = find(styles, task.hairstyle);
  const color = find(colors, task.hair_color ?? "keep-original");
  const before = chosen.upload?.id === task.upload_id && chosen.upload.preview ? chosen.upload.preview : task.source_url && pathOf(task.source_url);
  const words = h("div", { class: "row apart" }, h("h2", {}, style ? named(style) : task.hairstyle, color?.hex && h("span", { class: "muted" }, ` · ${named(color)}`)), statusPill(task.status));
  if (task.status === "completed") {
    const after = pathOf(task.result_urls[0]);
    return h(
      "div",
      { class: "stack" },
      before ? compare(before, after) : h("div", { class: "glass" }, h("img", { src: after, alt: style ? named(style) : "" })),
      words,
      h("div", { class: "row" }, link(w.open, `/gallery/${task.task_no}`, "primary"), button(w.other, { onclick: () => startOver(bench) })),
    );
  }
  const late = Date.now() / 1000 - task.created_at > LONG;
  const status = bench.cutOff ? w.noContact : late ? w.slow : task.status === "pending" ? w.waiting : w.working;
  return h(
    "div",
    { class: "stack" },
    h("div", { class: "glass waiting" }, before && h("img", { src: before, alt: w.photoAlt }), h("div", { class: "over" }, drawing(task.hairstyle, color?.hex))),
    words,
    task.status === "failed"
      ? h("p", { class: "say bad", role: "alert" }, reason(task))
      : [h("progress", { class: "meter", max: 1, value: task.progress, "aria-label": style ? named(style) : task.hairstyle }), h("p", { class: "muted small", role: "status" }, status)],
    h(
      "div",
      { class: "row" },
      task.status === "pending" && button(w.cancel, { onclick: async () => heard(bench, await cancel(task)) }),
      task.status === "failed" && button(w.tryAgain, { kind: "primary", icon: "again", onclick: () => send(bench, { upload_id: task.upload_id, hairstyles: [task.hairstyle], hair_color: task.hair_color ?? undefined, detail: task.detail ?? undefined, model: task.model }, wish()) }),
    ),
  );
}

function startOver(bench) {
  chosen.upload = null;
  bench.shown = null;
  made = made.filter((task) => !isFinal(task));
  drawMirror(bench);
  drawTill(bench);
}

/** The photo, and what was made of it: small, to choose what the mirror shows. */
function strip(bench) {
  if (!made.length) return null;
  const { styles, colors } = bench.books;
  const show = (taskNo) => {
    bench.shown = taskNo;
    drawMirror(bench);
    bench.mirror.querySelector(`[aria-pressed="true"]`)?.focus();
  };
  const photo = chosen.upload && h("button", { type: "button", class: "thumb", "aria-label": w.photoTab, "aria-pressed": String(!bench.shown), onclick: () => show(null) }, h("img", { src: chosen.upload.preview ?? pathOf(chosen.upload.url), alt: "" }));
  const pictures = made.map((task) => {
    const style = find(styles, task.hairstyle);
    const name = `${style ? named(style) : task.hairstyle}, ${statusWord(task)}`;
    const face = task.status === "completed" ? h("img", { src: pathOf(task.result_urls[0]), alt: "" }) : drawing(task.hairstyle, find(colors, task.hair_color)?.hex);
    return h("button", { type: "button", class: `thumb ${task.status}`, "aria-label": name, "aria-pressed": String(bench.shown === task.task_no), onclick: () => show(task.task_no) }, face, !isFinal(task) && h("progress", { class: "meter", max: 1, value: task.progress, "aria-hidden": "true" }));
  });
  return h("div", { class: "row strip-of", role: "group", "aria-label": w.made }, photo, pictures);
}

function statusWord(task) {
  return statusPill(task.status).textContent;
}

/** Follows a task until it is final. */
function attend(bench, taskNo) {
  watch(taskNo, (task) => heard(bench, task), {
    signal: bench.signal,
    trouble: (error) => {
      const cutOff = Boolean(error);
      if (bench.cutOff === cutOff) return;
      bench.cutOff = cutOff;
      drawMirror(bench);
    },
  });
}

function heard(bench, task) {
  const at = made.findIndex((known) => known.task_no === task.task_no);
  const before = made[at];
  made[at] = task;
  if (isFinal(task) && !isFinal(before)) {
    if (task.status === "completed") {
      note(w.ready);
      // The first that is ready takes the mirror, but nothing that somebody is looking at.
      const shown = made.find((known) => known.task_no === bench.shown);
      if (!shown || !isFinal(shown)) bench.shown = task.task_no;
    } else {
      note(reason(task), 9);
    }
    recount();
  } else if (before.status === task.status && before.progress === task.progress) {
    return;
  }
  drawMirror(bench);
}

// The catalogue.

function drawShelf(bench) {
  const { styles, colors, models } = bench.books;
  const grid = h("div", { class: "styles", role: "group", "aria-label": w.styles });
  const count = h("span", { class: "muted small", "aria-live": "polite" });
  const hexOf = () => find(colors, chosen.color)?.hex;
  const told = () => put(count, chosen.styles.size ? w.chosen(chosen.styles.size) : w.upTo(MOST_STYLES));

  function drawStyles() {
    put(
      grid,
      styles
        .filter((style) => !chosen.group || style.group === chosen.group)
        .map((style) =>
          h(
            "button",
            { type: "button", class: "style", id: `style-${style.id}`, "aria-pressed": String(chosen.styles.has(style.id)), onclick: (event) => choose(style, event.currentTarget) },
            drawing(style.id, hexOf()),
            h("span", {}, named(style)),
          ),
        ),
    );
  }

  function choose(style, element) {
    if (chosen.styles.delete(style.id)) element.setAttribute("aria-pressed", "false");
    else if (chosen.styles.size >= MOST_STYLES) return note(w.most(MOST_STYLES));
    else {
      chosen.styles.add(style.id);
      element.setAttribute("aria-pressed", "true");
    }
    bench.once = wish();
    told();
    drawTill(bench);
  }

  function paint(color) {
    chosen.color = color;
    bench.once = wish();
    for (const element of grid.querySelectorAll(".drawing")) element.style.color = hexOf() ?? "";
    colorName.textContent = named(find(colors, color));
  }

  const colorName = h("span", { class: "muted small", "aria-live": "polite" }, named(find(colors, chosen.color)));
  const swatches = h(
    "fieldset",
    { class: "swatches" },
    h("legend", { class: "hush" }, w.color),
    colors.map((color) =>
      h(
        "label",
        { class: color.hex ? "swatch" : "swatch none", title: named(color) },
        h("input", { type: "radio", name: "color", value: color.id, checked: chosen.color === color.id, "aria-label": named(color), onchange: () => paint(color.id) }),
        h("span", { vars: color.hex ? { "--is": color.hex } : {} }),
      ),
    ),
  );
  const detail = field(w.detail, h("textarea", { maxlength: 200, rows: 2, id: "detail", value: chosen.detail, oninput: (event) => ((chosen.detail = event.target.value), (bench.once = wish())) }), { hint: w.detailHint });
  bench.detail = detail;
  const model = field(w.model, h("select", { id: "model", onchange: (event) => ((chosen.model = event.target.value), (bench.once = wish()), drawTill(bench)) }, models.map((entry) => h("option", { value: entry.id, selected: entry.id === chosen.model }, entry.name))));

  drawStyles();
  told();
  put(
    bench.shelf,
    h(
      "div",
      { class: "stack" },
      h("div", { class: "row apart" }, h("div", { class: "row" }, h("h2", {}, w.styles), count), choices(w.styles, [["", w.all], ...Object.entries(w.groups)], chosen.group, (group) => ((chosen.group = group), drawStyles()))),
      h("div", { class: "row tint" }, h("h3", {}, w.color), swatches, colorName),
      grid,
    ),
    h("div", { class: "wishes" }, detail, model),
  );
}

// The till: what it costs, and the button.

function drawTill(bench) {
  if (!bench.books) return;
  const pictures = chosen.styles.size;
  const price = (find(bench.books.models, chosen.model)?.price ?? 1) * pictures;
  const lacking = price - person.credits;
  const missing = !chosen.upload ? w.needPhoto : !pictures ? w.needStyle : null;
  const order = button(w.go, { kind: "primary large", id: "go", "aria-disabled": String(Boolean(missing)), onclick: () => (missing ? note(missing) : send(bench)) });
  put(
    bench.till,
    h(
      "div",
      {},
      h("strong", { class: "number" }, pictures ? w.cost(pictures, price) : (missing ?? "")),
      h("div", { class: "muted small" }, w.have(person.credits), " ", pictures > 0 && (lacking > 0 ? w.short(lacking) : w.after(person.credits - price))),
    ),
    lacking > 0 ? link(w.buy, "/credits", "primary large") : order,
  );
}

async function send(bench, wanted, once = bench.once) {
  const ordinary = !wanted;
  wanted ??= { upload_id: chosen.upload.id, hairstyles: [...chosen.styles], hair_color: chosen.color, detail: chosen.detail.trim() || undefined, model: chosen.model };
  bench.detail.mark(null);
  let tasks;
  try {
    tasks = await order(wanted, once);
  } catch (error) {
    // The key stays, so that trying again orders nothing twice; what was refused is a new wish.
    if (error.status >= 400 && error.status < 500) bench.once = wish();
    const own = error.errors?.find(({ field: name }) => name === "detail");
    if (own) bench.detail.mark(own.message);
    if (error.errors?.some(({ field: name }) => name === "upload_id")) {
      chosen.upload = null;
      return refusePhoto(bench, w.gone);
    }
    if (error.code === "insufficient_credits") await recount();
    throw error;
  }
  bench.once = wish();
  if (ordinary) chosen.styles.clear();
  made = [...tasks, ...made.filter((task) => !tasks.some((fresh) => fresh.task_no === task.task_no))].slice(0, 12);
  bench.shown = tasks[0].task_no;
  note(w.ordered(tasks.length));
  if (bench.signal.aborted) return;
  drawShelf(bench);
  drawMirror(bench);
  drawTill(bench);
  for (const task of tasks) if (!isFinal(task)) attend(bench, task.task_no);
  bench.mirror.scrollIntoView({ block: "start", behavior: "smooth" });
}
