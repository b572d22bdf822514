// The top of the board as it changes: pushed by the service, or asked for every few seconds while that fails.

import { patience, read } from "./api.js";

const POLL_MS = 4_000;
const LONGEST_MS = 15_000;

/** `page` with each new top and whether it was `pushed`; `state`: "connecting", "live", or "polling" while the stream is away. */
export class Feed extends EventTarget {
  #limit;
  #stream = null;
  #state = "connecting";
  #failures = 0;
  #pages = 0;
  #again = 0;
  #poll = 0;
  #running = false;
  #abort = new AbortController();

  constructor(limit) {
    super();
    this.#limit = limit;
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#abort = new AbortController();
    this.#failures = 0;
    this.#connect();
    this.#ask();
  }

  stop() {
    this.#running = false;
    this.#abort.abort();
    this.#close();
    clearTimeout(this.#again);
    clearTimeout(this.#poll);
    this.#turn("connecting");
  }

  /** Believe no more in a stream that is open: a connection can die without a word. */
  doubt() {
    if (this.#stream) this.#lost();
  }

  /** Try the stream now instead of later. */
  hurry() {
    if (!this.#running || this.#stream) return;
    clearTimeout(this.#again);
    this.#connect();
  }

  #connect() {
    const stream = new EventSource(`leaderboard/stream?limit=${this.#limit}`);
    this.#stream = stream;
    stream.addEventListener("open", () => this.#opened());
    stream.addEventListener("error", () => this.#lost());
    stream.addEventListener("leaderboard", ({ data }) => {
      this.#opened();
      this.#take(JSON.parse(data), true);
    });
  }

  #opened() {
    this.#failures = 0;
    clearTimeout(this.#poll);
    this.#turn("live");
  }

  #close() {
    this.#stream?.close();
    this.#stream = null;
  }

  #lost() {
    // The browser would try again too, but not after a refusal, and it does not say when.
    this.#close();
    if (!this.#running) return;
    this.#turn("polling");
    clearTimeout(this.#again);
    this.#again = setTimeout(() => this.#connect(), patience(this.#failures++, LONGEST_MS));
    clearTimeout(this.#poll);
    this.#poll = setTimeout(() => this.#ask(), patience(0));
  }

  async #ask() {
    const before = this.#pages;
    const { signal } = this.#abort;
    try {
      const page = await read(`leaderboard?limit=${this.#limit}`, { signal, tries: 1 });
      // What was pushed while this was on its way may be newer.
      if (before === this.#pages) this.#take(page, false);
    } catch (error) {
      if (signal.aborted) return;
      this.dispatchEvent(new CustomEvent("failed", { detail: error }));
    }
    clearTimeout(this.#poll);
    if (this.#state !== "live") this.#poll = setTimeout(() => this.#ask(), POLL_MS);
  }

  #take(page, pushed) {
    if (!Array.isArray(page?.items)) return;
    this.#pages++;
    this.dispatchEvent(new CustomEvent("page", { detail: { page, pushed } }));
  }

  #turn(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
