// Shows /openapi.json: what can be asked, what is answered, and a form to ask it. Text is only ever set as text.

const description = await (await fetch("openapi.json")).json();

/** Return an element; attributes that start with "on" are listeners, and children are elements or text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== undefined));
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

const json = (value) => JSON.stringify(value, null, 2);

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
  const initial = "default" in schema ? `, ${JSON.stringify(schema.default)} if not given` : "";
  const rest = [minLength && "not empty", pattern, format].filter(Boolean).map((text) => `, ${text}`).join("");
  return `${schema.type ?? "any"}${of}${range}${size}${rest}${initial}`;
}

function table(rows) {
  return element("table", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, ...[cell].flat())))));
}

function fields(schema) {
  const required = new Set(schema.required ?? []);
  return table(Object.entries(schema.properties ?? {}).map(([name, field]) => [
    [element("code", {}, name), required.has(name) ? "" : " optional"],
    [words({ ...field, description: undefined }), element("br"), ...marked(field.description)],
  ]));
}

/** Return an answer's text; of a stream, which has no end, what comes in the first seconds. */
async function said(got) {
  if (!got.headers.get("content-type")?.startsWith("text/event-stream")) return got.text();
  const reader = got.body.pipeThrough(new TextDecoderStream()).getReader();
  setTimeout(() => reader.cancel(), 3000);
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
  return text;
}

/** Return the rows of parameters with an input each, and `ask`, which sends what they hold. */
function form(path, method, operation) {
  const inputs = (operation.parameters ?? []).map(resolved).map((parameter) => ({
    parameter,
    input: element("input", { placeholder: parameter.in === "path" ? (parameter.schema.examples?.[0] ?? "") : "", "aria-label": parameter.name }),
  }));
  const [type, content] = Object.entries(resolved(operation.requestBody)?.content ?? {})[0] ?? [];
  const body = content && element("textarea", { "aria-label": "Body", spellcheck: "false" }, json(content.example ?? {}));
  const answer = element("pre", { hidden: true, role: "status" });

  async function ask() {
    let address = path;
    const query = new URLSearchParams();
    const headers = new Headers(type ? { "Content-Type": type } : {});
    for (const { parameter: { in: place, name }, input } of inputs) {
      const value = input.value || (place === "path" ? input.placeholder : "");
      if (place === "path") address = address.replace(`{${name}}`, encodeURIComponent(value));
      else if (value && place === "query") query.append(name, value);
      else if (value) headers.set(name, value);
    }
    const key = document.getElementById("key").value;
    if (key && operation.security) headers.set("Authorization", `Bearer ${key}`);
    if (query.size) address += `?${query}`;
    answer.hidden = false;
    answer.textContent = "...";
    try {
      const got = await fetch(address, { method: method.toUpperCase(), headers, body: body?.value, cache: "no-store" });
      const text = await said(got);
      const told = [...got.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
      const shown = /\bjson\b/.test(got.headers.get("content-type") ?? "") && text ? json(JSON.parse(text)) : text;
      answer.textContent = `${method.toUpperCase()} ${address}\n\n${got.status} ${got.statusText}\n${told}\n\n${shown}`;
    } catch (error) {
      answer.textContent = `${method.toUpperCase()} ${address}\n\n${error}`;
    }
  }

  const rows = inputs.map(({ parameter, input }) => [
    [element("code", {}, parameter.name), parameter.required ? element("span", { class: "required" }, " required") : "", element("br"), parameter.in],
    [...marked(parameter.description), " ", element("i", {}, words(parameter.schema)), input],
  ]);
  return [
    element("h3", {}, "Parameters"), table(rows),
    body && element("h3", {}, "Body: ", words(content.schema)), body,
    element("button", { onclick: ask }, "Send"), answer,
  ].filter(Boolean);
}

function answers(operation) {
  return table(Object.entries(operation.responses).map(([status, reference]) => {
    const answer = resolved(reference);
    const examples = Object.entries(answer.content ?? {}).flatMap(([type, { schema, example, examples = {} }]) => [
      element("div", {}, type, ": ", words(schema)),
      ...(example === undefined ? [] : [example]).concat(Object.values(examples).map(({ value }) => value))
        .map((value) => element("pre", {}, typeof value === "string" ? value : json(value))),
    ]);
    const headers = Object.entries(answer.headers ?? {}).map(([name, header]) =>
      element("div", { title: resolved(header).description }, element("code", {}, name), `: ${resolved(header).example ?? ""}`));
    return [element("b", {}, status), [answer.description, ...examples, element("details", {}, element("summary", {}, "Headers"), ...headers)]];
  }));
}

function shown(path, method, operation) {
  const summary = element("summary", {}, element("span", { class: `method ${method}` }, method), element("code", {}, path), ` ${operation.summary ?? ""}`);
  const details = element("details", { id: operation.operationId }, summary);
  // Most are never opened.
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    const key = operation.security ? " Needs a key where the operator has set keys." : "";
    details.append(element("p", {}, ...marked(operation.description), key), ...form(path, method, operation), element("h3", {}, "Answers"), answers(operation));
  });
  details.dataset.text = `${method} ${path} ${json(operation)}`.toLowerCase();
  return details;
}

const groups = new Map();
for (const [path, item] of Object.entries(description.paths)) {
  for (const [method, operation] of Object.entries(item)) {
    const tag = operation.tags?.[0] ?? "";
    if (!groups.has(tag)) groups.set(tag, element("section", {}, element("h2", {}, tag)));
    groups.get(tag).append(shown(path, method, operation));
  }
}
document.getElementById("version").textContent = description.info.version;
document.getElementById("about").append(...marked(description.info.description.trim()));
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("operations").replaceChildren(...groups.values());
document.getElementById("schemas").replaceChildren(...Object.entries(description.components.schemas).map(([name, schema]) =>
  element("details", {}, element("summary", {}, element("code", {}, name)), element("p", {}, ...marked(schema.description)), fields(schema))));
document.getElementById("search").addEventListener("input", ({ target }) => {
  const wanted = target.value.toLowerCase().split(/\s+/);
  for (const group of groups.values()) {
    const found = [...group.querySelectorAll(":scope > details")];
    for (const details of found) details.hidden = !wanted.every((word) => details.dataset.text.includes(word));
    group.hidden = found.every((details) => details.hidden);
  }
});
if (location.hash) document.getElementById(location.hash.slice(1))?.setAttribute("open", "");
