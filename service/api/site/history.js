// The line of a player's rating: a step at each day on which it had changed, up to now.

import { day, drawn, element, whole } from "./dom.js";

const HEIGHT = 132;
const EDGE = { top: 12, right: 44, bottom: 22, left: 4 };

const DAY_MS = 86_400_000;

const time = (item) => Date.parse(`${item.day}T00:00:00Z`);

/** Return the days before today, from `days` ago at the earliest, and the present. */
function upToNow(items, now, days) {
  const today = new Date().toISOString().slice(0, 10);
  const begin = new Date(Date.parse(today) - days * DAY_MS).toISOString().slice(0, 10);
  const past = (items ?? []).filter((item) => item.day < today && Number.isFinite(time(item)) && Number.isFinite(item.rating));
  // The first one may be from before: then it is what held when those days began.
  return [...past.map((item) => (item.day < begin ? { ...item, day: begin } : item)), { ...now, day: today }];
}

/** Return a scale from values to places. */
function scale(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

/** Return the words for the line. */
function words(items) {
  const [first, last] = [items[0], items.at(-1)];
  const best = items.reduce((most, item) => (item.rating > most.rating ? item : most));
  const by = last.rating - first.rating;
  const way = by ? `${by > 0 ? "Up" : "Down"} ${whole(Math.abs(by))} since ${day(first.day)}` : `As on ${day(first.day)}`;
  return `${way}, from ${whole(first.rating)} to ${whole(last.rating)}; best ${whole(best.rating)} on ${day(best.day)}.`;
}

function line(items, width) {
  const ratings = items.map(({ rating }) => rating);
  const [low, high] = [Math.min(...ratings), Math.max(...ratings)];
  const x = scale(time(items[0]), time(items.at(-1)), EDGE.left + 5, width - EDGE.right);
  const room = Math.max(4, (high - low) * 0.1);
  const y = scale(low - room, high + room, HEIGHT - EDGE.bottom, EDGE.top);
  const points = items.map((item) => [x(time(item)), y(item.rating)]);
  // What a rating had become on a day it stayed until the next one.
  const path = points.map(([left, top]) => `H${left.toFixed(1)}V${top.toFixed(1)}`).join("");
  const ground = HEIGHT - EDGE.bottom;
  const levels = low === high ? [high] : [high, low];
  const [[firstX, firstY], [lastX, lastY]] = [points[0], points.at(-1)];
  return drawn("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" },
    ...levels.flatMap((level) => [
      drawn("line", { class: "level", x1: EDGE.left, x2: width - EDGE.right + 6, y1: y(level), y2: y(level) }),
      drawn("text", { class: "tick", x: width - EDGE.right + 10, y: y(level) + 4 }, whole(level)),
    ]),
    drawn("path", { class: "under", d: `M${firstX},${ground}V${firstY}${path}V${ground}Z` }),
    drawn("path", { class: "line", d: `M${firstX},${firstY}${path}` }),
    drawn("circle", { class: "now", cx: lastX, cy: lastY, r: 4 }),
    ...points.map(([left, top], place) => drawn("circle", { class: "point", cx: left, cy: top, r: 8 },
      drawn("title", {}, `${day(items[place].day)}: ${whole(items[place].rating)}, rank ${whole(items[place].rank)}`))),
    drawn("text", { class: "tick", x: EDGE.left, y: HEIGHT - 5 }, day(items[0].day)),
    drawn("text", { class: "tick", x: width - EDGE.right, y: HEIGHT - 5, "text-anchor": "end" }, day(items.at(-1).day)));
}

function table(items) {
  const head = ["Day", "Rating", "Rank"].map((name) => element("th", { scope: "col" }, name));
  const rows = [...items].reverse().map((item) => element("tr", {},
    element("th", { scope: "row" }, day(item.day)), element("td", {}, whole(item.rating)), element("td", {}, whole(item.rank))));
  return element("details", {}, element("summary", {}, "Day by day"),
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
}

/** Show days (oldest first) and the present standing in a box, or say plainly that there is nothing to draw. */
export function showHistory(box, items, now, days) {
  const usable = upToNow(items, now, days);
  if (usable.length < 2) {
    box.replaceChildren(element("p", { class: "quiet" }, `No history of the last ${days} days yet: it takes two days to draw a line.`));
    return;
  }
  const open = box.querySelector("details")?.open;
  const about = element("p", { class: "quiet" }, words(usable));
  const picture = element("div", { class: "chart", role: "img", "aria-label": `Rating by days. ${about.textContent}` }, line(usable, Math.max(200, box.clientWidth)));
  box.replaceChildren(picture, about, table(usable));
  if (open) box.querySelector("details").open = true;
}
