"use strict";

// Requests under way at once; the service batches them.
const AT_ONCE = 4;
// Tries while the service is busy, and ms between them.
const TRIES = 20, PAUSE = 1000;
// Below this fall, in probability, no part of the picture decides alone.
const SLIGHT = 0.01;

const $ = (id) => document.getElementById(id);
const waiting = [];
let running = 0, total = 0, done = 0, generation = 0;
let key = null;
let model = null;


function describe(reason, message) {
  const formats = model ? model.accepts.formats.join(", ") : "JPEG, PNG";
  const words = {
    empty: "The file is empty.",
    not_an_image: `This is no picture that can be read here. These can: ${formats}.`,
    truncated: "The file breaks off before the picture ends.",
    unreadable: `The picture cannot be shown: ${message}`,
    too_large: model
      ? `The picture has too many pixels; up to ${Math.round(model.accepts.max_pixels / 1e6)} million are taken.`
      : "The picture has too many pixels.",
    too_small: model
      ? `The picture is too small: each side needs at least ${model.accepts.min_side} pixels.`
      : "The picture is too small.",
    too_many_bytes: model ? `The file is too large; up to ${megabytes(model.accepts.max_bytes)} are taken.` : "The file is too large.",
    busy: "The service is busy. Try again later.",
    unreachable: "The service does not answer, or the file cannot be read.",
    no_key: "The API key is missing or wrong.",
  };
  return words[reason] || message;
}

