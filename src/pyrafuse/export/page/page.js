// image -> RGB bytes -> model.onnx in onnxruntime-web -> boxes on the canvas, rows of the table
"use strict";

const MOST_SIDE = 4096; // pixels: larger images are reduced first, since the graph holds them as floats
const SAMPLE_SIZE = [640, 480];

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));

let about; // model.json
let ort;
let session;
let shown; // { picture, width, height, scale, detections, milliseconds }
let waiting; // what is detected next: { name, read }
let isBusy = false;

start();

async function start() {
  listen();
  try {
    if (location.protocol === "file:") {
      throw new Error("a browser runs it from a web server only. In its folder type python -m http.server, then open " +
        "http://localhost:8000");
    }
    if (typeof WebAssembly !== "object") {
      throw new Error("this browser has no WebAssembly, or it is switched off. Use a current browser");
    }
    about = await (await get("model.json")).json();
    part.title.textContent = `Detect objects with ${about.model}`;
    document.title = part.title.textContent;
    part.about.textContent = `Network input ${about.network[1]} × ${about.network[0]} px, ` +
      `${about.names.length} ${about.names.length === 1 ? "class" : "classes"}. ${about.runtime}.`;
    part.score.min = Math.floor(about.least_score * 100) / 100;
    part.score.value = about.score;
    tell("Loading the model.");
    const [runtime, model] = await Promise.all([loadRuntime(), getWithProgress("model.onnx")]);
    ort = runtime;
    tell("Preparing the model.");
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  } catch (error) {
    tell("");
    part.progress.hidden = true;
    complain(`The page cannot start: ${reason(error)}.`);
    return;
  }
  part.progress.hidden = true;
  part.choose.disabled = part.sample.disabled = false;
  tell("Ready. Choose an image, or drop one.");
  detectWaiting();
}

async function loadRuntime() {
  const runtime = await import(new URL("ort/ort.wasm.bundle.min.js", document.baseURI).href);
  const { wasm } = runtime.env;
  wasm.wasmPaths = { wasm: new URL("ort/ort-wasm-simd-threaded.wasm", document.baseURI).href };
  wasm.proxy = true; // in a worker, so that the page stays alive
  if (!self.crossOriginIsolated) wasm.numThreads = 1; // more need the headers COOP and COEP
  return runtime;
}

