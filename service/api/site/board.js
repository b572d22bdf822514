// The board: rows keyed by user. The top is pushed; what a visitor asked for below it is fetched again as it ages.

import { read } from "./api.js";
import { byId, cardAddress, element, players, say, whole } from "./dom.js";
import { appear, flash, travel } from "./motion.js";

const MORE = 50;
const MOST = 1_000;
const TAIL_AGE_MS = 10_000;
const TAIL_PAUSE_MS = 3_000;
const CHANGE_MS = 5_000;

function cell(name, kind, ...children) {
  return element(name, { class: kind, scope: name === "th" ? "row" : undefined }, ...children);
}

/** One user's row; `show` takes what is new about them. */
class Row {
  constructor(id) {
    this.id = id;
    this.rating = null;
    this.rankText = element("span");
    this.link = element("a", { href: cardAddress(id) });
    this.ratingText = element("span");
    this.change = element("span", { class: "change", "aria-hidden": "true" });
    this.element = element("tr", { "data-id": id },
      cell("td", "rank", this.rankText),
      cell("th", "player", this.link),
      cell("td", "rating", this.change, this.ratingText));
  }

  show({ username, rank, rating }, reach) {
    say(this.link, username);
    say(this.rankText, whole(rank));
    say(this.ratingText, whole(rating));
    // A medal is for the rank, not for the place: who shares a rank shares it.
    this.element.dataset.medal = rank <= 3 ? rank : "";
    this.element.style.setProperty("--reach", reach);
    const before = this.rating;
    this.rating = rating;
    if (before !== null && before !== rating) this.#changed(rating - before);
  }

  #changed(by) {
    const rose = by > 0;
    this.change.textContent = `${rose ? "▲" : "▼"} ${whole(Math.abs(by))}`;
    this.change.dataset.way = rose ? "up" : "down";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.change.replaceChildren(), CHANGE_MS);
    flash(this.element, rose ? "--up-wash" : "--down-wash");
  }

  mark(open) {
    this.element.classList.toggle("open", open);
    if (open) this.link.setAttribute("aria-current", "true");
    else this.link.removeAttribute("aria-current");
  }
}

export class Board {
  #rows = new Map();
  #top = [];
  #tail = [];
  #cursor = null;
  #end = null;
  #open = null;
  #leader = null;
  #asking = false;
  #tailAt = 0;
  #timer = 0;

