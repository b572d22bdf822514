// How well the service is, and how much what is shown can be trusted, in plain words.

import { read, readHealth, traffic, wait } from "./api.js";
import { byId, clock, say, whole } from "./dom.js";

const EVERY_MS = 5_000;
const TRY_MS = 1_000;
const BRIEFLY_MS = 1_500;

/**
 * Return {tone, word, detail} for what is known.
 *
 * `reachable`, `health` (the document or null), `feed` (its state), `source`, `stale`, `waits` (refused for now),
 * `at` (Date of what is shown or null).
 */
export function describe({ reachable, health, feed, source, stale, waits, at }) {
  const since = at ? `What you see is from ${clock(at)}. Trying again.` : "Trying again.";
  if (!reachable) return { tone: "bad", word: "Server unreachable", detail: since };
  if (health?.status === "down") return { tone: "bad", word: "No ranks right now", detail: `No store can be read. ${since}` };
  if (waits) return { tone: "warn", word: "Waiting a moment", detail: `The service asks to wait. ${since}` };
  if (!health) return { tone: "wait", word: "Connecting", detail: "Asking the service." };
  const why = health.redis?.status === "up" ? "Redis is catching up" : "Redis is away";
  if (stale) return { tone: "warn", word: "Data may be old", detail: "The ranks lag more than two seconds, or may lack a change." };
  if (source === "histogram") return { tone: "warn", word: "Ranks a moment old", detail: `${why}; the ranks are at most two seconds old.` };
  if (source === "postgres") return { tone: "warn", word: "Ranks counted in Postgres", detail: `${why}; the ranks are exact.` };
  if (feed !== "live") return { tone: "warn", word: "Reconnecting", detail: "Meanwhile this page asks again every four seconds." };
  if (health.postgres?.status === "down") return { tone: "warn", word: "No changes right now", detail: "Postgres is away: until it is back no rating changes." };
  const lag = health.mirror?.lag_ms;
  return { tone: "good", word: "Live", detail: Number.isFinite(lag) ? `Redis, at most ${whole(lag)} ms behind` : "Ranks from Redis" };
}

/** Asks every few seconds, hears what other answers say, and tells the visitor. */
export class HealthLine {
  #feed;
  #abort = new AbortController();
  #sooner = new AbortController();
  #facts = { reachable: true, health: null, source: null, stale: false, at: null };
  #quietUntil = 0;
  #misses = 0;
  #feedTurnedAt = 0;
  #feedState = "connecting";

  constructor(feed) {
    this.#feed = feed;
    feed.addEventListener("state", ({ detail }) => this.#turned(detail));
    feed.addEventListener("page", () => {
      this.#facts.at = new Date();
      this.#reached();
    });
    traffic.addEventListener("answered", ({ detail }) => {
      Object.assign(this.#facts, { source: detail.source, stale: detail.stale });
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
        this.#facts.health = await readHealth(signal);
        // A stream that says nothing says that nothing has changed.
        if (this.#feedState === "live" && this.#facts.at) this.#facts.at = new Date();
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

  #reached() {
    this.#misses = 0;
    if (!this.#facts.reachable) this.#feed.hurry();
    this.#facts.reachable = true;
    this.#show();
  }

  #missed() {
    // Once may be a restart that nobody need notice.
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
  }
}