async function post(path, field, file) {
  const form = new FormData();
  form.append(field, file, file.name);
  const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
  for (let attempt = 1; ; attempt += 1) {
    let answer, body;
    try {
      answer = await fetch(path, { method: "POST", body: form, headers });
      body = await answer.json();
    } catch {
      throw { reason: "unreachable", message: "" };
    }
    if (answer.ok) return body;
    if (answer.status !== 503 || attempt === TRIES) throw body.error;
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

function askForKey() {
  $("key-form").hidden = false;
  $("key").focus();
}

function refuseKey() {
  if (key !== null) $("status").textContent = describe("no_key");
  key = null;
}

function add(files) {
  for (const file of files) {
    const item = $("result").content.firstElementChild.cloneNode(true);
    item.querySelector(".name").textContent = file.name;
    showPicture(item.querySelector(".picture"), file);
    $("results").append(item);
    waiting.push({ file, item });
    total += 1;
  }
  $("clear").hidden = total === 0;
  report();
  work();
}

function showPicture(frame, file) {
  const image = frame.querySelector("img");
  image.alt = "";
  image.addEventListener("load", () => {
    URL.revokeObjectURL(image.src);
    const ratio = image.naturalWidth / image.naturalHeight;
    frame.style.aspectRatio = String(ratio);
    frame.classList.toggle("wide", ratio > frame.parentElement.clientWidth / frame.parentElement.clientHeight);
  });
  image.addEventListener("error", () => {
    URL.revokeObjectURL(image.src);
    image.remove();
    frame.classList.add("blank");
    frame.prepend("This browser cannot show it");
  });
  image.src = URL.createObjectURL(file);
}

function work() {
  if (key === null && model && model.needs_key) {
    askForKey();
    return;
  }
  while (running < AT_ONCE && waiting.length > 0) {
    const task = waiting.shift();
    const own = generation;
    running += 1;
    predict(task).then((settled) => {
      running -= 1;
      if (own === generation && settled) {
        done += 1;
        report(task.item);
      } else if (own === generation) {
        waiting.push(task);
      }
      work();
    });
  }
}

// Answers one picture; false if it must be asked again with another key.
async function predict({ file, item }) {
  const answer = item.querySelector(".answer");
  item.setAttribute("aria-busy", "true");
  try {
    if (model && file.size > model.accepts.max_bytes) throw { reason: "too_many_bytes" };
    const [found] = await post("predict", "images", file);
    answer.textContent = found.uncertain ? `uncertain, rather ${found.label}: ${percent(found.prob)}` : `${found.label}: ${percent(found.prob)}`;
    item.classList.toggle("uncertain", found.uncertain || found.unfamiliar === true);
    const bar = item.querySelector(".bar");
    bar.hidden = false;
    bar.firstElementChild.getBoundingClientRect(); // so that its width is seen to grow
    bar.firstElementChild.style.width = `${100 * found.prob}%`;
    const note = item.querySelector(".note");
    const doubts = [
      found.unfamiliar && "Unlike the training images: perhaps no face, so take it as no answer. "
        + "For a whole photo use `gender-classifier predict --faces`.",
      found.uncertain && `Below ${percent(model ? model.threshold : 0.8)}: take it as no answer.`,
    ].filter(Boolean);
    note.hidden = doubts.length === 0;
    note.replaceChildren();
    addInline(note, doubts[0] || "");
    const button = item.querySelector(".explain");
    button.hidden = false;
    button.setAttribute("aria-label", `Show what it looked at in ${file.name}`);
    button.addEventListener("click", () => toggleHeatMap(file, item));
  } catch (problem) {
    if (problem.reason === "no_key") {
      refuseKey();
      return false;
    }
    item.classList.add("failed");
    answer.textContent = describe(problem.reason, problem.message || String(problem));
  } finally {
    item.removeAttribute("aria-busy");
  }
  return true;
}

function report(item) {
  if (total === 0) {
    $("status").textContent = "";
    return;
  }
  const last = item ? ` ${item.querySelector(".name").textContent}: ${item.querySelector(".answer").textContent}` : "";
  const counted = total === 1 ? "1 picture" : `${total} pictures`;
  $("status").textContent = done === total ? `${counted} done.${total === 1 ? last : ""}` : `${done} of ${counted} done.${last}`;
}

async function toggleHeatMap(file, item) {
  const button = item.querySelector(".explain");
  const canvas = item.querySelector("canvas");
  const legend = item.querySelector(".legend");
  const say = (verb) => {
    button.textContent = `${verb} what it looked at`;
    button.setAttribute("aria-label", `${verb} what it looked at in ${file.name}`);
  };
  if (canvas.dataset.drawn) {
    canvas.hidden = !canvas.hidden;
    canvas.parentElement.classList.toggle("mapped", !canvas.hidden);
    legend.hidden = canvas.hidden;
    say(canvas.hidden ? "Show" : "Hide");
    return;
  }
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true"); // `disabled` would take the keyboard's focus away
  legend.hidden = false;
  legend.textContent = "Computing …";
  try {
    const { grid, label } = await post("explain", "image", file);
    legend.textContent = drawHeatMap(canvas, grid, label, findShare(item.querySelector("img")));
    canvas.dataset.drawn = "yes";
    canvas.hidden = false;
    canvas.parentElement.classList.add("mapped");
    say("Hide");
  } catch (problem) {
    legend.textContent = describe(problem.reason, problem.message || String(problem));
  }
  button.removeAttribute("aria-disabled");
}

// The share of the image's width that the model saw: wide images lose their sides.
function findShare(img) {
  const crop = model && model.accepts.crop;
  if (!crop || !img) return 1; // a browser that cannot show the picture has no <img>
  const aspect = img.naturalWidth / img.naturalHeight;
  return aspect > crop.above ? crop.aspect / aspect : 1;
}

// Draws the falls over the middle `share` of the image; returns what they mean in words.
function drawHeatMap(canvas, grid, label, share) {
  const values = grid.flat();
  const largest = Math.max(...values);
  const scale = Math.max(SLIGHT, ...values.map(Math.abs));
  const cells = document.createElement("canvas");
  cells.height = grid.length;
  cells.width = grid[0].length;
  const context = cells.getContext("2d");
  const pixels = context.createImageData(cells.width, cells.height);
  values.forEach((value, place) => {
    const [red, green, blue] = value > 0 ? [255, 96, 0] : [0, 110, 255];
    pixels.data.set([red, green, blue, Math.round(210 * Math.abs(value) / scale)], 4 * place);
  });
  context.putImageData(pixels, 0, 0);
  const target = canvas.getContext("2d");
  target.clearRect(0, 0, canvas.width, canvas.height);
  target.imageSmoothingEnabled = true;
  target.imageSmoothingQuality = "high";
  target.drawImage(cells, ((1 - share) / 2) * canvas.width, 0, share * canvas.width, canvas.height);
  if (largest < SLIGHT) return "No single part decides: with any of them covered, the answer stays nearly the same.";
  const place = values.indexOf(largest);
  const row = ["top", "middle", "bottom"][Math.floor((3 * Math.floor(place / cells.width)) / cells.height)];
  const column = ["left", "centre", "right"][Math.floor((3 * (place % cells.width)) / cells.width)];
  const where = row === "middle" && column === "centre" ? "in the middle" : `${row} ${column}`;
  const rises = Math.min(...values) <= -SLIGHT ? " Blue: it rises." : "";
  return `Orange: covered, “${label}” becomes less likely, by up to ${(100 * largest).toFixed(0)} points (${where}).${rises}`;
}

// “a” from “b”; of more than two: “a”, “b” and “c” apart.
function quoteClasses(classes) {
  const quoted = classes.map((name) => `“${name}”`);
  if (quoted.length === 2) return quoted.join(" from ");
  return `${quoted.slice(0, -1).join(", ")} and ${quoted.at(-1)} apart`;
}

function showModel() {
  const { accepts, classes, metrics } = model;
  const origin = [
    model.network,
    model.registry_version && `registry version ${model.registry_version}`,
    model.version && `made by version ${model.version}`,
    model.data_digest && `data ${model.data_digest.slice(0, 12)}`,
  ].filter(Boolean).join(", ");
  $("model").textContent =
    `A small model that was trained to tell ${quoteClasses(classes)} on tight face crops` + (origin ? ` (${origin}).` : ".");
  $("accepts").textContent = `Tight crops of one face each: ${listAccepted(accepts)}.`;
  if (model.limits) renderMarkdown(model.limits, $("limits"));
  const measured = tabulateMeasured(model);
  const { accuracy, accuracy_low: low, accuracy_high: high } = metrics;
  if (measured) {
    $("figures").append(element("h3", "How good it is, the worst first"), measured,
      element("p", "On your pictures it may be worse."));
  } else if (accuracy !== undefined) {
    const span = low !== undefined && high !== undefined ? ` (95 % interval ${percent(low)} to ${percent(high)})` : "";
    $("figures").append(element("h3", "Figures"), element("p",
      `On the test pictures of its own data set it was right on ${percent(accuracy)}${span}. On yours it may be less.`));
  }
  const calibrated = describeCalibration(model);
  if (calibrated) $("figures").append(element("p", `It was ${calibrated}, after these figures were measured.`));
}

async function start() {
  try {
    const answer = await fetch("model");
    model = await answer.json();
    showModel();
    $("key-form").hidden = !model.needs_key;
  } catch {
    $("status").textContent = describe("unreachable");
  }
}

const loading = start();

$("files").addEventListener("change", async (event) => {
  const files = [...event.target.files];
  event.target.value = ""; // the same file may be chosen again
  await loading;
  add(files);
});

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  $("key-form").hidden = true;
  $("files").focus();
  work();
});

$("clear").addEventListener("click", () => {
  generation += 1;
  waiting.length = 0;
  total = done = 0;
  $("results").replaceChildren();
  $("clear").hidden = true;
  $("status").textContent = "All pictures removed.";
  $("files").focus();
});

let depth = 0; // entered less left: children fire these events too
const over = (change) => {
  depth = change === 0 ? 0 : Math.max(0, depth + change);
  $("drop").classList.toggle("over", depth > 0);
};
document.addEventListener("dragenter", () => over(1));
document.addEventListener("dragleave", () => over(-1));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  over(0);
  const files = [...event.dataTransfer.files];
  await loading;
  add(files);
});
document.addEventListener("paste", async (event) => {
  const files = [...event.clipboardData.files];
  await loading;
  add(files);
});
