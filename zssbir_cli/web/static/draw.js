// The drawing page: strokes on a canvas, the gallery's answer beside it. No library, no request to another host.
const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const pen = canvas.getContext("2d", { willReadFrequently: true });
const token = document.body.dataset.token;
const k = Number(document.body.dataset.k);

// What is on the paper: a list of things drawn, and those undone. A thing is a stroke or a picture.
let done = [];
let undone = [];
let erasing = false;
let current = null;

function paint() {
  pen.globalCompositeOperation = "source-over";
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  for (const thing of done) {
    if (thing.image) drawImage(thing.image);
    else for (let i = 0; i < thing.points.length; i++) segment(thing, i);
  }
  $("hint").hidden = done.length > 0;
  $("undo").disabled = !done.length;
  $("redo").disabled = !undone.length;
  $("clear").disabled = !done.length;
}

function segment(stroke, i) {
  const [x, y, pressure] = stroke.points[i];
  const [x0, y0] = stroke.points[Math.max(0, i - 1)];
  pen.strokeStyle = stroke.erase ? "#fff" : "#000";
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = stroke.width * (stroke.erase ? 3 : 0.4 + 1.2 * pressure);
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x, y);
  pen.stroke();
}

function drawImage(image) {
  const scale = Math.min(canvas.width / image.width, canvas.height / image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  pen.drawImage(image, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
}

function begin(x, y, pressure) {
  current = { points: [[x, y, pressure]], width: Number($("brush").value), erase: erasing };
  done.push(current);
  undone = [];
  paint();
}

function extend(x, y, pressure) {
  current.points.push([x, y, pressure]);
  segment(current, current.points.length - 1);
  changed();
}

function end() {
  current = null;
  changed();
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const pressure = event.pointerType === "pen" ? event.pressure : 0.5;
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height, pressure];
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 0) return;
  canvas.setPointerCapture(event.pointerId);
  begin(...place(event));
});
canvas.addEventListener("pointermove", (event) => {
  if (!current || !canvas.hasPointerCapture(event.pointerId)) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const e of events.length ? events : [event]) extend(...place(e));
});
for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => current && end());

// Drawing with the keyboard: arrows move, space puts the pen down or lifts it.
let hand = [canvas.width / 2, canvas.height / 2];
canvas.addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 24 : 8;
  const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (move) {
    hand = [0, 1].map((i) => Math.min(canvas.width, Math.max(0, hand[i] + move[i])));
    if (current) extend(...hand, 0.5);
    say(`${current ? "Pen down" : "Pen up"}, ${Math.round(hand[0] / 6.4)} % across, ${Math.round(hand[1] / 6.4)} % down.`);
  } else if (event.key === " ") {
    if (current) end();
    else begin(...hand, 0.5);
  } else return;
  event.preventDefault();
});

function undo() { if (done.length) { undone.push(done.pop()); current = null; paint(); changed(); } }
function redo() { if (undone.length) { done.push(undone.pop()); paint(); changed(); } }
function clear() { undone = []; done = []; current = null; paint(); changed(); }
function toggleEraser() {
  erasing = !erasing;
  $("eraser").setAttribute("aria-pressed", String(erasing));
  canvas.classList.toggle("erasing", erasing);
}
$("undo").addEventListener("click", undo);
$("redo").addEventListener("click", redo);
$("clear").addEventListener("click", clear);
$("eraser").addEventListener("click", toggleEraser);
document.addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || $("viewer").open) return;
  const control = event.ctrlKey || event.metaKey;
  if (control && event.key.toLowerCase() === "z") { event.shiftKey ? redo() : undo(); event.preventDefault(); }
  else if (control && event.key.toLowerCase() === "y") { redo(); event.preventDefault(); }
  else if (!control && event.key === "Delete") clear();
  else if (!control && event.key.toLowerCase() === "e") toggleEraser();
});

// Searching: one request at a time; what changes meanwhile is asked for next, so the last drawing always wins.
let asking = false;
let waiting = null;
let timer = 0;

function changed() {
  if (!done.length) { clearTimeout(timer); waiting = null; show([]); busy(false); say("Matching photos appear as you draw."); return; }
  clearTimeout(timer);
  busy(true);
  timer = setTimeout(() => ask(drawing), current ? 120 : 10);
}

