"use strict";

// Images fetched ahead of the one shown.
const AHEAD = 6;
// A data set of more classes has a button for each; digits stand for the first nine.
const FEW = 2, DIGITS = 9;
// Status of a change that the file does not allow: it holds another decision, or is damaged.
const CONFLICT = 409;

const $ = (id) => document.getElementById(id);
const token = location.hash.slice(1);
const images = new Map(); // SHA-256 to the promise of an object URL

let classes = [];
let queue = []; // suspects to come; the first is shown
let skipped = [];
let past = []; // {suspect, decision}; the decision is null for a skip
let left = 0; // about which nobody has decided, the skipped ones included
let isReady = false; // the image is in sight, and nothing is being saved

const percent = (value) => (value < 0.001 ? "less than 0.1 %" : `${(100 * value).toFixed(1)} %`);
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

async function ask(path, method = "GET") {
  let answer;
  try {
    answer = await fetch(path, { method, headers: { Authorization: `Bearer ${token}` } });
  } catch {
    throw new Error("The command has ended. What you decided is saved; start `gender-classifier review` again to go on.");
  }
  if (answer.ok) return answer;
  const { error } = await answer.json();
  throw Object.assign(new Error(error.message), { status: answer.status });
}

function fetchImage({ sha256 }) {
  if (!images.has(sha256)) {
    images.set(sha256, ask(`images/${sha256}`).then((answer) => answer.blob()).then(URL.createObjectURL));
    images.get(sha256).catch(() => {}); // shown when its turn comes
  }
  return images.get(sha256);
}

// Keeps the images to come and the one to which undo leads back.
function fetchAhead() {
  const near = queue.slice(0, AHEAD + 1);
  if (past.length > 0) near.push(past.at(-1).suspect);
  const kept = new Set(near.map(({ sha256 }) => sha256));
  for (const [sha256, url] of images) {
    if (kept.has(sha256)) continue;
    images.delete(sha256);
    url.then(URL.revokeObjectURL, () => {});
  }
  near.forEach(fetchImage);
}

async function show() {
  isReady = false;
  const suspect = queue[0];
  $("left").textContent = `${left.toLocaleString("en")} left`;
  $("progress").value = $("progress").max - left;
  $("undo").hidden = past.length === 0;
  $("suspect").hidden = !suspect;
  $("end").hidden = Boolean(suspect);
  $("classes").hidden = !suspect || classes.length <= FEW;
  fetchAhead();
  if (!suspect) {
    showEnd();
    return;
  }
  const { label, path, split } = suspect;
  const [question, fact] = describeSuspect(suspect);
  $("question").textContent = question;
  $("facts").textContent = `${fact}\n${path} (${split})`;
  setAction("keep", `Keep “${label}”`);
  $("other").hidden = !other(suspect);
  setAction("other", `Change to “${other(suspect)}”`);
  try {
    $("image").src = await fetchImage(suspect);
    await $("image").decode();
    $("image").hidden = false;
    $("unseen").hidden = true;
  } catch (problem) {
    images.delete(suspect.sha256);
    $("image").hidden = true;
    $("unseen").hidden = false;
    $("unseen").textContent = `This image cannot be shown. ${problem.message}`;
  }
  $("image").alt = `Image labelled “${label}”`;
  isReady = true;
}

function showEnd() {
  $("again").hidden = skipped.length === 0;
  $("end-text").textContent = skipped.length > 0
    ? `All the others are reviewed. ${count(skipped.length, "skipped image")} will be proposed again next time.`
    : "All images are reviewed. Stop the command with Ctrl-C; the next “dvc repro” applies the decisions.";
  isReady = true;
}

function setAction(id, text) {
  $(id).querySelector("span").textContent = text;
}

// With two classes the other one, with more the one that the model suggests, if any.
function other({ label, suggested }) {
  return classes.length === FEW ? classes.find((name) => name !== label) : suggested;
}

// What is asked, and why. An unfamiliar image has no suggested class.
function describeSuspect({ label, suggested, prob, times_threshold: times }) {
  return suggested === null
    ? [`Labelled “${label}”. Is it a face?`, `It is ${times.toFixed(2)} times as unfamiliar as the limit for faces.`]
    : [`Labelled “${label}”. The model suggests “${suggested}”.`, `It gives “${label}” a probability of ${percent(prob)}.`];
}

