"use strict";

let known = {};

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  made.append(text, ...children);
  return made;
}

// A paragraph in which `code` is marked.
function paragraph(text) {
  const pieces = text.split("`").map((piece, place) => (place % 2 ? element("code", piece) : piece));
  return element("p", ...pieces);
}

const resolve = (schema) => (schema && schema.$ref ? known[schema.$ref.split("/").pop()] : schema);

// Says a schema in a line or a few, as a sketch of the JSON.
function sketch(schema, indent = "") {
  const one = resolve(schema) || {};
  const choices = one.anyOf || one.oneOf;
  if (choices) return choices.map((choice) => sketch(choice, indent)).join(" | ");
  if (one.type === "array") return `[${sketch(one.items, indent)}, …]`;
  if (one.type === "object" && one.properties) {
    const lines = Object.entries(one.properties).map(([name, inner]) => {
      const about = inner.description ? `   // ${inner.description}` : "";
      return `${indent}  "${name}": ${sketch(inner, `${indent}  `)},${about}`;
    });
    return `{\n${lines.join("\n")}\n${indent}}`;
  }
  if (one.type === "object") return `{"…": ${one.additionalProperties ? sketch(one.additionalProperties, indent) : "…"}}`;
  return one.format || one.type || "any";
}

function example(path, method, operation) {
  const form = operation.requestBody?.content["multipart/form-data"]?.schema;
  const fields = form ? Object.keys(form.properties).map((name) => ` -F ${name}=@face.jpg`).join("") : "";
  const auth = operation.security?.length ? " -H 'Authorization: Bearer KEY'" : "";
  return `curl${method === "post" ? "" : ` -X ${method.toUpperCase()}`}${auth}${fields} ${new URL(path.slice(1), location.href)}`.replace(" -X GET", "");
}

function show(path, method, operation) {
  const article = element("article", element("h2", `${method.toUpperCase()} ${path}`), paragraph(operation.summary || ""));
  if (operation.description) article.append(paragraph(operation.description));
  const command = element("pre", example(path, method, operation));
  command.className = "command";
  article.append(command);
  const body = operation.requestBody?.content;
  if (body) {
    const [kind, { schema }] = Object.entries(body)[0];
    article.append(element("p", `Request, ${kind}:`), element("pre", sketch(schema)));
  }
  const answers = document.createElement("dl");
  let success = null;
  for (const [status, response] of Object.entries(operation.responses)) {
    answers.append(element("dt", status), element("dd", response.description || ""));
    if (status === "200") success = response.content;
  }
  article.append(element("p", "Answers:"), answers);
  if (success) {
    const [kind, { schema }] = Object.entries(success)[0];
    article.append(element("p", `200, ${kind}:`), element("pre", sketch(schema)));
  }
  const failure = Object.entries(operation.responses).find(([status, response]) => status >= "400" && response.content);
  if (failure) article.append(element("p", "4xx and 5xx, application/json:"), element("pre", sketch(failure[1].content["application/json"].schema)));
  return article;
}

async function start() {
  const answer = await fetch("openapi.json");
  const described = await answer.json();
  known = described.components?.schemas || {};
  for (const [path, operations] of Object.entries(described.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      document.getElementById("endpoints").append(show(path, method, operation));
    }
  }
}

start();
