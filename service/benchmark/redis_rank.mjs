// Asks redis-rank, one call after the other:
//   node redis_rank.mjs DIRECTORY REDIS_URL KEY IDS_FILE rank|batch|page|around|version SECONDS
// Prints a sample as JSON. DIRECTORY is where npm installed redis-rank and ioredis.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { exit } from "node:process";

const [directory, url, key, idsFile, what, seconds] = process.argv.slice(2);
const installed = createRequire(join(directory, "package.json"));
const { Leaderboard } = installed("redis-rank");
const { default: Redis } = installed("ioredis");

if (what === "version") {
    const text = readFileSync(join(directory, "node_modules", "redis-rank", "package.json"), "utf8");
    console.log(JSON.stringify(JSON.parse(text).version));
    exit(0);
}

const parsed = new URL(url);
const client =
    parsed.protocol === "unix:"
        ? new Redis({ path: decodeURIComponent(parsed.pathname), db: Number(parsed.searchParams.get("db") ?? 0) })
        : new Redis(url);
const board = new Leaderboard(client, key, { sortPolicy: "high-to-low", updatePolicy: "replace" });
const ids = readFileSync(idsFile, "utf8").trim().split("\n");
let next = Math.floor(Math.random() * ids.length);

function id() {
    next = (next + 1) % ids.length;
    return ids[next];
}

const calls = {
    rank: () => board.find(id()),
    batch: () => Promise.all(Array.from({ length: 100 }, () => board.find(id()))),
    page: () => {
        const first = 1 + Math.floor(Math.random() * Math.max(ids.length - 25, 1));
        return board.list(first, first + 24);
    },
    around: () => board.around(id(), 12, true),
};

async function run(duration) {
    const times = [];
    const began = process.hrtime.bigint();
    let now = began;
    while (Number(now - began) < duration * 1e9 || times.length < 3) {
        await calls[what]();
        const before = now;
        now = process.hrtime.bigint();
        times.push(Number(now - before) / 1e6);
    }
    return { times, seconds: Number(now - began) / 1e9 };
}

await run(Math.min(1, Number(seconds)));
const { times, seconds: took } = await run(Number(seconds));
times.sort((a, b) => a - b);
const at = (share) => times[Math.ceil(share * times.length) - 1];
console.log(
    JSON.stringify({
        requests: times.length,
        seconds: took,
        failed: 0,
        p50_ms: at(0.5),
        p95_ms: at(0.95),
        p99_ms: at(0.99),
        max_ms: at(1),
    }),
);
client.disconnect();
