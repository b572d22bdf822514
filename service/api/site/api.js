// Asks the service. After a 429 all requests of this page wait, because the limit counts them together.

const PATIENCE_MS = 8_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;

let quietUntil = 0;
let refusals = 0;

/** `answered` with what ranked and of which moment, `refused` with until when the page is quiet. */
export const traffic = new EventTarget();

/** An answer other than 2xx: its `status`, and for how long it asks to wait. */
export class Refusal extends Error {
  constructor(status, waitMs) {
    super(`HTTP ${status}`);
    this.status = status;
    this.waitMs = waitMs;
  }
}

const tell = (kind, detail) => traffic.dispatchEvent(new CustomEvent(kind, { detail }));

/** Wait; fails as soon as the signal aborts. */
export function wait(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(done, ms);
    function done() {
      signal?.removeEventListener("abort", stop);
      resolve();
    }
    function stop() {
      clearTimeout(timer);
      reject(signal.reason);
    }
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Return how long to wait after so many failures in a row: doubled each time, and never the same for all pages. */
export function patience(failures, longest = LONGEST_WAIT_MS) {
  return Math.min(longest, FIRST_WAIT_MS * 2 ** Math.min(failures, 10)) * (0.8 + 0.4 * Math.random());
}

/** Return the moment (ms) that an answer is of, or null where it does not say so; `asked` is when it was asked for. */
function momentOf(headers, source, asked) {
  if (source === "redis") {
    const lag = headers.get("x-mirror-lag-ms");
    return lag === null ? null : asked - Number(lag);
  }
  // The age by the server's own clocks: this machine's may be wrong.
  const age = Date.parse(headers.get("date")) - Date.parse(headers.get("x-rank-as-of"));
  return Number.isFinite(age) ? asked - Math.max(0, age) : asked;
}

function freshness(headers, asked) {
  const source = headers.get("x-rank-source");
  if (source) tell("answered", { source, stale: headers.get("x-data-stale") === "true", moment: momentOf(headers, source, asked) });
}

function waitMs(answer) {
  const seconds = Number(answer.headers.get("retry-after"));
  return Number.isFinite(seconds) ? Math.min(seconds * 1000, LONGEST_WAIT_MS) : 0;
}

function quiet(answer) {
  quietUntil = Math.max(quietUntil, Date.now() + Math.max(waitMs(answer), patience(refusals++)));
  tell("refused", { until: quietUntil });
}

async function once(path, signal) {
  let answer;
  const asked = Date.now();
  try {
    const limit = AbortSignal.timeout(PATIENCE_MS);
    answer = await fetch(path, { signal: signal ? AbortSignal.any([signal, limit]) : limit });
    const body = await answer.json();
    if (answer.ok) {
      refusals = 0;
      freshness(answer.headers, asked);
      return body;
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
  if (answer.status === 429) quiet(answer);
  throw new Refusal(answer.status, waitMs(answer));
}

/**
 * Return what is at a path. What may pass is tried again, `tries` times in all; fails with the last error.
 *
 * `failed` is called with each error after which it is tried again; `longest` is the longest pause before that, in ms.
 */
export async function read(path, { signal, tries = 3, longest, failed } = {}) {
  for (let failures = 1; ; failures++) {
    if (quietUntil > Date.now()) await wait(quietUntil - Date.now(), signal);
    try {
      return await once(path, signal);
    } catch (error) {
      const passes = !(error instanceof Refusal) || error.status === 429 || error.status >= 500;
      if (signal?.aborted || !passes || failures >= tries) throw error;
      failed?.(error);
      await wait(Math.max(error.waitMs ?? 0, patience(failures, longest)), signal);
    }
  }
}

/** Return the service's health, also when it is ill; it is asked for outside every limit. Fails without an answer. */
export async function readHealth(signal) {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  const answer = await fetch("health", { signal: signal ? AbortSignal.any([signal, limit]) : limit, cache: "no-store" });
  return answer.json();
}
