// Shows openapi.json: each operation, a form that sends it, and the curl command for it. Text is only ever set as text.

const byId = (id) => document.getElementById(id);
const json = (value) => JSON.stringify(value, null, 2);
let description = null;

/** Return an element; attributes that start with "on" are listeners, and children are elements or text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== undefined && child !== false));
  return made;
}

function resolved(value) {
  if (!value?.$ref) return value;
  return value.$ref.slice(2).split("/").reduce((inner, key) => inner[key.replaceAll("~1", "/")], description);
}

/** Return text whose words in backquotes are code. */
function marked(text = "") {
  return text.split("`").map((part, place) => (place % 2 ? element("code", {}, part) : part));
}

/** Return what a schema allows, in a few words. */
function words(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(words).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  const of = schema.type === "array" && schema.items ? ` of ${words(schema.items)}` : "";
  const { minimum, maximum, minItems, maxItems, minLength, pattern, format } = schema;
  const range = minimum !== undefined || maximum !== undefined ? ` ${minimum ?? ""}..${maximum ?? ""}` : "";
  const size = minItems !== undefined || maxItems !== undefined ? ` (${minItems ?? 0}..${maxItems ?? ""})` : "";
  const initial = "default" in schema ? `, default ${JSON.stringify(schema.default)}` : "";
  const rest = [minLength && "not empty", pattern, format].filter(Boolean).map((text) => `, ${text}`).join("");
  return `${schema.type ?? "any"}${of}${range}${size}${rest}${initial}`;
}

function table(rows) {
  return element("table", {}, element("tbody", {}, rows.map(([head, ...cells]) =>
    element("tr", {}, element("th", { scope: "row" }, head), cells.map((cell) => element("td", {}, cell))))));
}

function copyButton(text) {
  const status = element("span", { role: "status" });
  async function copy() {
    // Outside https and localhost a browser has no clipboard for pages.
    const copied = await navigator.clipboard?.writeText(text()).then(() => true, () => false);
    status.textContent = copied ? "Copied." : "Not allowed by the browser: select the text and copy it.";
    setTimeout(() => (status.textContent = ""), 4_000);
  }
  return [element("button", { type: "button", onclick: copy }, "Copy"), status];
}

/** Return an answer's text; of a stream, which has no end, what comes in the first seconds. */
async function textOf(answer) {
  if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) return answer.text();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  setTimeout(() => reader.cancel(), 3_000);
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
  return text;
}

/** Ask before a request that changes data is sent: exactly what would be sent is shown. */
function confirmed(method, address, body) {
  const dialog = byId("confirm");
  byId("confirm-about").textContent = method === "DELETE" ? "A deletion cannot be undone." : "This request writes to the database.";
  byId("confirm-request").textContent = `${method} ${address}${body ? `\n\n${body}` : ""}`;
  byId("confirm-send").textContent = `Send ${method}`;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "send"), { once: true }));
}

function input(parameter, name) {
  const { schema } = parameter;
  const example = schema.examples?.[0] ?? parameter.example;
  const field = element("input", { id: name, required: parameter.required, autocomplete: "off", spellcheck: "false", "aria-describedby": `${name}-about` });
  const required = parameter.required && element("span", { class: "required" }, " required");
  const row = element("div", { class: "parameter" },
    element("label", { for: name }, element("code", {}, parameter.name), ` in ${parameter.in}`, required),
    element("p", { id: `${name}-about` }, marked(parameter.description), " ", element("i", {}, words(schema)), example !== undefined && [" Example: ", element("code", {}, String(example))]),
    field);
  return { parameter, field, row };
}

