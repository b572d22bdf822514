// Puts the page together, and stops all traffic while the page is hidden.

import { Board } from "./board.js";
import { Card } from "./card.js";
import { Distribution } from "./distribution.js";
import { byId, cardOf } from "./dom.js";
import { Feed } from "./feed.js";
import { HealthLine } from "./health.js";
import { Search } from "./search.js";

const TOP = 50;

const feed = new Feed(TOP);
const board = new Board();
const card = new Card();
const distribution = new Distribution();
const health = new HealthLine(feed);
const aside = distribution.figure.parentElement;
new Search();

feed.addEventListener("page", ({ detail: { page } }) => {
  board.show(page);
  card.refresh();
});
feed.addEventListener("failed", () => board.fail());
card.addEventListener("standing", ({ detail }) => {
  distribution.mark(detail);
  board.mark(cardOf(location.hash));
});
// A card that covers the page would hide the histogram, so it takes it along.
card.addEventListener("place", () => (card.isOver ? card.slot : aside).append(distribution.figure));

// The address is the card's; to skip to the board must not close it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("board").focus();
});

let awake = false;

function wake() {
  if (awake) return;
  awake = true;
  feed.start();
  health.start();
  distribution.start();
}

function rest() {
  awake = false;
  feed.stop();
  health.stop();
  distribution.stop();
}

// Over HTTP/1.1 a browser has six connections to a host, for all of its tabs together, and a stream keeps one of them. So
// a tab that was opened in the background, or rendered ahead, opens none before it is seen for the first time.
function follow() {
  if (document.visibilityState === "visible") wake();
  else rest();
}
document.addEventListener("visibilitychange", follow);
document.addEventListener("prerenderingchange", follow);
document.addEventListener("freeze", rest);
document.addEventListener("resume", follow);
addEventListener("pagehide", rest);
addEventListener("pageshow", follow);
addEventListener("online", () => awake && health.start());

follow();
card.start();
