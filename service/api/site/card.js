// A player's card: beside the board where there is room, else over it. Its address is #/users/<id>.

import { Refusal, read } from "./api.js";
import { byId, cardAddress, cardOf, element, say, share, whole } from "./dom.js";
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
  #parts = {};

  constructor() {
    super();
    addEventListener("hashchange", () => this.#follow());
    roomy.addEventListener("change", () => this.#id && this.#place());
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.close();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#id && !event.defaultPrevented) this.close();
    });
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && !roomy.matches && this.close());
  }

  /** Whether it lies over the page. */
  get isOver() {
    return this.#id !== null && !roomy.matches;
  }

  get slot() {
    return this.#parts.slot;
  }

  /** Open the card that the page's address names. */
  start() {
    this.#follow();
  }

  /** Look again soon: ratings have changed. */
  refresh() {
    if (this.#id) this.#soon(0);
  }

  close() {
    if (cardOf(location.hash)) history.pushState(null, "", location.pathname + location.search);
    this.#follow();
  }

  #follow() {
    const id = cardOf(location.hash);
    if (id) this.#open(id);
    else if (this.#id) this.#shut();
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
    if (this.#dialog.open && this.#dialog.matches(":modal") === roomy.matches) this.#dialog.close();
    if (!this.#dialog.open) roomy.matches ? this.#dialog.show() : this.#dialog.showModal();
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
      element("h3", {}, `Last ${DAYS} days`), parts.history,
      element("h3", {}, "Around this place"), parts.around);
    this.#parts = parts;
    const close = element("button", { class: "icon", type: "button", "aria-label": "Close", title: "Close", onclick: () => this.close() }, "✕");
    this.#dialog.replaceChildren(element("header", {}, parts.name, close), parts.trouble, parts.rest, parts.slot);
    parts.rest.hidden = true;
    say(parts.trouble, "Looking.");
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
    this.#readAt = Date.now();
    if (!document.hidden || this.#rating === null) {
      try {
        const [standing, window] = await Promise.all([
          read(`${address}/rank`, { signal }), read(`${address}/neighbors?radius=${RADIUS}`, { signal })]);
        this.#show(standing, window.items);
        if (this.#charted !== standing.rating) this.#readHistory(address, standing, signal);
        this.#rating = standing.rating;
      } catch (error) {
        if (signal.aborted) return;
        this.#fail(error);
      }
    }
    if (!signal.aborted) this.#soon(AGE_MS);
  }

  async #readHistory(address, now, signal) {
    const { history } = this.#parts;
    let items = [];
    try {
      ({ items } = await read(`${address}/history?days=${DAYS}`, { signal }));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refusal && error.status === 404)) {
        // A chart that is there stays, and the next reading of the card tries again.
        if (!history.childElementCount) history.replaceChildren(element("p", { class: "quiet" }, "No answer yet. This card goes on trying."));
        return;
      }
    }
    this.#charted = now.rating;
    showHistory(history, items, now, DAYS);
  }

  #fail(error) {
    const gone = error instanceof Refusal && (error.status === 404 || error.status === 400);
    say(this.#parts.trouble, gone ? "There is no such player." : "No answer. This card goes on trying.");
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
    rest.hidden = false;
    say(name, username);
    document.title = `${username}, rank ${standing.rank} · Ladder`;
    rank.replaceChildren(element("small", {}, "Rank "), whole(standing.rank), element("small", {}, ` of ${whole(standing.total)}`));
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
