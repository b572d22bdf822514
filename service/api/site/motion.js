// Moves rows from where they were to where they are, unless the visitor asks for less motion.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const MOVE = { duration: 520, easing: "cubic-bezier(.2, .8, .2, 1)" };
const FLASH = { duration: 1_800, easing: "ease-out", pseudoElement: "::before" };
const MARGIN = 200;

/** Each row's last move and the offset (px) that it began with. */
const moves = new WeakMap();

/** Return how far (px) a row is from its place at this moment. */
function offset(row) {
  const { move, start } = moves.get(row) ?? {};
  const progress = move?.effect.getComputedTiming().progress;
  return Number.isFinite(progress) ? start * (1 - progress) : 0;
}

/** Return the numbers of a longest rising sequence among distinct numbers. O(n log n). */
function rising(numbers) {
  // The lowest last number of a sequence of each length, and what each number follows in its sequence.
  const [lasts, previous] = [[], new Map()];
  for (const number of numbers) {
    let [low, high] = [0, lasts.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lasts[middle] < number) low = middle + 1;
      else high = middle;
    }
    previous.set(number, lasts[low - 1]);
    lasts[low] = number;
  }
  const found = new Set();
  for (let number = lasts.at(-1); number !== undefined; number = previous.get(number)) found.add(number);
  return found;
}

/** Put rows, new ones too, into this order within a body that holds no others; as few as possible are moved. */
export function reorder(body, rows) {
  const places = new Map([...body.children].map((row, place) => [row, place]));
  const staying = rising(rows.map((row) => places.get(row)).filter((place) => place !== undefined));
  let following = null;
  for (const row of rows.reverse()) {
    if (!staying.has(places.get(row))) body.insertBefore(row, following);
    following = row;
  }
}

/**
 * Carry out `change`, which puts the rows of a body into another order; those in sight travel there, `changed` ones flash.
 *
 * All rows are of one height, so their order tells where they are. To measure each of a thousand would cost a layout of
 * all of them, twice. A move begins where the one before it has got to, and runs beside the page's own thread.
 */
export function travel(body, changed, change) {
  if (still.matches || document.hidden || !body.children.length) {
    change();
    return;
  }
  const { top, height } = body.getBoundingClientRect();
  const each = height / body.children.length;
  const before = new Map([...body.children].map((row, place) => [row, place]));
  change();
  const inView = (place) => top + (place + 1) * each > -MARGIN && top + place * each < innerHeight + MARGIN;
  [...body.children].forEach((row, place) => {
    const isSeen = inView(place);
    if (isSeen && changed.has(row)) row.animate([{ opacity: 1 }, { opacity: 0 }], FLASH);
    const from = before.get(row);
    if (from === undefined || from === place || !(isSeen || inView(from))) return;
    const start = (from - place) * each + offset(row);
    const move = row.animate([{ transform: `translateY(${start}px)` }, { transform: "none" }], MOVE);
    moves.get(row)?.move.cancel();
    moves.set(row, { move, start });
    // A row that climbs passes over the others.
    row.classList.toggle("climbing", from > place);
    move.onfinish = () => row.classList.remove("climbing");
  });
}

/** Let a row that is new come into sight. */
export function appear(row) {
  if (!still.matches) row.animate([{ opacity: 0 }, { opacity: 1 }], MOVE);
}
