// The state of the service, and the moment that the board is of, in plain words.

import { read, readHealth, traffic, wait } from "./api.js";
import { byId, clock, say, whole } from "./dom.js";

const EVERY_MS = 5_000;
const TRY_MS = 1_000;
const BRIEFLY_MS = 1_500;

/**
 * Return {tone, word, detail} for what is known.
 *
 * `reachable`, `health` (the document or null), `feed` (its state), `source`, `stale`, `waits` (refused for now),
 * `at` (the moment in ms that the board is of, or null).
 */
export function describe({ reachable, health, feed, source, stale, waits, at }) {
  const since = at ? `What you see is from ${clock(at)}.` : "Trying again.";
  if (!reachable) return { tone: "bad", word: "Server unreachable", detail: since };
  const redisIsUp = health?.redis?.status === "up";
  if (health?.status === "down") {
    const why = redisIsUp ? "Postgres is away, Redis is empty." : "Postgres and Redis are away.";
    return { tone: "bad", word: "No ranks right now", detail: `${why} ${since}` };
  }
  if (waits) return { tone: "warn", word: "Waiting a moment", detail: `Too many requests. ${since}` };
  if (!health) return { tone: "wait", word: "Connecting", detail: "Asking the service." };
  if (health.postgres?.status === "down") return { tone: "warn", word: "Postgres is away", detail: `Ratings cannot change. ${since}` };
  if (stale) return { tone: "warn", word: "Data may be old", detail: `Redis is catching up. ${since}` };
  const why = redisIsUp ? "Redis is catching up" : "Redis is away";
  if (source === "histogram") return { tone: "warn", word: "Ranks a moment old", detail: `${why}. ${since}` };
  if (source === "postgres") return { tone: "warn", word: "Ranks counted in Postgres", detail: `${why}; the ranks are exact.` };
  if (feed !== "live") return { tone: "warn", word: "Reconnecting", detail: "Asking every four seconds meanwhile." };
  const lag = health.mirror?.lag_ms;
  return { tone: "good", word: "Live", detail: Number.isFinite(lag) ? `Redis, at most ${whole(lag)} ms behind` : "Ranks from Redis" };
}

/**
 * Asks every few seconds, hears what other answers say, and tells the visitor.
 *
 * A stream sends nothing while the board stays as it is, and nothing either while no store can be read. So the moment of
 * the board moves on only by an answer that a store gave: a page, a small read, or a health that is `ok`.
 */
export class HealthLine {
  #feed;
  #abort = new AbortController();
  #sooner = new AbortController();
  #facts = { reachable: true, health: null, source: null, stale: false, at: null };
  #moment = null;
  #quietUntil = 0;
  #misses = 0;
  #feedTurnedAt = 0;
  #feedState = "connecting";

  constructor(feed) {
    this.#feed = feed;
    feed.addEventListener("state", ({ detail }) => this.#turned(detail));
    feed.addEventListener("page", ({ detail: { pushed } }) => {
      const { at, stale } = this.#facts;
      // An answer says of which moment it is. The stream does not, and its first page may be a stale one.
      if (pushed) this.#facts.at = stale ? at ?? this.#moment : Date.now();
      else this.#facts.at = this.#moment ?? at;
      this.#reached();
    });
    traffic.addEventListener("answered", ({ detail: { source, stale, moment } }) => {
      Object.assign(this.#facts, { source, stale });
      this.#moment = moment;
      if (this.#feedState === "live") this.#seen(moment);
      this.#reached();
    });
    traffic.addEventListener("refused", ({ detail }) => {
      this.#quietUntil = detail.until;
      this.#show();
      setTimeout(() => this.#show(), detail.until - Date.now() + 50);
    });
    addEventListener("offline", () => this.#sooner.abort());
  }

  start() {
    this.stop();
    this.#abort = new AbortController();
    this.#feedTurnedAt = Date.now();
    this.#run(this.#abort.signal);
  }

  stop() {
    this.#abort.abort();
  }

  async #run(signal) {
    while (!signal.aborted) {
      try {
        const asked = Date.now();
        const health = await readHealth(signal);
        this.#facts.health = health;
        if (this.#feedState === "live" && health.status === "ok" && !this.#facts.stale) this.#seen(asked - (health.mirror?.lag_ms ?? 0));
        this.#reached();
        await this.#lookCloser(signal);
      } catch {
        if (signal.aborted) return;
        this.#missed();
      }
      this.#sooner = new AbortController();
      await wait(this.#misses ? TRY_MS : EVERY_MS, AbortSignal.any([signal, this.#sooner.signal])).catch(() => {});
    }
  }

  /** The stream does not say what ranks, and health does not say what a reader gets: a small read does. */
  async #lookCloser(signal) {
    const { health, source, stale } = this.#facts;
    if (this.#quietUntil > Date.now()) return;
    if (health.status === "down" || (health.status === "ok" && source === "redis" && !stale)) return;
    await read("leaderboard?limit=1", { signal, tries: 1 }).catch(() => {});
  }

  /** A store was read: a board that the stream keeps is of this moment, a stale one at most. */
  #seen(moment) {
    const { at, stale } = this.#facts;
    if (at === null || moment === null) return;
    this.#facts.at = stale ? moment : Math.max(at, moment);
  }

  #reached() {
    this.#misses = 0;
    if (!this.#facts.reachable) this.#feed.hurry();
    this.#facts.reachable = true;
    this.#show();
  }

  #missed() {
    // A single failure may be a restart, which is not worth a word.
    if (++this.#misses >= 2) {
      this.#facts.reachable = false;
      this.#feed.doubt();
    }
    this.#show();
  }

  #turned(state) {
    this.#feedState = state;
    this.#feedTurnedAt = Date.now();
    if (state === "polling") this.#sooner.abort();
    this.#show();
    setTimeout(() => this.#show(), BRIEFLY_MS + 50);
  }

  #show() {
    // A stream that is back at once was not worth a word.
    const brief = this.#feedState !== "live" && Date.now() - this.#feedTurnedAt < BRIEFLY_MS;
    const feed = brief ? "live" : this.#feedState;
    const { tone, word, detail } = describe({ ...this.#facts, feed, waits: this.#quietUntil > Date.now() });
    byId("health").dataset.tone = tone;
    say(byId("health-word"), word);
    say(byId("health-detail"), detail);
    document.documentElement.dataset.tone = tone;
    const { at } = this.#facts;
    say(byId("updated"), at ? `As of ${clock(at)}` : "");
    say(byId("live"), tone === "good" ? ", ranked live" : "");
  }
}
