// A player's card: beside the board where there is room, else over it. Its address is #/users/<id>.
//
// Opening a card, and going from it to another one, are steps in the browser's history. Closing goes back to the entry
// before the first of them, so that the button Back does not open a closed card again.

import { Refusal, read } from "./api.js";
import { byId, cardAddress, cardOf, clock, element, say, share, whole } from "./dom.js";
import { showHistory } from "./history.js";

const RADIUS = 3;
const DAYS = 30;
const PAUSE_MS = 3_000;
const AGE_MS = 10_000;

const roomy = matchMedia("(min-width: 62rem)");

/** `standing` with {id, username, rating, rank}, or null when the card is closed; `place` when it moves. */
export class Card extends EventTarget {
  #dialog = byId("card");
  #id = null;
  #abort = new AbortController();
  #timer = 0;
  #due = 0;
  #readAt = 0;
  #rating = null;
  #charted = null;
  #shownAt = 0;
  #parts = {};
  /** Entries from the board's to the present one, and whether the first of them is this page's to go back to. */
  #steps = { count: 0, fromBoard: true };
  #isClosing = false;
  #isPrinting = false;

  constructor() {
    super();
    addEventListener("hashchange", () => this.#follow());
    roomy.addEventListener("change", () => this.#id && this.#place());
    // What lies over the page would lie over each sheet of paper.
    for (const [event, isPrinting] of [["beforeprint", true], ["afterprint", false]]) {
      addEventListener(event, () => {
        this.#isPrinting = isPrinting;
        if (this.#id) this.#place();
      });
    }
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.close();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#id && !event.defaultPrevented) this.close();
    });
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.isOver && this.close());
  }

  /** Whether it lies over the page. */
  get isOver() {
    return this.#id !== null && !this.#isBeside;
  }