function describe({ label }, decision) {
  if (decision === null) return "Skipped.";
  if (decision === "") return "Removed.";
  return decision === label ? `Kept “${label}”.` : `Changed to “${decision}”.`;
}

// Runs a change and shows what follows; the page does not move on before it is saved.
async function act(change) {
  if (!isReady) return;
  isReady = false;
  $("problem").textContent = "";
  try {
    $("status").textContent = await change();
  } catch (problem) {
    $("problem").textContent = problem.message;
    if (problem.status === CONFLICT) await update();
  }
  await show();
}

// Takes in what other windows and people did; what this window skipped stays skipped. A damaged file changes nothing.
async function update() {
  let found;
  try {
    found = await (await ask("suspects")).json();
  } catch {
    return;
  }
  left = found.open.length;
  const open = new Set(found.open.map(({ sha256 }) => sha256));
  skipped = skipped.filter(({ sha256 }) => open.has(sha256));
  const later = new Set(skipped.map(({ sha256 }) => sha256));
  queue = found.open.filter(({ sha256 }) => !later.has(sha256));
  const made = new Map(found.decided.map(({ sha256, decision }) => [sha256, decision]));
  past = past.filter(({ suspect: { sha256 }, decision }) => (
    decision === null ? later.has(sha256) : made.get(sha256) === decision
  ));
}

const decide = (choose) => act(async () => {
  const suspect = queue[0];
  const decision = choose(suspect);
  ({ left } = await (await ask(`decisions/${suspect.sha256}?label=${encodeURIComponent(decision)}`, "PUT")).json());
  queue.shift();
  past.push({ suspect, decision });
  return describe(suspect, decision);
});

const skip = () => act(async () => {
  const suspect = queue.shift();
  skipped.push(suspect);
  past.push({ suspect, decision: null });
  return describe(suspect, null);
});

const lookAgain = () => act(async () => {
  queue = skipped;
  skipped = [];
  past = past.filter(({ decision }) => decision !== null);
  return "";
});

const undo = () => act(async () => {
  const { suspect, decision } = past.at(-1);
  if (decision === null) skipped.pop();
  else ({ left } = await (await ask(`decisions/${suspect.sha256}`, "DELETE")).json());
  past.pop();
  queue.unshift(suspect);
  return `Undone: ${describe(suspect, decision)}`;
});

const ACTIONS = {
  keep: () => decide(({ label }) => label),
  other: () => decide(other),
  remove: () => decide(() => ""),
  skip,
  undo,
  again: lookAgain,
};
const KEYS = { k: "keep", o: "other", r: "remove", s: "skip", u: "undo" };

function press(event) {
  const isUndo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
  // A key that is held down must not decide about images that nobody has looked at.
  if (event.repeat) {
    if (event.key === "Enter") event.preventDefault();
    return;
  }
  if (event.altKey || ((event.ctrlKey || event.metaKey) && !isUndo)) return;
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  const name = classes.length > FEW && digit ? classes[digit[1] - 1] : undefined;
  const action = isUndo ? "undo" : KEYS[event.key.toLowerCase()];
  const button = name !== undefined ? $("classes").children[digit[1] - 1]
    : action === "skip" && !$("end").hidden ? $("again") : action && $(action);
  if (!button || button.hidden || button.closest("[hidden]")) return;
  event.preventDefault();
  button.click();
}

function buildClasses() {
  $("classes").replaceChildren(...classes.map((name, place) => {
    const button = document.createElement("button");
    button.type = "button";
    if (place < DIGITS) {
      const key = document.createElement("kbd");
      key.textContent = place + 1;
      button.append(key);
      button.setAttribute("aria-keyshortcuts", place + 1);
    }
    button.append(name);
    button.addEventListener("click", () => decide(() => name));
    return button;
  }));
}

async function start() {
  try {
    const found = await (await ask("suspects")).json();
    classes = found.classes;
    queue = found.open;
    left = queue.length;
    past = found.decided.map(({ decision, ...suspect }) => ({ suspect, decision }));
    $("progress").max = left + past.length;
    buildClasses();
    await show();
  } catch (problem) {
    $("problem").textContent = problem.message;
  }
}

for (const [id, action] of Object.entries(ACTIONS)) $(id).addEventListener("click", action);
document.addEventListener("keydown", press);
start();