/** Return the form of an operation. What it sends is what was typed: an example is filled in when it is asked for. */
function form(path, method, operation) {
  const id = operation.operationId;
  const inputs = (operation.parameters ?? []).map(resolved).map((parameter) => input(parameter, `${id}-${parameter.name}`));
  const [type, content] = Object.entries(resolved(operation.requestBody)?.content ?? {})[0] ?? [];
  const body = content && element("textarea", { id: `${id}-body`, required: true, spellcheck: "false" });
  const changes = Boolean(operation.security) || ["put", "patch", "delete"].includes(method);
  const status = element("p", { role: "status" });
  const answer = element("pre", { hidden: true });
  const command = element("pre", { class: "curl" });
  const value = (place) => inputs.filter(({ parameter, field }) => parameter.in === place && field.value);

  function address() {
    const filled = value("path").reduce((made, { parameter, field }) => made.replace(`{${parameter.name}}`, encodeURIComponent(field.value)), path);
    const query = new URLSearchParams(value("query").map(({ parameter, field }) => [parameter.name, field.value]));
    return filled.slice(1) + (query.size ? `?${query}` : "");
  }

  function headers() {
    const named = value("header").map(({ parameter, field }) => [parameter.name, field.value]);
    return type ? [["Content-Type", type], ...named] : named;
  }

  /** The command for a shell; a key stays out of it, because commands are kept and shown around. */
  function curl() {
    const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    const url = decodeURI(new URL(".", document.baseURI).href) + address();
    const key = byId("key").value && operation.security ? ' \\\n  -H "Authorization: Bearer $LADDER_KEY"' : "";
    const told = headers().map(([name, text]) => ` \\\n  -H ${quoted(`${name}: ${text}`)}`).join("");
    return `curl${method === "get" ? "" : ` -X ${method.toUpperCase()}`} ${quoted(url)}${told}${key}${body?.value ? ` \\\n  -d ${quoted(body.value)}` : ""}`;
  }

  async function send(event) {
    event.preventDefault();
    const shown = `${method.toUpperCase()} /${address()}`;
    if (changes && !(await confirmed(method.toUpperCase(), `/${address()}`, body?.value))) {
      status.textContent = "Nothing was sent.";
      return;
    }
    const told = new Headers();
    status.textContent = "Waiting for the answer.";
    answer.hidden = true;
    try {
      for (const [name, text] of headers()) told.set(name, text);
      const key = byId("key").value;
      if (key && operation.security) told.set("Authorization", `Bearer ${key}`);
      const got = await fetch(address() || ".", { method: method.toUpperCase(), headers: told, body: body?.value, cache: "no-store" });
      const text = await textOf(got);
      const isJson = /\bjson\b/.test(got.headers.get("content-type") ?? "") && text;
      status.textContent = `${shown}: ${got.status} ${got.statusText}`;
      const lines = [...got.headers].map((pair) => pair.join(": "));
      answer.textContent = [isJson ? json(JSON.parse(text)) : text, lines.join("\n")].filter(Boolean).join("\n\n");
      answer.hidden = false;
    } catch (error) {
      status.textContent = `${shown}: no answer (${error.message}).`;
    }
  }

  const made = element("form", { onsubmit: send, oninput: () => (command.textContent = curl()) },
    inputs.length > 0 && element("h3", {}, "Parameters"), inputs.map(({ row }) => row),
    body && element("h3", {}, element("label", { for: `${id}-body` }, "Body: ", words(content.schema), element("span", { class: "required" }, " required"))), body,
    element("div", { class: "buttons" },
      element("button", { class: method === "delete" ? "danger" : undefined }, "Send"),
      body && element("button", { type: "button", onclick: () => { body.value = json(content.example ?? {}); command.textContent = curl(); } }, "Fill in the example")),
    changes && element("p", { class: "quiet" }, "This changes data. You are asked before it is sent."),
    status, answer,
    element("h3", {}, "Command"), command, element("div", { class: "buttons" }, copyButton(curl)));
  command.textContent = curl();
  byId("key").addEventListener("input", () => (command.textContent = curl()));
  return made;
}

function answers(operation) {
  return table(Object.entries(operation.responses).map(([status, reference]) => {
    const answer = resolved(reference);
    const examples = Object.entries(answer.content ?? {}).flatMap(([type, { schema, example, examples: named = {} }]) => [
      element("div", {}, type, ": ", words(schema)),
      ...(example === undefined ? [] : [example]).concat(Object.values(named).map(({ value }) => value))
        .map((value) => element("pre", {}, typeof value === "string" ? value : json(value))),
    ]);
    const headers = Object.entries(answer.headers ?? {}).map(([name, header]) =>
      element("div", {}, element("code", {}, name), ": ", resolved(header).description ?? ""));
    return [element("b", {}, status), [answer.description, ...examples, headers.length > 0 && element("details", {}, element("summary", {}, "Headers"), headers)]];
  }));
}