  get #isBeside() {
    return roomy.matches || this.#isPrinting;
  }

  get slot() {
    return this.#parts.slot;
  }

  /** Open the card that the page's address names. */
  start() {
    if (cardOf(location.hash)) this.#steps.fromBoard = false;
    this.#follow();
  }

  /** Look again soon: ratings have changed. */
  refresh() {
    if (this.#id) this.#soon(0);
  }

  close() {
    if (!this.#id || this.#isClosing) return;
    const { count, fromBoard } = this.#steps;
    const back = fromBoard ? count : count - 1;
    this.#isClosing = true;
    // A browser keeps a limited number of entries.
    if (back && back < history.length) history.go(-back);
    else this.#follow();
  }

  #follow() {
    if (this.#isClosing && cardOf(location.hash)) history.replaceState(null, "", location.pathname + location.search);
    this.#isClosing = false;
    const id = cardOf(location.hash);
    this.#count(id);
    if (id) this.#open(id);
    else if (this.#id) this.#shut();
  }

  #count(id) {
    if (!id) this.#steps = { count: 0, fromBoard: true };
    else if (history.state?.count) this.#steps = history.state;
    else {
      this.#steps = { ...this.#steps, count: this.#steps.count + 1 };
      history.replaceState(this.#steps, "");
    }
  }

  #open(id) {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#id = id;
    this.#rating = this.#charted = null;
    this.#build();
    this.#place();
    this.#say(null);
    this.#read();
  }

  #shut() {
    this.#abort.abort();
    clearTimeout(this.#timer);
    this.#id = null;
    this.dispatchEvent(new Event("place"));
    // Which gives the focus back to whatever had it before.
    this.#dialog.close();
    this.#say(null);
    document.title = "Ladder";
  }

  #place() {
    if (this.#dialog.open && this.#dialog.matches(":modal") === this.#isBeside) this.#dialog.close();
    if (!this.#dialog.open) this.#isBeside ? this.#dialog.show() : this.#dialog.showModal();
    this.dispatchEvent(new Event("place"));
    this.#parts.name.focus({ preventScroll: !this.isOver });
  }

  #build() {
    const parts = {
      name: element("h2", { id: "card-name", tabindex: "-1" }, "Player"),
      rank: element("p", { class: "big" }),
      facts: element("dl", { class: "facts" }),
      trouble: element("p", { class: "trouble", role: "status" }),
      history: element("div", { class: "history" }),
      around: element("ol", { class: "around" }),
      slot: element("div", { class: "slot" }),
    };
    parts.rest = element("div", {},
      parts.rank, parts.facts,
      element("h3", {}, "Around this place"), parts.around,
      element("h3", {}, `Last ${DAYS} days`), parts.history);
    this.#parts = parts;
    const close = element("button", { class: "icon", type: "button", "aria-label": "Close", title: "Close", onclick: () => this.close() }, "✕");
    this.#dialog.replaceChildren(element("header", {}, parts.name, close), parts.trouble, parts.rest, parts.slot);
    // The histogram below would be moved by everything that is on its way.
    parts.rest.hidden = parts.slot.hidden = true;
    this.#dialog.classList.remove("gone");
    say(parts.trouble, "Loading.");
  }

  #soon(ms) {
    const due = Math.max(Date.now() + ms, this.#readAt + PAUSE_MS);
    if (this.#timer && this.#due <= due) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => this.#read(), due - Date.now());
  }

  async #read() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const [id, { signal }] = [this.#id, this.#abort];
    const address = `users/${encodeURIComponent(id)}`;
    let pause = AGE_MS;
    if (!document.hidden || this.#rating === null) {
      this.#readAt = Date.now();
      try {
        const [standing, window] = await Promise.all([
          read(`${address}/rank`, { signal, tries: 1 }), read(`${address}/neighbors?radius=${RADIUS}`, { signal, tries: 1 })]);
        this.#show(standing, window.items);
        if (this.#charted !== standing.rating) this.#readHistory(address, standing, signal);
        this.#rating = standing.rating;
      } catch (error) {
        if (signal.aborted) return;
        this.#fail(error);
        pause = PAUSE_MS;
      }
    }
    if (!signal.aborted) this.#soon(pause);
  }

  async #readHistory(address, now, signal) {
    const { history, slot } = this.#parts;
    let items = [];
    try {
      ({ items } = await read(`${address}/history?days=${DAYS}`, { signal }));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refusal && error.status === 404)) {
        // A chart that is there stays, and the next reading of the card tries again.
        if (!history.childElementCount) history.replaceChildren(element("p", { class: "quiet" }, "No answer yet. Trying again."));
        slot.hidden = false;
        return;
      }
    }
    this.#charted = now.rating;
    showHistory(history, items, now, DAYS);
    slot.hidden = false;
  }

  #fail(error) {
    const gone = error instanceof Refusal && (error.status === 404 || error.status === 400);
    say(this.#parts.trouble, gone ? "There is no such player." : this.#parts.rest.hidden ? "No answer yet. Trying again." : `No answer since ${clock(this.#shownAt)}. Trying again.`);
    this.#dialog.classList.toggle("gone", gone);
    this.#parts.slot.hidden = false;
    if (gone) {
      this.#parts.rest.hidden = true;
      this.#say(null);
    }
  }

  #show(standing, rows) {
    const { name, rank, facts, trouble, rest, around } = this.#parts;
    const own = rows.find((row) => row.id === standing.id);
    const username = own?.username ?? standing.id;
    say(trouble, "");
    this.#shownAt = Date.now();
    rest.hidden = false;
    say(name, username);
    document.title = `${username}, rank ${standing.rank} · Ladder`;
    rank.replaceChildren(element("small", {}, "Rank"), ` ${whole(standing.rank)} `, element("small", {}, `of ${whole(standing.total)}`));
    const told = [["Rating", whole(standing.rating)], ["Position", whole(standing.position)], ["Rated the same or lower", share(standing.percentile)]];
    facts.replaceChildren(...told.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))));
    this.#neighbors(around, rows, standing.id);
    this.#say({ ...standing, username });
  }

  #neighbors(around, rows, id) {
    const focused = around.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    around.replaceChildren(...rows.map((row) => element("li", { class: row.id === id ? "own" : undefined },
      element("span", { class: "rank" }, whole(row.rank)),
      element("a", { href: cardAddress(row.id), "data-id": row.id, "aria-current": row.id === id ? "true" : undefined }, row.username),
      element("span", { class: "rating" }, whole(row.rating)))));
    if (focused) [...around.querySelectorAll("a")].find((link) => link.dataset.id === focused)?.focus({ preventScroll: true });
  }

  #say(standing) {
    this.dispatchEvent(new CustomEvent("standing", { detail: standing && { ...standing, id: this.#id } }));
  }
}
