// Finds players by the beginning of their names, as a combobox: the focus stays in the field, arrow keys choose.

import { Refusal, read, readHealth, wait } from "./api.js";
import { byId, cardAddress, element, say, whole } from "./dom.js";

const PAUSE_MS = 160;
const MOST = 8;
/** When it is said that an answer is on its way, and when that there is none yet; from the pause after the last key. */
const WAITING_MS = 250;
const LATE_MS = 1_500;
const TRIES = 100;
const LATE = "No answer yet. Still searching.";
const LONGEST_PAUSE_MS = 4_000;

/** Return why a search has failed. */
async function why(error) {
  if (error instanceof Refusal && error.status === 429) return "Too many requests. Searching again in a moment.";
  const health = await readHealth().catch(() => null);
  if (!health) return "The server cannot be reached. Still trying.";
  // Names are searched in Postgres alone.
  if (health.postgres?.status === "down") return "The search needs Postgres, which is away. Still trying.";
  return LATE;
}

export class Search {
  #field = byId("find");
  #box = byId("found-box");
  #list = byId("found");
  #abort = new AbortController();
  #chosen = -1;

  constructor() {
    this.#field.addEventListener("input", () => this.#ask());
    this.#field.addEventListener("keydown", (event) => this.#key(event));
    this.#field.addEventListener("focus", () => this.#open(Boolean(byId("found-note").textContent || this.#list.childElementCount)));
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
    const waiting = [];
    const failed = async (error) => {
      const words = await why(error);
      if (signal.aborted) return;
      waiting.forEach(clearTimeout);
      this.#tell(words);
    };
    try {
      await wait(PAUSE_MS, signal);
      waiting.push(setTimeout(() => this.#tell("Searching…"), WAITING_MS));
      waiting.push(setTimeout(() => this.#tell(LATE), LATE_MS));
      const address = `users/search?limit=${MOST}&username=${encodeURIComponent(prefix)}`;
      const found = await read(address, { signal, tries: TRIES, longest: LONGEST_PAUSE_MS, failed });
      this.#show(found.items, prefix);
    } catch (error) {
      if (!signal.aborted) this.#tell("The search does not work right now.");
    } finally {
      waiting.forEach(clearTimeout);
    }
  }

  /** Say something in the place of players. */
  #tell(words) {
    this.#show([], "", words);
  }

  #show(items, prefix, words = "") {
    this.#choose(-1);
    this.#list.replaceChildren(...items.map((user, place) => this.#option(user, place, prefix)));
    const none = prefix && !items.length ? `No name begins with “${prefix}”.` : "";
    const many = items.length === MOST ? "Only eight are shown. Type more letters to narrow it down." : "";
    say(byId("found-note"), words || none || many);
    say(byId("found-count"), words || none || (items.length ? `${items.length} found.` : ""));
    this.#list.hidden = !items.length;
    this.#open(Boolean(prefix || words) && document.activeElement === this.#field);
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
      } else {
        this.#abort.abort();
        this.#open(false);
      }
    }
  }
}
