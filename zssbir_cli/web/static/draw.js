// The drawing page: what is on the paper is searched for, the gallery's answer stands beside it. No library, no other host.
import * as paper from "./paper.js";

const $ = (id) => document.getElementById(id);
const { token, k, most } = document.body.dataset;
const RETRY = 2000; // milliseconds
const START = $("status").textContent;

// Searching: one request at a time; what changes meanwhile is asked for next, so the last drawing always wins.
let wanted = null; // what is searched for: the paper, or a photo
let asking = false;
let again = false;
let timer = 0;

const thePaper = { what: "", field: async () => paper.isBlank() ? [] : ["image", await paper.toBlob(), "drawing.png"] };
const words = () => $("words")?.value.trim() ?? "";

function changed(wait = paper.drawing() ? 120 : 10) {
  wanted = paper.isBlank() && !words() ? null : thePaper;
  if (wanted) later(wait);
  else nothing();
}

function later(wait) {
  clearTimeout(timer);
  busy(true);
  timer = setTimeout(ask, wait);
}

function nothing() {
  clearTimeout(timer);
  timer = 0;
  show([]);
  say(START);
  busy(false);
}

function searchFor(what, ...field) {
  wanted = { what, field: () => field };
  say(`Photos like ${brief(what)} …`);
  later(0);
}

async function ask() {
  timer = 0;
  again = asking;
  if (asking) return;
  asking = true;
  do {
    again = false;
    const query = wanted;
    if (!query) break;
    const found = await answerTo(query);
    if (query === wanted) settle(found, query);
  } while (again);
  asking = false;
  if (!timer) busy(false);
}

async function answerTo(query) {
  const form = new FormData();
  const field = await query.field();
  if (field.length) form.append(...field);
  if (words()) form.append("text", words());
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const signal = AbortSignal.timeout(60_000);
    const answer = await fetch(`/search?k=${k}`, { method: "POST", body: form, headers, signal });
    const found = await answer.json();
    return { ...found, status: answer.status };
  } catch {
    return { status: 0 };
  }
}

function settle(found, query) {
  $("back").hidden = query === thePaper || (paper.isBlank() && !words());
  if (found.status === 0 || found.status === 503) {
    say(found.detail ? `Too many searches are waiting; asking again …` : "The server does not answer; trying again. Is zssbir draw still running?", true);
    if (!timer) later(RETRY);
  } else if (!found.hits) {
    show([]);
    say(found.detail ? `${found.detail[0].toUpperCase()}${found.detail.slice(1)}.` : `The server answered ${found.status}.`, true);
  } else {
    show(found.hits.map((hit) => ({ ...hit, version: found.version })));
    const like = query.what && ` like ${brief(query.what)}`;
    const count = found.hits.length === 1 ? "1 photo" : `${found.hits.length} photos`;
    say(found.hits.length ? `${count}${like}; the best is ${brief(found.hits[0].class || found.hits[0].source)}.` : `${found.note || "nothing found"}.`);
  }
}

const busy = (is) => $("hits").setAttribute("aria-busy", String(is));

function say(text, error = false) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

// A name inside a sentence: not too long, and written in its own direction.
const brief = (name) => `\u2068${[...name].length > 40 ? `${[...name].slice(0, 20).join("")}…${[...name].slice(-16).join("")}` : name}\u2069`;
const label = (hit) => hit.class ? `${hit.class} (${hit.source})` : hit.source;
const photo = (hit, size, what = "") => `/photo/${hit.id}${what}?size=${size}&v=${hit.version}` + (token ? `&token=${encodeURIComponent(token)}` : "");
const element = (tag, facts, ...children) => {
  const made = Object.assign(document.createElement(tag), facts);
  made.append(...children);
  return made;
};

// A long name loses its middle: its folder begins it, and what tells it from others ends it.
function shortened(hit) {
  const text = [...(hit.class || hit.source)];
  const parts = [text.slice(0, -9), text.slice(-9)].map((part) => element("span", { textContent: part.join("") }));
  return element("span", { className: "name", title: hit.source }, ...parts);
}

function tile(hit) {
  const image = element("img", { src: photo(hit, 256), alt: "", loading: "lazy" });
  const bar = element("i", {});
  bar.style.width = `${Math.max(0, Math.min(1, hit.score)) * 100}%`;
  const value = element("span", { textContent: `${hit.rank}. ${hit.score.toFixed(3)}` });
  const score = element("span", { className: "score" }, bar, value);
  const button = element("button", { type: "button" }, element("span", { className: "picture" }, image), shortened(hit), score);
  button.setAttribute("aria-label", `Rank ${hit.rank}: ${label(hit)}, score ${hit.score.toFixed(3)}`);
  button.addEventListener("click", () => view(hit));
  image.addEventListener("error", () => {
    image.replaceWith(element("span", { className: "gone", textContent: "not there any more" }));
    button.ariaLabel += ", not there any more";
  });
  return element("li", {}, button);
}

function show(hits) {
  const reading = $("hits").contains(document.activeElement);
  $("hits").replaceChildren(...hits.map(tile));
  if (reading) ($("hits").querySelector("button") ?? $("canvas")).focus();
}

let viewed = null;
function view(hit) {
  viewed = hit;
  for (const [id, what, has] of [["viewer-image", "", true], ["viewer-mask-image", "/mask", hit.mask]]) {
    $(id).removeAttribute("src"); // not the photo before, while this one comes
    if (has) $(id).src = photo(hit, 1024, what);
  }
  $("viewer-image").alt = label(hit);
  $("viewer-mask").hidden = !hit.mask;
  $("viewer-mask-image").alt = `What the masks keep of ${label(hit)}`;
  $("viewer-name").textContent = hit.source;
  $("viewer-facts").textContent = `Rank ${hit.rank}, cosine ${hit.score.toFixed(4)}` + (hit.class ? `, class ${hit.class}` : "");
  $("viewer").showModal();
}
$("viewer").addEventListener("click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
$("viewer-like").addEventListener("click", () => {
  $("viewer").close();
  searchFor(viewed.source, "like", String(viewed.id));
});
$("back").addEventListener("click", () => { $("back").hidden = true; $("canvas").focus(); changed(); });
$("words")?.addEventListener("input", () => changed(300));
$("words")?.form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });

// Pictures from outside: a drawing goes on the paper, a photo is searched with as it is.
async function openDrawing(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
    paper.addImage(image);
  } catch {
    say(`${file.name || "The picture"} cannot be opened here: the browser does not support its format.`, true);
  } finally {
    URL.revokeObjectURL(image.src);
  }
}
function openPhoto(file) {
  if (file.size > Number(most)) say(`${file.name} is larger than ${Math.floor(most / 2 ** 20)} MiB.`, true);
  else searchFor(file.name || "this one", "photo", file, "photo");
}
const picked = (input, use) => input.addEventListener("change", () => { if (input.files[0]) use(input.files[0]); input.value = ""; });
picked($("open-drawing"), openDrawing);
picked($("open-photo"), openPhoto);
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((f) => f.type.startsWith("image/"));
  if (file) { event.preventDefault(); openDrawing(file); }
});
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const file = event.dataTransfer.files[0];
  if (file) (event.shiftKey ? openPhoto : openDrawing)(file);
  else say("Drop the file of a picture.", true);
});

paper.onChange(() => changed());
paper.restore();
