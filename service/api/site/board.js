// The board: rows keyed by user. The top is pushed; the rows below it, if the visitor asked for them, are fetched again.

import { read } from "./api.js";
import { byId, cardAddress, element, players, say, whole } from "./dom.js";
import { appear, reorder, travel } from "./motion.js";

const MORE = 50;
const MOST = 1_000;
const TAIL_AGE_MS = 10_000;
const TAIL_PAUSE_MS = 3_000;
const CHANGE_MS = 5_000;
/** Equal ratings share a rank and its medal, unless more players than this share it: then it would be no distinction. */
const MEDAL_SHARE = 3;

function cell(name, kind, ...children) {
  return element(name, { class: kind, scope: name === "th" ? "row" : undefined, role: name === "th" ? "rowheader" : "cell" }, ...children);
}

/** One user's row; `show` takes what is new about them. */
class Row {
  constructor(id) {
    this.id = id;
    this.shown = {};
    this.rankText = element("span");
    this.link = element("a", { href: cardAddress(id) });
    this.ratingText = element("span");
    this.change = element("span", { class: "change", "aria-hidden": "true" });
    this.element = element("tr", { "data-id": id, role: "row" },
      cell("td", "rank", this.rankText),
      cell("th", "player", this.link),
      cell("td", "rating", this.change, this.ratingText));
  }

  /** Returns whether the rating has changed. */
  show({ username, rank, rating }, hasMedal) {
    const before = this.shown;
    this.shown = { username, rank, rating, hasMedal };
    if (username !== before.username) this.link.textContent = username;
    if (rank !== before.rank) this.rankText.textContent = whole(rank);
    if (rank !== before.rank || hasMedal !== before.hasMedal) {
      if (hasMedal) this.element.dataset.medal = rank;
      else delete this.element.dataset.medal;
    }
    if (rating === before.rating) return false;
    this.ratingText.textContent = whole(rating);
    if (before.rating === undefined) return false;
    this.#changed(rating - before.rating);
    return true;
  }

  #changed(by) {
    const rose = by > 0;
    this.change.textContent = `${rose ? "▲" : "▼"} ${whole(Math.abs(by))}`;
    this.element.dataset.way = rose ? "up" : "down";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.change.replaceChildren(), CHANGE_MS);
  }

  remove() {
    clearTimeout(this.timer);
    this.element.remove();
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
  #extending = false;
  #renewing = null;
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
    // A tab that was hidden has not fetched the rest for a long time.
    if (this.#tail.length) this.#soon(Date.now() - this.#tailAt > TAIL_AGE_MS ? 0 : TAIL_PAUSE_MS);
  }

  /** Say that the board cannot be read, unless an older one is here to see. */
  fail() {
    if (this.#rows.size) return;
    this.#loaded();
    this.body.replaceChildren();
    const words = element("p", {}, "The board cannot be read right now. Trying again.");
    const empty = byId("empty");
    empty.replaceChildren(words);
    empty.dataset.of = "";
    empty.hidden = false;
  }

  #loaded() {
    byId("board").setAttribute("aria-busy", "false");
    document.documentElement.classList.remove("loading");
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
    const sharing = new Map();
    for (const { rank } of items) sharing.set(rank, (sharing.get(rank) ?? 0) + 1);
    const first = !this.#rows.size;
    const fresh = [];
    const changed = new Set();
    const ordered = items.map((item) => {
      let row = this.#rows.get(item.id);
      if (!row) {
        row = new Row(item.id);
        this.#rows.set(item.id, row);
        fresh.push(row);
        row.mark(item.id === this.#open);
      }
      if (row.show(item, item.rank <= 3 && sharing.get(item.rank) <= MEDAL_SHARE)) changed.add(row.element);
      return row;
    });
    travel(this.body, changed, () => this.#arrange(ordered, known));
    if (!first) for (const row of fresh) appear(row.element);
    this.#around(items.length, total);
  }

  #arrange(ordered, known) {
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    for (const skeleton of this.body.querySelectorAll(".skeleton")) skeleton.remove();
    for (const [id, row] of this.#rows) {
      if (known.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    reorder(this.body, ordered.map((row) => row.element));
    // A row that is put elsewhere loses the focus.
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  #around(shown, total) {
    this.#loaded();
    say(byId("players"), total ? players(total) : "No players yet");
    byId("live").hidden = !total;
    const empty = byId("empty");
    if (!total && empty.dataset.of !== "no players") {
      empty.replaceChildren(
        element("p", {}, "There are no players yet. This creates the first one:"),
        element("pre", {}, element("code", {}, `curl -H content-type:application/json -d '{"username": "Ada"}' ${new URL("users", document.baseURI)}`)),
      );
    }
    empty.dataset.of = total ? "" : "no players";
    empty.hidden = Boolean(total);
    this.body.parentElement.hidden = !total;
    const full = shown >= MOST;
    this.more.hidden = !this.#end || full;
    const further = full && this.#end ? `These are the first ${whole(shown)}. Find other players by name.` : "";
    const all = !this.#end && total ? `This is the whole board: ${players(total)}.` : "";
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
    if (this.#extending || !this.#end) return;
    this.#extending = true;
    this.more.setAttribute("aria-disabled", "true");
    // The tail may end elsewhere when it has been renewed.
    await this.#renewing;
    const last = this.body.lastElementChild;
    try {
      if (!this.#end) return;
      const page = await read(`leaderboard?limit=${MORE}&cursor=${encodeURIComponent(this.#end)}`, { tries: 2 });
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
      this.#extending = false;
      this.more.removeAttribute("aria-disabled");
    }
  }

  #soon(ms) {
    const due = Math.max(ms, this.#tailAt + TAIL_PAUSE_MS - Date.now());
    if (this.#timer && this.due <= Date.now() + due) return;
    clearTimeout(this.#timer);
    this.due = Date.now() + due;
    this.#timer = setTimeout(async () => {
      this.#timer = 0;
      if (!document.hidden && !this.#extending) await (this.#renewing = this.#renew());
      this.#soon(TAIL_AGE_MS);
    }, due);
  }

  /** Fetch the tail anew, from where the top ends now; without an answer it stays as it is until the next time. */
  async #renew() {
    if (!this.#cursor) return;
    const limit = Math.min(this.#tail.length, MOST);
    const page = await read(`leaderboard?limit=${limit}&cursor=${encodeURIComponent(this.#cursor)}`, { tries: 1 }).catch(() => null);
    if (!page) return;
    this.#tailAt = Date.now();
    this.#tail = page.items;
    this.#end = page.next_cursor;
    this.#draw(page.total);
  }
}