async function get(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} was not found beside the page (status ${answer.status})`);
  return answer;
}

async function getWithProgress(name) {
  const answer = await get(name);
  const total = Number(answer.headers.get("content-length"));
  part.progress.hidden = false;
  const pieces = [];
  let count = 0;
  const reader = answer.body.getReader();
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    pieces.push(value);
    count += value.length;
    if (total >= count) part.progress.value = count / total;
  }
  part.progress.removeAttribute("value");
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

function listen() {
  part.choose.addEventListener("click", () => part.file.click());
  part.sample.addEventListener("click", () => detect("the test picture", drawSample));
  part.score.addEventListener("input", show);
  window.addEventListener("resize", show); // letters and lines keep their size on the screen
  part.file.addEventListener("change", () => {
    take([...part.file.files]);
    part.file.value = ""; // so that the same file can be chosen again
  });
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault(); // else the browser leaves the page for the image
      part.drop.classList.toggle("over", name === "dragenter" || name === "dragover");
      if (name === "drop") take([...event.dataTransfer.files]);
    });
  }
}

function take(files) {
  if (!files.length) return complain("No image file was dropped: drop one from a folder, or choose one.");
  const [file] = files;
  detect(file.name, () => createImageBitmap(file));
}

function detect(name, read) {
  waiting = { name, read };
  detectWaiting();
}

async function detectWaiting() {
  if (isBusy || !session) return;
  isBusy = true;
  while (waiting) {
    const { name, read } = waiting;
    waiting = undefined;
    await detectOne(name, read);
  }
  isBusy = false;
}

async function detectOne(name, read) {
  part.error.hidden = true;
  tell(`Reading ${name}.`);
  let image;
  try {
    image = toPixels(await read());
  } catch {
    tell("Ready.");
    complain(`${name} is not an image that this browser can read. Choose a JPEG, PNG or WebP file.`);
    return;
  }
  tell(`Detecting in ${name}.`);
  try {
    const { width, height, bytes } = image;
    const start = performance.now();
    const feeds = { images: new ort.Tensor("uint8", bytes, [1, height, width, 3]) };
    if (session.inputNames.includes("score")) { // the slider leaves out what scores less
      feeds.score = new ort.Tensor("float32", [about.least_score], [1]);
    }
    const found = await session.run(feeds);
    const milliseconds = performance.now() - start;
    shown = { ...image, milliseconds, detections: readDetections(found, image.scale) };
  } catch (error) {
    tell("Ready.");
    complain(`The model failed on ${name}: ${reason(error)}.`);
    return;
  }
  const reduced = shown.scale < 1 ? ` The image was reduced to ${shown.width} × ${shown.height} px first.` : "";
  tell(`${name}: detected in ${Math.round(shown.milliseconds)} ms.${reduced}`);
  part.result.hidden = false;
  show();
}

// The image on a canvas, and its RGB bytes.
function toPixels(source) {
  const scale = Math.min(1, MOST_SIDE / Math.max(source.width, source.height));
  const width = Math.max(1, Math.round(source.width * scale));
  const height = Math.max(1, Math.round(source.height * scale));
  const picture = new OffscreenCanvas(width, height);
  const pen = picture.getContext("2d", { alpha: false, willReadFrequently: true });
  pen.drawImage(source, 0, 0, width, height);
  const { data } = pen.getImageData(0, 0, width, height);
  const bytes = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    bytes[to++] = data[from];
    bytes[to++] = data[from + 1];
    bytes[to++] = data[from + 2];
  }
  return { picture, width, height, scale, bytes };
}

function readDetections(found, scale) {
  const { boxes, scores, labels, count } = found;
  return Array.from({ length: Number(count.data[0]) }, (_, i) => {
    const label = Number(labels.data[i]);
    return {
      label,
      name: about.names[label] ?? String(label),
      score: scores.data[i],
      box: Array.from(boxes.data.subarray(4 * i, 4 * i + 4), (side) => side / scale),
    };
  });
}

function show() {
  const least = Number(part.score.value);
  part["score-text"].textContent = least.toFixed(2);
  if (!shown) return;
  const kept = shown.detections.filter(({ score }) => score >= least);
  draw(kept);
  part.table.tBodies[0].replaceChildren(...kept.map(toRow));
  const isHidden = !kept.length && shown.detections.length;
  part.summary.textContent = describe(kept) + (isHidden ? " Move the slider to the left to see less certain ones." : "");
  part.canvas.setAttribute("aria-label", `Image with detections. ${describe(kept)}`);
}

function describe(detections) {
  if (!detections.length) return `No object with a score of ${Number(part.score.value).toFixed(2)} or more.`;
  const counts = new Map();
  for (const { name } of detections) counts.set(name, (counts.get(name) ?? 0) + 1);
  const each = [...counts].map(([name, count]) => `${name}: ${count}`).join(", ");
  return `${detections.length} ${detections.length === 1 ? "object" : "objects"}. ${each}.`;
}

function toRow({ name, label, score, box }) {
  const row = document.createElement("tr");
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = color(label);
  row.insertCell().append(swatch, name);
  for (const [value, text] of [[score, score.toFixed(2)], ...box.map((side) => [side, side.toFixed(0)])]) {
    const number = document.createElement("data");
    [number.value, number.textContent] = [value, text];
    row.insertCell().append(number);
  }
  return row;
}

function draw(detections) {
  const { picture, width, height, scale } = shown;
  const { canvas } = part;
  const zoom = Math.max(1, 1200 / Math.max(width, height)); // small images are enlarged, and lines stay sharp
  [canvas.width, canvas.height] = [Math.round(width * zoom), Math.round(height * zoom)];
  canvas.style.width = `min(100%, ${(80 * width) / height}vh)`;
  const unit = canvas.width / canvas.clientWidth; // pixels of the canvas in one of the screen
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  pen.lineWidth = 2 * unit;
  pen.font = `600 ${12 * unit}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const tall = 16 * unit;
  for (const { name, label, score, box } of [...detections].reverse()) { // the surest last, on top
    const [left, top, right, bottom] = box.map((side) => side * scale * zoom);
    pen.strokeStyle = pen.fillStyle = color(label);
    pen.strokeRect(left, top, right - left, bottom - top);
    const text = ` ${name.length > 24 ? `${name.slice(0, 23)}…` : name} ${score.toFixed(2)} `;
    const wide = pen.measureText(text).width;
    const x = Math.max(0, Math.min(left - unit, canvas.width - wide));
    const y = top >= tall ? top - tall : Math.max(0, top);
    pen.fillRect(x, y, wide, tall);
    pen.fillStyle = "#000";
    pen.fillText(text, x, y + tall / 2);
  }
}

// Light enough for black letters; neighbours lie far apart.
function color(label) {
  return `hsl(${(210 + label * 137.5) % 360} 85% 65%)`;
}

function drawSample() {
  const [width, height] = SAMPLE_SIZE;
  const picture = new OffscreenCanvas(width, height);
  const pen = picture.getContext("2d");
  pen.fillStyle = "#8c9a88";
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = "#d33f49";
  pen.fillRect(70, 90, 150, 150);
  pen.fillStyle = "#f2c14e";
  pen.beginPath();
  pen.arc(420, 170, 85, 0, 2 * Math.PI);
  pen.fill();
  pen.fillStyle = "#1d4e89";
  pen.beginPath();
  pen.moveTo(300, 260);
  pen.lineTo(410, 430);
  pen.lineTo(190, 430);
  pen.fill();
  return picture;
}

function tell(text) {
  part.status.textContent = text;
}

function complain(text) {
  part.error.textContent = text;
  part.error.hidden = false;
}

function reason(error) {
  return String(error?.message ?? error).replace(/\.?\s*$/, "");
}
