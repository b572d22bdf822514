// Moves rows from where they were to where they are, unless the visitor wants things to stand still.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const MOVE = { duration: 520, easing: "cubic-bezier(.2, .8, .2, 1)" };
const FLASH = { duration: 1_800, easing: "ease-out" };

const moves = new WeakMap();

const inView = ({ top, bottom }) => bottom > -200 && top < innerHeight + 200;

/** Carry out `change`, which puts rows elsewhere, and let those that moved and can be seen travel there. */
export function travel(rows, change) {
  if (still.matches || document.hidden) {
    change();
    return;
  }
  // Where they are at this moment, in the middle of a move too.
  const before = new Map(rows.map((row) => [row, row.getBoundingClientRect()]));
  change();
  for (const row of before.keys()) moves.get(row)?.cancel();
  const seen = [...before].filter(([row]) => row.isConnected).map(([row, from]) => [row, from, row.getBoundingClientRect()]);
  for (const [row, from, to] of seen) {
    const distance = from.top - to.top;
    if (Math.abs(distance) < 1 || !(inView(from) || inView(to))) continue;
    // Who climbs passes over the others.
    const lift = distance > 0 ? 2 : 1;
    const frames = [{ transform: `translateY(${distance}px)`, zIndex: lift }, { transform: "none", zIndex: lift }];
    moves.set(row, row.animate(frames, MOVE));
  }
}

/** Let a row that is new come into sight. */
export function appear(row) {
  if (!still.matches) row.animate([{ opacity: 0 }, { opacity: 1 }], MOVE);
}

/** Light a row up in the colour of a variable. */
export function flash(row, colour) {
  if (still.matches) return;
  row.animate([{ backgroundColor: `var(${colour})` }, { backgroundColor: "transparent" }], FLASH);
}
