// The paper: strokes and pictures on a canvas, drawn with mouse, pen, fingers or keys, and what can be undone.
const $ = (id) => document.getElementById(id);
const canvas = $("canvas");
const pen = canvas.getContext("2d", { willReadFrequently: true });

// What was done: a stroke, a picture, or a clearing of the paper; and what was undone.
let done = [];
let undone = [];
let erasing = false;
let current = null; // the stroke under way
let pointer = null; // the mouse, pen or finger that draws it; null: the keyboard
let tell = () => {};

export const onChange = (listener) => { tell = listener; };
export const drawing = () => current !== null;
export const isBlank = () => !onPaper().length;
export const toBlob = () => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

function onPaper() {
  const cleared = done.map((thing) => Boolean(thing.clear)).lastIndexOf(true);
  return done.slice(cleared + 1);
}

function paint() {
  pen.globalCompositeOperation = "source-over";
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  const things = onPaper();
  for (const thing of things) {
    if (thing.image) pen.drawImage(thing.image, 0, 0);
    else for (let i = 0; i < thing.points.length; i++) segment(thing, i);
  }
  $("hint").hidden = things.length > 0;
  enable("undo", done.length);
  enable("redo", undone.length);
  enable("clear", things.length);
}

// A button that has the focus and can do no more keeps it for the keyboard: the paper takes it.
function enable(id, can) {
  if (!can && document.activeElement === $(id)) canvas.focus({ preventScroll: true });
  $(id).disabled = !can;
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

// A picture as large as the paper, in its middle.
function fitted(image) {
  const sheet = new OffscreenCanvas(canvas.width, canvas.height);
  const scale = Math.min(sheet.width / image.width, sheet.height / image.height);
  const [w, h] = [image.width * scale, image.height * scale];
  sheet.getContext("2d").drawImage(image, (sheet.width - w) / 2, (sheet.height - h) / 2, w, h);
  return sheet;
}

function add(thing) {
  done.push(thing);
  undone = [];
  paint();
}

export function addImage(image) {
  end();
  add({ image: fitted(image) });
  tell();
}

function begin(x, y, pressure, erase = erasing) {
  current = { points: [[x, y, pressure]], width: Number($("brush").value), erase };
  add(current);
}

function extend(x, y, pressure) {
  current.points.push([x, y, pressure]);
  segment(current, current.points.length - 1);
  tell();
}

function end() {
  if (!current) return;
  current = pointer = null;
  tell();
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const pressure = event.pointerType === "pen" ? event.pressure : 0.5;
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height, pressure];
}

// One pointer draws at a time: a second finger, or the palm beside a pen, adds nothing. Button 5 is a pen's rubber end.
canvas.addEventListener("pointerdown", (event) => {
  if ((event.button > 0 && event.button !== 5) || pointer !== null) return;
  end();
  pointer = event.pointerId;
  canvas.setPointerCapture(pointer);
  begin(...place(event), erasing || event.button === 5);
});
canvas.addEventListener("pointermove", (event) => {
  if (!current || event.pointerId !== pointer) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const e of events.length ? events : [event]) extend(...place(e));
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => {
    if (event.pointerId !== pointer) return;
    end();
    pointer = null;
  });
}

// Drawing with the keyboard: arrows move a cross, space puts the pen down or lifts it.
let hand = [canvas.width / 2, canvas.height / 2];
canvas.addEventListener("keydown", (event) => {
  const step = event.shiftKey ? 24 : 8;
  const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (move) {
    hand = [0, 1].map((i) => Math.min(canvas.width, Math.max(0, hand[i] + move[i])));
    if (current && pointer === null) extend(...hand, 0.5);
  } else if (event.key === " ") {
    if (current) end();
    else begin(...hand, 0.5);
  } else return;
  const [x, y] = hand.map((at) => Math.round(at / 6.4));
  $("cross").hidden = false;
  $("cross").style.left = `${x}%`;
  $("cross").style.top = `${y}%`;
  $("hand").textContent = `${current ? "Pen down" : "Pen up"}, ${x} % across, ${y} % down.`;
  event.preventDefault();
});
canvas.addEventListener("blur", () => {
  if (pointer === null) end();
  $("cross").hidden = true;
});

function turn(from, to) {
  if (!from.length) return;
  current = null;
  to.push(from.pop());
  paint();
  tell();
}
const undo = () => turn(done, undone);
const redo = () => turn(undone, done);
function clear() {
  if (isBlank()) return;
  current = null;
  add({ clear: true });
  tell();
}
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
  const writing = event.target instanceof HTMLInputElement && event.target.type !== "range";
  if (writing || $("viewer").open) return;
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (control && key === "z") { event.shiftKey ? redo() : undo(); event.preventDefault(); }
  else if (control && key === "y") { redo(); event.preventDefault(); }
  else if (control || event.altKey || event.target !== canvas) return;
  else if (key === "delete") clear();
  else if (key === "e") toggleEraser();
});

// A reload, or a way out and back, keeps what is on the paper.
addEventListener("pagehide", () => {
  try {
    if (isBlank()) sessionStorage.removeItem("paper");
    else sessionStorage.setItem("paper", canvas.toDataURL());
  } catch { /* private windows may keep nothing */ }
});
export async function restore() {
  paint();
  let kept = null;
  try { kept = sessionStorage.getItem("paper"); } catch { /* see above */ }
  if (!kept) return;
  const image = new Image();
  image.src = kept;
  await image.decode();
  if (!done.length) addImage(image);
}
