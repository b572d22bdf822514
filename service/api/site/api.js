// Asks the service. Whoever is refused for asking too much waits, and everybody else on this page with them.

const PATIENCE_MS = 8_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;

let quietUntil = 0;
let refusals = 0;

/** `answered` with what ranked, `refused` with until when the page is quiet. */
export const traffic = new EventTarget();

/** An answer other than 2xx; `status` is HTTP's. */
export class Refusal extends Error {
  constructor(status) {
    super(`HTTP ${status}`);
    this.status = status;
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

function freshness(headers) {
  const source = headers.get("x-rank-source");
  if (!source) return;
  const lag = headers.get("x-mirror-lag-ms");
  tell("answered", { source, lagMs: lag === null ? null : Number(lag), stale: headers.get("x-data-stale") === "true" });
}

function quiet(answer) {
  const seconds = Number(answer.headers.get("retry-after"));
  const ms = Math.max(Number.isFinite(seconds) ? seconds * 1000 : 0, patience(refusals++));
  quietUntil = Math.max(quietUntil, Date.now() + Math.min(ms, LONGEST_WAIT_MS));
  tell("refused", { status: answer.status, until: quietUntil });
}

async function once(path, signal) {
  let answer;
  try {
    const limit = AbortSignal.timeout(PATIENCE_MS);
    answer = await fetch(path, { signal: signal ? AbortSignal.any([signal, limit]) : limit });
    const body = await answer.json();
    if (answer.ok) {
      refusals = 0;
      freshness(answer.headers);
      return body;
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
  if (answer.status === 429 || answer.status === 503) quiet(answer);
  throw new Refusal(answer.status);
}

/** Return what is at a path. What may pass is tried again, `tries` times in all; fails with the last error. */
export async function read(path, { signal, tries = 3 } = {}) {
  for (let failures = 1; ; failures++) {
    if (quietUntil > Date.now()) await wait(quietUntil - Date.now(), signal);
    try {
      return await once(path, signal);
    } catch (error) {
      const passes = !(error instanceof Refusal) || error.status === 429 || error.status >= 500;
      if (signal?.aborted || !passes || failures >= tries) throw error;
      await wait(patience(failures), signal);
    }
  }
}

/** Return the service's health, also when it is ill; it is asked for outside every limit. Fails if nobody answers. */
export async function readHealth(signal) {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  const answer = await fetch("health", { signal: signal ? AbortSignal.any([signal, limit]) : limit, cache: "no-store" });
  return answer.json();
}
