"use strict";

const NAMES = {
  accuracy: "accuracy",
  robust_accuracy: "accuracy, pictures corrupted in ten ways",
  framing_accuracy: "accuracy, face moved, stretched or resized",
  occlusion_accuracy: "accuracy, part of the face covered",
  roc_auc: "area under the ROC curve",
  loss: "loss (cross entropy, nats)",
  ece: "expected calibration error",
  worst_group_balanced_accuracy: "balanced accuracy of the worst group",
  group_gap: "by which the best group is better",
  unfamiliar_share: "pictures marked as unfamiliar",
  nonfaces_unfamiliar_share: "pictures without a face marked as unfamiliar",
};
const SHARES = new Set(["accuracy", "robust_accuracy", "framing_accuracy", "occlusion_accuracy", "ece",
  "worst_group_balanced_accuracy", "group_gap", "unfamiliar_share", "nonfaces_unfamiliar_share"]);

function listFigures(metrics) {
  // Classes may be called low and high: their recalls are no ends of an interval.
  const isEnd = (name) => /_(low|high)$/.test(name) && name.replace(/_(low|high)$/, "") in metrics;
  const rows = Object.keys(metrics).filter((name) => !isEnd(name)).map((name) => {
    const recall = name.startsWith("recall_");
    const show = (value) => (recall || SHARES.has(name) ? percent(value) : String(Number(value.toPrecision(4))));
    const low = metrics[`${name}_low`], high = metrics[`${name}_high`];
    const span = low === undefined || high === undefined ? "" : `${show(low)} to ${show(high)}`;
    return [NAMES[name] || (recall ? `recall of ${name.slice(7)}` : name), show(metrics[name]), span];
  });
  return [["figure", "value", "95 % interval"], ...rows];
}

function listFacts(model) {
  return [
    ["fact", "value"],
    ["network", model.network || "unknown"],
    ["classes", model.classes.join(", ")],
    ["pictures are scaled to", `${model.image_size} × ${model.image_size} px`],
    ["uncertain", `below ${percent(model.threshold)}`],
    ["takes", listAccepted(model.accepts)],
    ["registry version", model.registry_version || "not from a registry"],
    ["calibration", describeCalibration(model) || "on the validation set of its training"],
    ["made by version", model.version || "unknown"],
    ["training data", model.data_digest || "unknown"],
  ];
}

async function start() {
  const find = (id) => document.getElementById(id);
  let model;
  try {
    const answer = await fetch("model");
    model = await answer.json();
  } catch {
    find("status").textContent = "The service does not answer.";
    return;
  }
  const measured = tabulateMeasured(model);
  if (measured) find("figures").append(measured);
  const figures = listFigures(model.metrics);
  find("test").append(figures.length > 1 ? table(figures) : element("p", "The model file names none."));
  renderMarkdown(model.limits, find("limits"));
  find("facts").append(table(listFacts(model)));
}

start();
