// Finds players by the beginning of their names, as a combobox: the focus stays in the field, arrow keys choose.

import { Refusal, read, wait } from "./api.js";
import { byId, cardAddress, element, say, whole } from "./dom.js";

const PAUSE_MS = 160;
const MOST = 8;

export class Search {
  #field = byId("find");
  #box = byId("found-box");
  #list = byId("found");
  #abort = new AbortController();
  #chosen = -1;

  constructor() {
    this.#field.addEventListener("input", () => this.#ask());
    this.#field.addEventListener("keydown", (event) => this.#key(event));
    this.#field.addEventListener("focus", () => this.#list.childElementCount && this.#open(true));
    this.#field.addEventListener("blur", () => this.#open(false));
    // The field must not lose the focus before the click arrives.
    this.#box.addEventListener("pointerdown", (event) => event.preventDefault());
    document.addEventListener("keydown", (event) => this.#shortcut(event));
  }

  focus() {
    this.#field.focus();
  }

  #shortcut(event) {
    const typing = event.target.closest?.("input, textarea, [contenteditable]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog:modal")) return;
    event.preventDefault();
    this.#field.select();
    this.focus();
  }

  async #ask() {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const prefix = this.#field.value.trim();
    if (!prefix) {
      this.#show([], "");
      return;
    }
    try {
      await wait(PAUSE_MS, signal);
      const found = await read(`users/search?limit=${MOST}&username=${encodeURIComponent(prefix)}`, { signal });
      this.#show(found.items, prefix);
    } catch (error) {
      if (signal.aborted) return;
      const busy = error instanceof Refusal && (error.status === 429 || error.status === 503);
      this.#show([], "", busy ? "The service asks to wait a moment." : "The search gets no answer.");
    }
  }

  #show(items, prefix, trouble = "") {
    this.#choose(-1);
    this.#list.replaceChildren(...items.map((user, place) => this.#option(user, place, prefix)));
    const none = prefix && !items.length ? `Nobody's name begins with “${prefix}”.` : "";
    const many = items.length === MOST ? "At most eight are shown. Type on for others." : "";
    say(byId("found-note"), trouble || none || many);
    say(byId("found-count"), trouble || none || (items.length ? `${items.length} found.` : ""));
    this.#list.hidden = !items.length;
    this.#open(Boolean(prefix || trouble));
  }

  #option({ id, username, rank, rating }, place, prefix) {
    const name = String(username);
    return element("li", { role: "option", id: `found-${place}`, "aria-selected": "false", "data-id": id, onclick: () => this.#go(place) },
      element("span", { class: "who" }, element("mark", {}, name.slice(0, prefix.length)), name.slice(prefix.length)),
      element("span", { class: "where" }, rank === null ? "" : `#${whole(rank)}`),
      element("span", { class: "what" }, whole(rating)));
  }

  #open(open) {
    this.#box.hidden = !open;
    this.#field.setAttribute("aria-expanded", String(open && !this.#list.hidden));
    if (!open) this.#choose(-1);
  }

  #choose(place) {
    this.#list.children[this.#chosen]?.setAttribute("aria-selected", "false");
    this.#chosen = place;
    const option = this.#list.children[place];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) this.#field.setAttribute("aria-activedescendant", option.id);
    else this.#field.removeAttribute("aria-activedescendant");
  }

  #go(place) {
    const option = this.#list.children[place];
    if (!option) return;
    this.#field.value = "";
    this.#show([], "");
    const address = cardAddress(option.dataset.id);
    if (location.hash === address) dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = address;
  }

  #key(event) {
    const count = this.#list.childElementCount;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.isComposing) return;
    if (step && count) {
      event.preventDefault();
      this.#box.hidden && this.#open(true);
      // One place more than there are options: in it none is chosen.
      this.#choose(((this.#chosen + 1 + step + count + 1) % (count + 1)) - 1);
    } else if (event.key === "Enter" && count && !this.#box.hidden) {
      event.preventDefault();
      this.#go(Math.max(0, this.#chosen));
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      if (this.#box.hidden) {
        this.#field.value = "";
        this.#show([], "");
      } else this.#open(false);
    }
  }
}
