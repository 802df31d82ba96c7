"use strict";

// What the pages share.

// Never rounded to 100 %.
const percent = (value) => value >= 0.99995 && value < 1
  ? ">99.99\u00a0%"
  : `${(100 * value).toFixed(value > 0.9995 && value < 1 ? 2 : 1).replace(/\.0$/, "")}\u00a0%`;
const megabytes = (bytes) => `${Math.round(bytes / 2 ** 20 * 10) / 10} MB`;
// The formats and sizes of pictures that are taken.
function listAccepted({ formats, max_bytes, max_pixels, min_side }) {
  const least = min_side > 1 ? `, at least ${min_side} pixels a side` : "";
  return `${formats.join(", ")}, up to ${megabytes(max_bytes)} and ${Math.round(max_pixels / 1e6)} million pixels${least}`;
}

// The card's Markdown: headings, lists, quotes, tables, paragraphs, **bold** and `code`; anything else is shown as it is.
function renderMarkdown(text, into) {
  into.replaceChildren();
  let list = null, block = null, rows = [];
  for (const line of `${text}\n`.split("\n")) {
    const cells = /^\|(.*)\|\s*$/.exec(line);
    if (cells) {
      rows.push(cells[1].split("|").map((cell) => cell.trim()));
      list = block = null;
      continue;
    }
    if (rows.length > 0) into.append(table(rows));
    rows = [];
    const heading = /^#+\s+(.*)/.exec(line);
    const entry = /^[-*]\s+(.*)/.exec(line);
    const quote = /^>\s*(.*)/.exec(line);
    if (heading || entry || quote || !line.trim()) block = null;
    if (heading) {
      list = null;
      into.append(element("h3", heading[1]));
    } else if (entry) {
      if (!list) into.append(list = document.createElement("ul"));
      list.append(block = element("li", entry[1]));
    } else if (quote) {
      list = null;
      into.append(element("blockquote", quote[1]));
    } else if (line.trim()) {
      if (block) addInline(block, ` ${line.trim()}`);
      else {
        list = null;
        into.append(block = element("p", line.trim()));
      }
    }
  }
}

function element(tag, text) {
  const made = document.createElement(tag);
  addInline(made, text);
  return made;
}

function addInline(parent, text) {
  for (const part of text.split(/(\*\*[^*]+\*\*|`[^`]+`)/)) {
    const kind = part.startsWith("**") ? ["strong", 2] : part.startsWith("`") && part.length > 1 ? ["code", 1] : null;
    if (!kind) parent.append(part);
    else {
      const inline = document.createElement(kind[0]);
      inline.textContent = part.slice(kind[1], -kind[1]);
      parent.append(inline);
    }
  }
}

// The pictures to which `gender-classifier calibrate` fitted the model; an empty text without it.
function describeCalibration({ calibration }) {
  return calibration ? `calibrated on ${calibration.images.toLocaleString("en")} pictures of your own` : "";
}

// The sets that the model was measured on, the worst first; null for a file of an older version, which names none.
function tabulateMeasured({ measured, classes }) {
  if (measured.length === 0) return null;
  const span = (found) => `${percent(found.accuracy_low)} to ${percent(found.accuracy_high)}`;
  const recall = (found, name) => (name in found.recalls ? percent(found.recalls[name]) : "");
  return table([
    ["set", "pictures", "accuracy", "95 % interval", ...classes.map((name) => `recall ${name}`)],
    ...measured.map((found) => [
      found.name, found.images.toLocaleString("en"), percent(found.accuracy), span(found),
      ...classes.map((name) => recall(found, name)),
    ]),
  ]);
}

// Builds a table of texts, in a box in which it scrolls; the first row is its head, a row of dashes is left out.
function table(rows) {
  const made = document.createElement("table");
  rows.filter((row) => !row.every((cell) => /^:?-+:?$/.test(cell))).forEach((row, place) => {
    const line = document.createElement("tr");
    line.append(...row.map((cell) => element(place === 0 ? "th" : "td", cell)));
    made.append(line);
  });
  const box = document.createElement("div");
  box.className = "table";
  box.append(made);
  return box;
}