function shown(path, method, operation) {
  const summary = element("summary", {}, element("span", { class: `method ${method}` }, method), " ", element("code", {}, path), ` ${operation.summary ?? ""}`);
  const details = element("details", { id: operation.operationId }, summary);
  // Most are never opened.
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    const key = operation.security && " Needs a key if this service has keys.";
    details.append(
      element("p", {}, marked(operation.description), key),
      element("p", {}, element("a", { href: `#${operation.operationId}` }, "Link to this operation")),
      form(path, method, operation), element("h3", {}, "Answers"), answers(operation));
  });
  details.dataset.text = `${method} ${path} ${json(operation)}`.toLowerCase();
  return details;
}

/** Open what the address names. */
function follow() {
  const target = byId(decodeURIComponent(location.hash.slice(1)));
  if (target?.matches("main details")) {
    target.open = true;
    target.firstElementChild.focus({ preventScroll: true });
    target.scrollIntoView();
  }
}

function filter() {
  const text = byId("search").value.trim();
  const wanted = text.toLowerCase().split(/\s+/);
  for (const section of document.querySelectorAll("main > section")) {
    const all = [...section.querySelectorAll(":scope > details")];
    for (const details of all) {
      details.hidden = !wanted.every((word) => details.dataset.text.includes(word));
      const link = document.querySelector(`nav a[href="#${details.id}"]`);
      if (link) link.parentElement.hidden = details.hidden;
    }
    const group = document.querySelector(`nav section[data-tag="${section.dataset.tag}"]`);
    if (group) group.hidden = all.every((details) => details.hidden);
    section.hidden = all.every((details) => details.hidden);
  }
  const none = !document.querySelector("main > section:not([hidden])");
  byId("none").textContent = none ? `No match for “${text}”.` : "";
}

function draw() {
  const groups = Map.groupBy(
    Object.entries(description.paths).flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ path, method, operation }))),
    ({ operation }) => operation.tags?.[0] ?? "Other");
  for (const [tag, all] of groups) {
    byId("operations").append(element("section", { "data-tag": tag }, element("h2", {}, tag), all.map(({ path, method, operation }) => shown(path, method, operation))));
    byId("contents").append(element("section", { "data-tag": tag }, element("h2", {}, tag), element("ul", {}, all.map(({ path, method, operation }) => element("li", {},
      element("a", { href: `#${operation.operationId}` }, element("span", { class: `method ${method}` }, method), element("span", {}, path)))))));
  }
  const schemas = Object.entries(description.components.schemas).map(([name, { description: about, properties = {}, required = [] }]) => {
    const rows = Object.entries(properties).map(([key, field]) => [
      [element("code", {}, key), required.includes(key) && element("span", { class: "required" }, " required")],
      [words(field), element("br"), marked(field.description)]]);
    return element("details", { "data-text": `${name} ${about ?? ""} ${Object.keys(properties).join(" ")}`.toLowerCase() },
      element("summary", {}, element("code", {}, name)), element("p", {}, marked(about)), rows.length > 0 && table(rows));
  });
  byId("operations").append(element("section", {}, element("h2", {}, "Schemas"), schemas));
  byId("version").textContent = description.info.version;
  byId("about").append(...marked(description.info.description.trim()));
}

const wide = matchMedia("(min-width: 62rem)");
const unfold = () => (byId("contents").open = wide.matches);
try {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  description = await answer.json();
  draw();
  byId("search").addEventListener("input", filter);
  addEventListener("hashchange", follow);
  wide.addEventListener("change", unfold);
  unfold();
  follow();
} catch (error) {
  byId("none").textContent = `The description cannot be read (${error.message}). Reload the page to try again.`;
}
