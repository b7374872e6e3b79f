// Where pictures are ordered: a photo, hairstyles, a colour, and a mirror that shows what becomes of it.

import { Trouble, get, post, wish } from "../api.js";
import { h, put } from "../dom.js";
import { language, named, number, size, words } from "../language.js";
import { isFinal, watch } from "../live.js";
import { asset, bones, button, choices, compare, complain, drawing, failed, field, icon, link, note, statusPill } from "../parts.js";
import { follow, person, recount } from "../person.js";
import { again, cancel, catalogue, find, goOn, isLate, order, pathOf, reason, whenLate } from "../tasks.js";

const w = words({
  en: {
    title: "Studio", head: "What would suit you?",
    photo: "Your photo", drop: "Drop a photo here, paste one, or", choose: "choose a file", camera: "Take a photo", other: "Another photo", recent: "Photos from the last days",
    rules: "JPEG, PNG or WebP, up to 10 MB. A clear face works best.", sending: "Sending the photo", mirror: "Mirror", photoAlt: "Your photo",
    notPhoto: "This file is not a photo that can be used. JPEG, PNG and WebP work.", heic: "This is a HEIC photo, which browsers cannot show. Export it as JPEG and try again.",
    empty: "This file is empty.", broken: "This photo is damaged: it cannot be opened.", small: (a, b) => `This photo has ${a} × ${b} pixels. It needs at least 64 on each side.`, vast: (a, b) => `This photo has ${number(a)} × ${number(b)} pixels. At most 12,000 on each side, and 64 million in all, can be used.`, large: (is) => `This photo has ${is}, and 10 MB is the most.`,
    styles: "Hairstyles", all: "All", groups: { long: "Longer", short: "Shorter", any: "For anyone" }, upTo: (n) => `Choose up to ${n}.`, chosen: (n) => `${n} chosen`, most: (n) => `Up to ${n} hairstyles at once.`,
    color: "Hair colour", detail: "Anything else about the hair?", detailHint: "Optional, up to 200 characters: “a little shorter on the left”.", model: "Model",
    cost: (pictures, credits) => `${pictures} ${pictures === 1 ? "picture" : "pictures"} · ${credits} ${credits === 1 ? "credit" : "credits"}`, have: (n) => `You have ${number(n)}.`, after: (n) => `${number(n)} left after this.`,
    short: (n) => `${number(n)} more needed.`, buy: "Buy credits", go: "Make pictures", needPhoto: "Bring a photo first.", needStyle: "Choose a hairstyle.", busy: "One moment: the order before is still on its way.",
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
    empty: "文件是空的。", broken: "照片已损坏，无法打开。", small: (a, b) => `照片只有 ${a} × ${b} 像素，每边至少需要 64 像素。`, vast: (a, b) => `照片为 ${number(a)} × ${number(b)} 像素。每边最多 12,000 像素，总计最多 6,400 万像素。`, large: (is) => `照片大小为 ${is}，最大为 10 MB。`,
    styles: "发型", all: "全部", groups: { long: "偏长", short: "偏短", any: "通用" }, upTo: (n) => `最多选择 ${n} 款。`, chosen: (n) => `已选 ${n} 款`, most: (n) => `一次最多 ${n} 款发型。`,
    color: "发色", detail: "对头发还有什么要求？", detailHint: "可选，最多 200 字，例如“左边稍短一些”。", model: "模型",
    cost: (pictures, credits) => `${pictures} 张图片 · ${credits} 点`, have: (n) => `您有 ${number(n)} 点。`, after: (n) => `完成后剩余 ${number(n)} 点。`,
    short: (n) => `还差 ${number(n)} 点。`, buy: "购买点数", go: "生成图片", needPhoto: "请先选择照片。", needStyle: "请选择发型。", busy: "请稍候：上一个订单还在提交中。",
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
const MOST_SIDE = 12_000;
const MOST_PIXELS = 64_000_000;
const MOST_BYTES = 10 << 20;
/** Pictures beside the mirror, but for those that are being made: they are all there. */
const MOST_SHOWN = 12;

// What somebody has chosen stays while they look at other pages, and while they are away to pay.
const nothing = () => ({ upload: null, styles: new Set(), color: "keep-original", detail: "", model: null, group: "" });
const chosen = nothing();
let owner;
let made = [];
/** The page as it was rendered last: what was begun on one before it ends here. */
let desk;
/** The photo on its way to the server: how it looks here, and the one that was chosen before it. */
let sending = null;
/** Photos are numbered as they are brought. Of those that can be used the last one counts, whichever arrives first. */
let brought = 0;
let accepted = 0;
/** An order is on its way. The server may take half a minute to answer, and until then nothing else is ordered. */
let ordering = false;

/** Where it is kept while this page is not there: in this tab, for this person. */
const shelfOf = (user) => `studio of ${user}`;

window.addEventListener("pagehide", () => {
  if (!owner) return;
  const { styles, ...rest } = chosen;
  const upload = sending?.before ?? chosen.upload;
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
  usePhoto(null);
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

/** From now on it is this photo, or none. */
function usePhoto(upload) {
  release(chosen.upload);
  chosen.upload = upload;
}

/** A photo is no longer held here as well: from now on it looks as the server has it. */
function release(upload) {
  if (!upload?.preview) return;
  URL.revokeObjectURL(upload.preview);
  upload.preview = undefined;
}

/** Where one's photo is to be seen: here as long as it is here, else at the server; or nowhere. */
const portrait = () => sending?.picture ?? chosen.upload?.preview ?? (chosen.upload && pathOf(chosen.upload.url));

/** What is being made, and the newest of what was made. */
function kept(tasks) {
  let room = MOST_SHOWN - tasks.filter((task) => !isFinal(task)).length;
  return tasks.filter((task) => !isFinal(task) || (room -= 1) >= 0);
}

export function render({ signal }) {
  recall();
  const mirror = h("section", { class: "mirror", "aria-label": w.mirror });
  const shelf = h("section", { class: "stack loose" });
  const till = h("section", { class: "till", "aria-live": "polite" });
  put(shelf, bones(6));
  const page = h("div", { class: "page studio" }, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, w.head)), h("div", { class: "desk" }, mirror, h("div", { class: "stack loose" }, shelf, till)));
  const bench = { page, mirror, shelf, till, signal, shown: null, books: null, lost: new Set(), followed: new Set() };
  desk = bench;
  signal.addEventListener("abort", () => release(chosen.upload));
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
    for (const task of made) if (!isFinal(task)) attend(bench, task);
    // Unless somebody is about to order the next ones.
    if (running.length && !bench.shown && !sending && !(chosen.upload && chosen.styles.size)) bench.shown = running[0].task_no;
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
    if (Math.max(width, height) > MOST_SIDE || width * height > MOST_PIXELS) return w.vast(width, height);
  } catch {
    return w.broken;
  }
  return file.size > MOST_BYTES ? w.large(size(file.size)) : null;
}

async function take(bench, file) {
  brought += 1;
  const turn = brought;
  const refused = await refusal(file);
  if (turn < accepted) return;
  if (refused) return refusePhoto(bench, refused);
  accepted = turn;
  const before = sending ? sending.before : chosen.upload;
  if (sending) URL.revokeObjectURL(sending.picture);
  const picture = URL.createObjectURL(file);
  sending = { picture, before };
  // Until it is there nothing can be ordered: not of it, and not of the one before.
  chosen.upload = null;
  bench.wrong = null;
  bench.shown = null;
  drawMirror(bench);
  drawTill(bench);
  let arrived;
  try {
    const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    const type = head[0] === 0xff ? "image/jpeg" : head[0] === 0x89 ? "image/png" : "image/webp";
    const { uploads } = await post("/api/uploads", { body: file, type, once: wish() });
    arrived = { ...uploads[0], preview: picture };
  } catch (error) {
    if (turn !== accepted) return;
    desk.wrong = error.code === "unsupported_media_type" || error.code === "invalid_input" ? serverWord(error) : error.words;
    if (!(error instanceof Trouble)) complain(error);
  }
  if (turn !== accepted) return;
  sending = null;
  if (arrived) {
    release(before);
    // The pictures are of another photo from now on.
    made = made.filter((task) => !isFinal(task));
  } else {
    URL.revokeObjectURL(picture);
  }
  chosen.upload = arrived ?? before;
  if (desk.signal.aborted) return release(chosen.upload);
  drawMirror(desk);
  drawTill(desk);
}

/** What the server found wrong with a photo that looked right here. */
function serverWord(error) {
  if (language !== "zh") return error.detail;
  return error.code === "unsupported_media_type" ? w.notPhoto : w.broken;
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
    if (!bench.signal.aborted) note(w.noCamera);
    return;
  }
  const stop = () => stream.getTracks().forEach((track) => track.stop());
  // Whoever was asked, and has gone elsewhere meanwhile, is not filmed.
  if (bench.signal.aborted) return stop();
  const video = h("video", { autoplay: true, playsinline: true, muted: true });
  video.srcObject = stream;
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
  bench.signal.addEventListener("abort", () => (stop(), dialog.close()));
  document.body.append(dialog);
  dialog.showModal();
}

// The mirror.

function drawMirror(bench) {
  const { mirror } = bench;
  if (!bench.books) return;
  const shown = made.find((task) => task.task_no === bench.shown);
  bench.parts ??= put(mirror, h("div"), h("div", { role: "alert" }), h("div")).children;
  const [face, wrong, below] = bench.parts;
  const held = mirror.contains(document.activeElement) && document.activeElement;
  // What somebody looks at, or holds with the mouse or by keys, is not drawn anew because something else went on.
  const state = shown ? [shown.task_no, shown.status].join() : ["photo", portrait(), Boolean(sending)].join();
  if (bench.state !== state) {
    bench.state = state;
    put(face, shown ? pictureFace(bench, shown) : photoFace(bench));
  } else if (shown) {
    goOn(face, shown, standing(bench, shown));
  }
  if (wrong.textContent !== (bench.wrong ?? "")) put(wrong, bench.wrong && h("p", { class: "say bad" }, bench.wrong));
  const thumbs = [portrait(), bench.shown, ...made.map((task) => task.task_no + task.status)].join();
  if (bench.thumbs !== thumbs) {
    bench.thumbs = thumbs;
    put(below, strip(bench));
  } else {
    for (const task of made) goOn(below.querySelector(thumbOf(task.task_no)), task);
  }
  // Where it had to be: the focus goes to the same small picture, or to that of what is shown.
  if (held && !held.isConnected) (below.querySelector(thumbOf(held.dataset.task ?? bench.shown)) ?? face.querySelector("button"))?.focus({ preventScroll: true });
}

const thumbOf = (taskNo) => `[data-task="${taskNo}"]`;

function photoFace(bench) {
  const input = h("input", { type: "file", accept: "image/jpeg,image/png,image/webp", class: "hush", id: "photo", tabindex: "-1", "aria-label": w.photo, onchange: () => input.files[0] && take(bench, input.files[0]) });
  const pick = (text, kind) => button(text, { kind, icon: "upload", onclick: () => input.click() });
  const snap = (kind) => navigator.mediaDevices?.getUserMedia && button(w.camera, { kind, icon: "camera", onclick: () => openCamera(bench) });
  const picture = portrait();
  if (picture) {
    return h(
      "div",
      { class: "glass" },
      h("img", { src: picture, alt: w.photoAlt, onerror: () => doubt(bench) }),
      sending ? h("p", { class: "over", role: "status" }, h("span", { class: "spin" }), w.sending) : h("div", { class: "row corner" }, pick(w.other, "slim"), snap("slim")),
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

/** The photo cannot be shown. Whether it is gone (seven days are over, it was deleted elsewhere) or cannot be had now, the server knows. */
async function doubt(bench) {
  const { upload } = chosen;
  if (!upload || upload.preview) return;
  try {
    await get(`/api/uploads/${encodeURIComponent(upload.id)}`, { signal: bench.signal });
  } catch (error) {
    if (error.status !== 404 || chosen.upload !== upload) return;
    usePhoto(null);
    refusePhoto(bench, w.gone);
    drawTill(bench);
  }
}

/** Photos that are still kept, to choose again. */
async function recent(bench, zone) {
  try {
    const { uploads } = await get("/api/uploads?limit=5", { signal: bench.signal });
    if (!uploads.length || !zone.isConnected) return;
    const use = (upload) => {
      usePhoto(upload);
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
  return h(
    "div",
    { class: "stack" },
    h("div", { class: "glass waiting" }, before && h("img", { src: before, alt: w.photoAlt }), h("div", { class: "over" }, drawing(task.hairstyle, color?.hex))),
    words,
    task.status === "failed"
      ? h("p", { class: "say bad", role: "alert" }, reason(task))
      : [h("progress", { class: "meter", max: 1, value: task.progress, "aria-label": style ? named(style) : task.hairstyle }), h("p", { class: "muted small", role: "status" }, standing(bench, task))],
    h(
      "div",
      { class: "row" },
      task.status === "pending" && button(w.cancel, { onclick: async () => heard(bench, await cancel(task)) }),
      task.status === "failed" && button(w.tryAgain, { kind: "primary", icon: "again", onclick: () => send(task) }),
    ),
  );
}

/** How a picture stands that is being made. */
function standing(bench, task) {
  if (bench.lost.has(task.task_no)) return w.noContact;
  if (isLate(task)) return w.slow;
  return task.status === "pending" ? w.waiting : w.working;
}

function startOver(bench) {
  usePhoto(null);
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
  };
  const photo = portrait() && h("button", { type: "button", class: "thumb", dataset: { task: "photo" }, "aria-label": w.photoTab, "aria-pressed": String(!bench.shown), onclick: () => show(null) }, h("img", { src: portrait(), alt: "" }));
  const pictures = made.map((task) => {
    const style = find(styles, task.hairstyle);
    const name = `${style ? named(style) : task.hairstyle}, ${statusWord(task)}`;
    const face = task.status === "completed" ? h("img", { src: pathOf(task.result_urls[0]), alt: "" }) : drawing(task.hairstyle, find(colors, task.hair_color)?.hex);
    return h("button", { type: "button", class: `thumb ${task.status}`, dataset: { task: task.task_no }, "aria-label": name, "aria-pressed": String(bench.shown === task.task_no), onclick: () => show(task.task_no) }, face, !isFinal(task) && h("progress", { class: "meter", max: 1, value: task.progress, "aria-hidden": "true" }));
  });
  return h("div", { class: "row strip-of", role: "group", "aria-label": w.made }, photo, pictures);
}

function statusWord(task) {
  return statusPill(task.status).textContent;
}

/** Follows a task until it is final. */
function attend(bench, task) {
  const { task_no: taskNo } = task;
  if (bench.followed.has(taskNo)) return;
  bench.followed.add(taskNo);
  whenLate(task, () => drawMirror(bench), bench.signal);
  watch(taskNo, (now) => heard(bench, now), {
    signal: bench.signal,
    trouble: (error) => {
      if (error) bench.lost.add(taskNo);
      else bench.lost.delete(taskNo);
      drawMirror(bench);
    },
  });
}

function heard(bench, task) {
  if (isFinal(task)) bench.followed.delete(task.task_no);
  const at = made.findIndex((known) => known.task_no === task.task_no);
  if (at < 0) {
    // Not shown any more. What it has cost may have come back all the same.
    if (isFinal(task)) recount();
    return;
  }
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
  bench.mark = () => {
    for (const { id } of styles) grid.querySelector(`#style-${id}`)?.setAttribute("aria-pressed", String(chosen.styles.has(id)));
    told();
  };

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
    told();
    drawTill(bench);
  }

  function paint(color) {
    chosen.color = color;
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
  const detail = field(w.detail, h("textarea", { maxlength: 200, rows: 2, id: "detail", value: chosen.detail, oninput: (event) => (chosen.detail = event.target.value) }), { hint: w.detailHint });
  bench.detail = detail;
  const model = field(w.model, h("select", { id: "model", onchange: (event) => ((chosen.model = event.target.value), drawTill(bench)) }, models.map((entry) => h("option", { value: entry.id, selected: entry.id === chosen.model }, entry.name))));

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
  const missing = missed();
  bench.bill ??= h("div", {});
  bench.buy ??= link(w.buy, "/credits", "primary large");
  bench.order ??= button(w.go, { kind: "primary large", id: "go", onclick: () => (missed() ? note(missed()) : send()) });
  put(
    bench.bill,
    h("strong", { class: "number" }, pictures ? w.cost(pictures, price) : (missing ?? "")),
    h("div", { class: "muted small" }, w.have(person.credits), " ", pictures > 0 && (lacking > 0 ? w.short(lacking) : w.after(person.credits - price))),
  );
  bench.order.setAttribute("aria-disabled", String(Boolean(missing)));
  if (ordering) bench.order.setAttribute("aria-busy", "true");
  else bench.order.removeAttribute("aria-busy");
  // The button stays the same one, so that whoever has pressed it with a key still has it.
  const deed = lacking > 0 && !ordering ? bench.buy : bench.order;
  if (bench.till.lastChild !== deed) put(bench.till, bench.bill, deed);
}

/** What is still needed for an order, or nothing. */
function missed() {
  if (sending) return w.sending;
  if (!chosen.upload) return w.needPhoto;
  return chosen.styles.size ? null : w.needStyle;
}

/** Orders what is chosen; or a picture once more. */
async function send(picture) {
  if (ordering) return note(w.busy);
  const wanted = picture ?? { upload_id: chosen.upload.id, hairstyles: [...chosen.styles], hair_color: chosen.color, detail: chosen.detail.trim() || undefined, model: chosen.model };
  ordering = true;
  desk.detail?.mark(null);
  drawTill(desk);
  try {
    const tasks = await (picture ? again(picture) : order(wanted));
    for (const style of wanted.hairstyles ?? []) chosen.styles.delete(style);
    ordered(tasks);
  } catch (error) {
    const own = error.errors?.find(({ field: name }) => name === "detail");
    if (own) desk.detail?.mark(own.message);
    if (error.errors?.some(({ field: name }) => name === "upload_id")) {
      // The photo of an old picture may be gone, and the one that is chosen is another.
      if (chosen.upload?.id === wanted.upload_id) usePhoto(null);
      return refusePhoto(desk, w.gone);
    }
    if (error.code === "insufficient_credits") await recount();
    throw error;
  } finally {
    ordering = false;
    drawTill(desk);
  }
}

function ordered(tasks) {
  made = kept([...tasks, ...made.filter((task) => !tasks.some((fresh) => fresh.task_no === task.task_no))]);
  const going = tasks.filter((task) => task.status !== "failed");
  if (going.length) note(w.ordered(going.length));
  for (const task of tasks) if (!going.includes(task)) note(reason(task), 9);
  if (desk.signal.aborted || !desk.books) return;
  desk.shown = tasks[0].task_no;
  desk.mark();
  drawMirror(desk);
  for (const task of tasks) if (!isFinal(task)) attend(desk, task);
  desk.mirror.scrollIntoView({ block: "start", behavior: "smooth" });
}
