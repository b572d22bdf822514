// Puts the page together, and lets it rest while nobody looks.

import { Board } from "./board.js";
import { Card } from "./card.js";
import { Distribution } from "./distribution.js";
import { byId, cardOf } from "./dom.js";
import { Feed } from "./feed.js";
import { HealthLine } from "./health.js";
import { Search } from "./search.js";

const TOP = 50;
const HIDDEN_MS = 30_000;

const feed = new Feed(TOP);
const board = new Board();
const card = new Card();
const distribution = new Distribution();
const health = new HealthLine(feed);
const aside = distribution.figure.parentElement;
new Search();

feed.addEventListener("page", ({ detail }) => {
  board.show(detail);
  card.refresh();
});
feed.addEventListener("failed", () => board.fail());
card.addEventListener("standing", ({ detail }) => {
  distribution.mark(detail);
  board.mark(cardOf(location.hash));
});
// Under a card that covers the page nobody would see the histogram, so the card takes it along.
card.addEventListener("place", () => (card.isOver ? card.slot : aside).append(distribution.figure));

// The address is the card's; to skip to the board must not close it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("board").focus();
});

function wake() {
  feed.start();
  health.start();
  distribution.start();
}

function rest() {
  feed.stop();
  health.stop();
  distribution.stop();
}

let resting = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(resting);
  if (document.hidden) resting = setTimeout(rest, HIDDEN_MS);
  else wake();
});
// A page that the browser keeps for the way back must hold no connection.
addEventListener("pagehide", rest);
addEventListener("pageshow", ({ persisted }) => persisted && wake());
addEventListener("online", wake);

wake();
card.start();
