// The distribution of all ratings, and the place of the player whose card is open.

import { read } from "./api.js";
import { byId, clock, drawn, element, players, say, whole } from "./dom.js";

const WIDTH = 50;
const EVERY_MS = 30_000;
const HEIGHT = 168;
/** In the order in which their labels have precedence. */
const NAMES = { p50: "median", p10: "10 %", p90: "90 %", p99: "99 %" };
const EDGE = { top: 30, bottom: 40 };

/** Return the buckets from the first to the last that hold players, with an empty one at each end. */
function inUse(buckets) {
  const first = buckets.findIndex(({ users }) => users);
  const last = buckets.findLastIndex(({ users }) => users);
  return first < 0 ? [] : buckets.slice(Math.max(0, first - 1), last + 2);
}

function words({ total, quantiles: { p10, p50, p90, p99 } }, standing) {
  if (!total) return "There are no ratings yet.";
  if (total === 1) return `1 player, with ${whole(p50)}.`;
  const here = standing ? ` ${standing.username} has ${whole(standing.rating)}, rank ${whole(standing.rank)}.` : "";
  return `${players(total)}. Half have ${whole(p50)} or less; 10 % have ${whole(p10)} or less, `
    + `90 % ${whole(p90)} or less, 99 % ${whole(p99)} or less.${here}`;
}

export class Distribution {
  #figure = byId("distribution");
  #box = byId("histogram");
  #table = byId("distribution-table");
  #last = null;
  #standing = null;
  #timer = 0;
  #at = 0;
  #failed = false;
  #abort = new AbortController();

  constructor() {
    new ResizeObserver(() => this.#draw()).observe(this.#box);
    this.#table.addEventListener("toggle", () => this.#tabulate());
  }

  get figure() {
    return this.#figure;
  }

  start() {
    this.stop();
    this.#abort = new AbortController();
    // A tab that was hidden for a moment need not ask again.
    this.#timer = setTimeout(() => this.#ask(), Math.max(0, this.#at + EVERY_MS - Date.now()));
  }

  stop() {
    this.#abort.abort();
    clearTimeout(this.#timer);
  }

  /** Mark the place of a player ({username, rating, rank}), or none (null). */
  mark(standing) {
    const [now, then] = [standing, this.#standing];
    this.#standing = standing;
    if (now?.username !== then?.username || now?.rating !== then?.rating || now?.rank !== then?.rank) this.#draw();
  }

  async #ask() {
    const { signal } = this.#abort;
    try {
      this.#last = await read(`ratings/distribution?width=${WIDTH}`, { signal });
      this.#at = Date.now();
      this.#failed = false;
      this.#draw();
      this.#tabulate();
    } catch {
      if (signal.aborted) return;
      this.#failed = true;
      if (this.#last) this.#draw();
      else say(byId("distribution-words"), "The ratings cannot be read right now. Trying again.");
    }
    this.#timer = setTimeout(() => this.#ask(), EVERY_MS);
  }

  #draw() {
    if (!Array.isArray(this.#last?.buckets)) return;
    const since = this.#failed ? ` As of ${clock(this.#at)}.` : "";
    say(byId("distribution-words"), words(this.#last, this.#standing) + since);
    const buckets = inUse(this.#last.buckets);
    const width = Math.floor(this.#box.clientWidth);
    this.#box.hidden = this.#table.hidden = !buckets.length;
    this.#box.classList.remove("blank");
    if (!buckets.length || width < 100) return;
    const [low, high] = [buckets[0].from, buckets.at(-1).to + 1];
    const x = (rating) => ((rating - low) / (high - low)) * width;
    const most = Math.max(...buckets.map(({ users }) => users));
    const ground = HEIGHT - EDGE.bottom;
    const drawing = drawn("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" },
      ...buckets.map((bucket) => this.#bar(bucket, x, most, ground)),
      drawn("line", { class: "ground", x1: 0, x2: width, y1: ground, y2: ground }),
      ...this.#quantiles(x, ground, width),
      ...this.#here(x, ground, width));
    this.#box.replaceChildren(drawing);
  }

  #bar({ from, to, users }, x, most, ground) {
    const height = users ? Math.max(1.5, (users / most) * (ground - EDGE.top)) : 0;
    const rating = this.#standing?.rating;
    const gap = x(to + 1) - x(from) > 4 ? 1 : 0;
    return drawn("rect", { class: rating >= from && rating <= to ? "bar yours" : "bar", x: x(from) + gap / 2, width: Math.max(1, x(to + 1) - x(from) - gap), y: ground - height, height },
      drawn("title", {}, `${from} to ${to}: ${players(users)}`));
  }

  #quantiles(x, ground, width) {
    const labels = [];
    return Object.keys(NAMES).flatMap((name) => {
      const rating = this.#last.quantiles[name];
      if (!Number.isFinite(rating)) return [];
      const place = x(rating + 0.5);
      const tick = drawn("line", { class: "quantile", x1: place, x2: place, y1: ground, y2: ground + 6 });
      // Of two labels that would overlap the first one stays.
      const middle = Math.min(Math.max(place, 22), width - 22);
      if (labels.some((other) => Math.abs(middle - other) < 42)) return [tick];
      labels.push(middle);
      return [tick,
        drawn("text", { class: "tick strong", x: middle, y: ground + 20, "text-anchor": "middle" }, whole(rating)),
        drawn("text", { class: "tick", x: middle, y: ground + 34, "text-anchor": "middle" }, NAMES[name])];
    });
  }

  #here(x, ground, width) {
    const rating = this.#standing?.rating;
    if (!Number.isFinite(rating)) return [];
    const place = Math.min(Math.max(x(rating + 0.5), 1), width - 1);
    const anchor = place < 70 ? "start" : place > width - 70 ? "end" : "middle";
    return [
      drawn("line", { class: "here", x1: place, x2: place, y1: 19, y2: ground }),
      drawn("text", { class: "here-word", x: place, y: 13, "text-anchor": anchor }, `${whole(rating)} · #${whole(this.#standing.rank)}`),
    ];
  }

  #tabulate() {
    if (!this.#table.open || !Array.isArray(this.#last?.buckets)) return;
    const rows = inUse(this.#last.buckets).map(({ from, to, users }) => element("tr", {},
      element("th", { scope: "row" }, `${from} to ${to}`), element("td", {}, whole(users))));
    const head = ["Ratings", "Players"].map((name) => element("th", { scope: "col" }, name));
    this.#table.replaceChildren(this.#table.querySelector("summary"),
      element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
  }
}
