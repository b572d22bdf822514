// Elements and words. Text is only ever set as text: a name can be nothing but a name.

const SVG = "http://www.w3.org/2000/svg";

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

/** Return an element; attributes that start with "on" are listeners, children are elements or text. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Return an element of a drawing. */
export function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

export const byId = (id) => document.getElementById(id);

const wholeFormat = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const shareFormat = new Intl.NumberFormat("en", { minimumFractionDigits: 0, maximumFractionDigits: 2 });
const clockFormat = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

/** Return a number with separators; a dash for what is not known. */
export const whole = (value) => (Number.isFinite(value) ? wholeFormat.format(value) : "–");
export const share = (value) => (Number.isFinite(value) ? `${shareFormat.format(value)} %` : "–");
export const clock = (date) => clockFormat.format(date);
export const day = (text) => dayFormat.format(new Date(`${text}T00:00:00Z`));
export const players = (count) => (count === 1 ? "1 player" : `${whole(count)} players`);

/** Set an element's text unless it says so already: a screen reader would read it again. */
export function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Return the address of a player's card. */
export const cardAddress = (id) => `#/users/${encodeURIComponent(id)}`;

/** Return the id that an address names, or null. */
export function cardOf(hash) {
  const found = /^#\/users\/([^/]+)$/.exec(hash);
  if (!found) return null;
  try {
    const id = decodeURIComponent(found[1]);
    return /^[A-Za-z0-9_.:-]{1,64}$/.test(id) ? id : null;
  } catch {
    return null;
  }
}