function drawing() {
  return new Promise((resolve) => canvas.toBlob((blob) => {
    const form = new FormData();
    form.append("image", blob, "drawing.png");
    resolve(form);
  }, "image/png"));
}

async function ask(make) {
  timer = 0;
  if (asking) { waiting = make; return; }
  asking = true;
  busy(true);
  try {
    const body = await make();
    const answer = await fetch(`/search?k=${k}`, { method: "POST", body, headers: token ? { Authorization: `Bearer ${token}` } : {} });
    const found = await answer.json();
    if (!answer.ok) say(found.detail || `The server answered ${answer.status}.`, true);
    else if (make !== drawing || done.length) {
      show(found.hits.map((hit) => ({ ...hit, version: found.version })));
      say(found.hits.length ? `${found.hits.length} photos; the best is ${label(found.hits[0])}.` : found.note || "Nothing found.");
    }
  } catch {
    say("The server does not answer. Is zssbir draw still running?", true);
  } finally {
    asking = false;
  }
  if (waiting) { const next = waiting; waiting = null; ask(next); }
  else if (!timer) busy(false);
}

const busy = (is) => $("hits").setAttribute("aria-busy", String(is));

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

const label = (hit) => hit.class ? `${hit.class} (${hit.source})` : hit.source;
const photo = (hit, size, what = "") => `/photo/${hit.id}${what}?size=${size}&v=${hit.version}` + (token ? `&token=${encodeURIComponent(token)}` : "");

function show(hits) {
  $("hits").replaceChildren(...hits.map((hit) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const image = document.createElement("img");
    image.src = photo(hit, 256);
    image.alt = "";
    image.loading = "lazy";
    const name = document.createElement("span");
    name.className = "name";
    name.title = hit.source;
    const cut = hit.class ? 0 : hit.source.lastIndexOf("/") + 1;
    for (const part of [hit.source.slice(0, cut), hit.class || hit.source.slice(cut)]) {
      name.append(Object.assign(document.createElement("span"), { textContent: part }));
    }
    const score = document.createElement("span");
    score.className = "score";
    const bar = document.createElement("i");
    bar.style.width = `${Math.max(0, Math.min(1, hit.score)) * 100}%`;
    const value = document.createElement("span");
    value.textContent = `${hit.rank}. ${hit.score.toFixed(3)}`;
    score.append(bar, value);
    button.append(image, name, score);
    button.setAttribute("aria-label", `Rank ${hit.rank}: ${label(hit)}, score ${hit.score.toFixed(3)}`);
    button.addEventListener("click", () => view(hit));
    item.append(button);
    return item;
  }));
}

let viewed = null;
function view(hit) {
  viewed = hit;
  $("viewer-image").src = photo(hit, 1024);
  $("viewer-image").alt = label(hit);
  $("viewer-mask").hidden = !hit.mask;
  if (hit.mask) $("viewer-mask-image").src = photo(hit, 1024, "/mask");
  else $("viewer-mask-image").removeAttribute("src");
  $("viewer-mask-image").alt = `What the masks keep of ${label(hit)}`;
  $("viewer-name").textContent = hit.source;
  $("viewer-facts").textContent = `Rank ${hit.rank}, cosine ${hit.score.toFixed(4)}` + (hit.class ? `, class ${hit.class}` : "");
  $("viewer").showModal();
}
$("viewer-like").addEventListener("click", () => {
  $("viewer").close();
  const id = viewed.id;
  say(`Photos like ${viewed.source} …`);
  ask(async () => { const form = new FormData(); form.append("like", String(id)); return form; });
});

// Pictures from outside: a drawing goes on the paper, a photo is searched with as it is.
async function openDrawing(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
  } catch {
    say(`${file.name || "The picture"} cannot be opened here: the browser does not support its format.`, true);
    return;
  } finally {
    URL.revokeObjectURL(image.src);
  }
  done.push({ image });
  undone = [];
  paint();
  changed();
}
function openPhoto(file) {
  say(`Photos like ${file.name || "this one"} …`);
  ask(async () => { const form = new FormData(); form.append("photo", file, "photo"); return form; });
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
});

paint();