  constructor() {
    this.body = byId("rows");
    this.more = byId("more");
    this.more.addEventListener("click", () => this.#extend());
    this.#skeleton();
  }

  /** Mark the row of the player whose card is open, if it is here. */
  mark(id) {
    this.#rows.get(this.#open)?.mark(false);
    this.#open = id;
    this.#rows.get(id)?.mark(true);
  }

  /** Show a new top. */
  show(page) {
    this.#top = page.items;
    this.#cursor = page.next_cursor;
    if (!this.#tail.length) this.#end = page.next_cursor;
    this.#draw(page.total);
    this.#announce();
    if (this.#tail.length) this.#soon(TAIL_PAUSE_MS);
  }

  /** Say that the board cannot be read, unless an older one is here to see. */
  fail() {
    if (this.#rows.size) return;
    byId("board").setAttribute("aria-busy", "false");
    this.body.replaceChildren();
    const words = element("p", {}, "The board cannot be read right now. This page goes on trying.");
    byId("empty").replaceChildren(words);
    byId("empty").hidden = false;
  }

  #skeleton() {
    const bar = () => element("span", { class: "bone" });
    this.body.append(...Array.from({ length: 12 }, () => element("tr", { class: "skeleton", "aria-hidden": "true" },
      element("td", { class: "rank" }, bar()), element("td", { class: "player" }, bar()), element("td", { class: "rating" }, bar()))));
  }

  #draw(total) {
    const known = new Set();
    // Who climbed into the top is still in a tail that was fetched before.
    const items = [...this.#top, ...this.#tail].filter(({ id }) => !known.has(id) && known.add(id));
    const [best, worst] = [items[0]?.rating ?? 0, items.at(-1)?.rating ?? 0];
    const floor = worst - Math.max(20, (best - worst) * 0.2);
    const first = !this.#rows.size;
    const fresh = [];
    const ordered = items.map((item) => {
      let row = this.#rows.get(item.id);
      if (!row) {
        row = new Row(item.id);
        this.#rows.set(item.id, row);
        fresh.push(row);
        row.mark(item.id === this.#open);
      }
      row.show(item, (item.rating - floor) / (best - floor));
      return row;
    });
    travel([...this.body.children], () => this.#arrange(ordered, known));
    if (!first) for (const row of fresh) appear(row.element);
    this.#around(items.length, total);
  }

  #arrange(ordered, known) {
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    for (const skeleton of this.body.querySelectorAll(".skeleton")) skeleton.remove();
    for (const [id, row] of this.#rows) {
      if (known.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    // From the end, so that one row that fell does not make all that it passed move.
    let following = null;
    for (const { element: row } of ordered.reverse()) {
      if (row.nextSibling !== following || !row.isConnected) this.body.insertBefore(row, following);
      following = row;
    }
    // A row that is put elsewhere loses the focus.
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  #around(shown, total) {
    byId("board").setAttribute("aria-busy", "false");
    say(byId("summary"), total ? `${players(total)}, ranked live` : "Nobody is ranked yet");
    const empty = byId("empty");
    if (!total && empty.dataset.of !== "nobody") {
      empty.replaceChildren(
        element("p", {}, "Nobody is on the ladder yet. The first one who is created leads it:"),
        element("pre", {}, element("code", {}, `curl -H content-type:application/json -d '{"username": "Ada"}' ${new URL("users", document.baseURI)}`)),
      );
    }
    empty.dataset.of = total ? "" : "nobody";
    empty.hidden = Boolean(total);
    this.body.parentElement.hidden = !total;
    const full = shown >= MOST;
    this.more.hidden = !this.#end || full;
    const further = full && this.#end ? `These are the first ${whole(shown)}. Find anybody else by name.` : "";
    const all = !this.#end && total ? `That is everybody: ${players(total)}.` : "";
    say(byId("more-note"), further || all || (total ? `${whole(shown)} of ${whole(total)} shown` : ""));
  }

  #announce() {
    const leader = this.#top[0];
    if (leader && this.#leader !== null && leader.id !== this.#leader) {
      say(byId("leader"), `${leader.username} leads now with ${leader.rating}.`);
    }
    this.#leader = leader?.id ?? null;
  }

  /** Fetch the rows that follow the last one. */
  async #extend() {
    if (this.#asking || !this.#end) return;
    this.#asking = true;
    this.more.setAttribute("aria-disabled", "true");
    const last = this.body.lastElementChild;
    try {
      const page = await read(`leaderboard?limit=${MORE}&cursor=${encodeURIComponent(this.#end)}`);
      if (!this.#tail.length) this.#tailAt = Date.now();
      this.#tail.push(...page.items);
      this.#end = page.next_cursor;
      this.#draw(page.total);
      // From where the reader was, the keyboard goes on to what is new.
      if (this.more.hidden) last?.nextElementSibling?.querySelector("a")?.focus({ preventScroll: true });
      this.#soon(TAIL_AGE_MS);
    } catch {
      say(byId("more-note"), "No answer. Try again in a moment.");
    } finally {
      this.#asking = false;
      this.more.removeAttribute("aria-disabled");
    }
  }

  #soon(ms) {
    const due = Math.max(ms, this.#tailAt + TAIL_PAUSE_MS - Date.now());
    if (this.#timer && this.due <= Date.now() + due) return;
    clearTimeout(this.#timer);
    this.due = Date.now() + due;
    this.#timer = setTimeout(() => this.#renew(), due);
  }

  /** Fetch the tail anew, from where the top ends now. */
  async #renew() {
    this.#timer = 0;
    if (!document.hidden && !this.#asking && this.#cursor) {
      this.#asking = true;
      try {
        const limit = Math.min(this.#tail.length, MOST);
        const page = await read(`leaderboard?limit=${limit}&cursor=${encodeURIComponent(this.#cursor)}`, { tries: 1 });
        this.#tailAt = Date.now();
        this.#tail = page.items;
        this.#end = page.next_cursor;
        this.#draw(page.total);
      } catch {
        // It stays as it is until the next time.
      } finally {
        this.#asking = false;
      }
    }
    this.#soon(TAIL_AGE_MS);
  }
}
