// A drawing as a list of marks, so that the screen, an SVG and a PNG show the same.

import { type Checked, exact, score, strength, visible } from "./attention.js";
import { type Colours, hue } from "./colour.js";

/** A mark. */
export type Mark =
  | { kind: "box"; x: number; y: number; w: number; h: number; fill: string; opacity: number; tip?: string }
  | { kind: "frame"; x: number; y: number; w: number; h: number; stroke: string; width: number }
  | { kind: "hatch"; x: number; y: number; w: number; h: number; stroke: string }
  | { kind: "text"; x: number; y: number; text: string; fill: string; size: number; anchor: "start" | "middle" | "end"; turn?: boolean; bold?: boolean };

/** A matrix of one head on the paper. */
export interface Matrix {
  /** Where its cells begin. */
  readonly x: number;
  readonly y: number;
  /** The side of a cell. */
  readonly cell: number;
}

/** Room for the names of tokens, by their lengths; letters are about so wide. */
const LETTER = 6.2;
const SIZE = 11;

/** The longest name that is written out. */
const LONGEST = 12;

const short = (name: string): string => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name);

/** Room that names take. */
export function room(names: readonly string[]): number {
  return 10 + LETTER * Math.max(1, ...names.map((name) => short(name).length));
}

/** Whether names stand across their columns: where they would not fit side by side. */
function turned(keys: readonly string[], cell: number): boolean {
  return room(keys) - 4 > cell * step(cell);
}

/** Every how many tokens a name is written. */
function step(cell: number): number {
  return Math.max(1, Math.ceil(14 / cell));
}

/** Where the matrix lies whose names begin at (0, 0). */
export function place(attention: Checked, cell: number): Matrix {
  const { queries, keys } = attention;
  return { x: room(queries), y: turned(keys, cell) ? room(keys) : 20, cell };
}

/** The cells of a head, without names. */
export function cells(attention: Checked, head: number, { x, y, cell }: Matrix, colours: Colours, tips = false): Mark[] {
  const { queries, keys, causal } = attention;
  const [w, h] = [keys.length * cell, queries.length * cell];
  const fill = hue(colours, head);
  const marks: Mark[] = [];
  const gap = cell >= 8 ? 1 : 0;
  for (let query = 0; query < queries.length; query++) {
    // What the causal rule hides lies at the end of the row.
    const end = causal === undefined ? keys.length : Math.max(0, Math.min(keys.length, query + causal + 1));
    if (end < keys.length) {
      marks.push({ kind: "hatch", x: x + end * cell, y: y + query * cell, w: (keys.length - end) * cell, h: cell, stroke: colours.line });
    }
    for (let key = 0; key < end; key++) {
      const value = score(attention, head, query, key);
      const [left, top] = [x + key * cell, y + query * cell];
      if (!visible(attention, query, key, value)) {
        marks.push({ kind: "hatch", x: left, y: top, w: cell, h: cell, stroke: colours.line });
        continue;
      }
      const opacity = Number.isNaN(value) ? 1 : strength(attention, value);
      if (opacity > 0.004) {
        const box: Mark = { kind: "box", x: left, y: top, w: cell - gap, h: cell - gap, fill: Number.isNaN(value) ? colours.muted : fill, opacity };
        marks.push(tips ? { ...box, tip: `${queries[query]} → ${keys[key]}: ${exact(value)}` } : box);
      }
    }
  }
  marks.push({ kind: "frame", x: x - 0.5, y: y - 0.5, w: w + 1 - gap, h: h + 1 - gap, stroke: colours.line, width: 1 });
  return marks;
}

/** The names beside and above a matrix; those of a query and a key that are pointed at are strong. */
export function labels(attention: Checked, { x, y, cell }: Matrix, colours: Colours, query = -1, key = -1): Mark[] {
  const { queries, keys } = attention;
  const every = step(cell);
  const marks: Mark[] = [];
  const across = turned(keys, cell);
  const fill = (here: boolean): string => (here ? colours.ink : colours.muted);
  queries.forEach((name, i) => {
    const here = i === query;
    if (i % every === 0 || here) {
      marks.push({ kind: "text", x: x - 6, y: y + (i + 0.5) * cell + 4, text: short(name), fill: fill(here), size: SIZE, anchor: "end", bold: here });
    }
  });
  keys.forEach((name, i) => {
    const here = i === key;
    if (i % every === 0 || here) {
      const [left, top] = [x + (i + 0.5) * cell + (across ? 4 : 0), y - 6];
      marks.push({ kind: "text", x: left, y: top, text: short(name), fill: fill(here), size: SIZE, anchor: across ? "start" : "middle", turn: across, bold: here });
    }
  });
  return marks;
}

/** All heads side by side, with their names: what is exported. */
export function sheet(attention: Checked, colours: Colours, cell: number): { marks: Mark[]; width: number; height: number } {
  const { heads, queries, keys } = attention;
  const inner = place(attention, cell);
  const [w, h] = [inner.x + keys.length * cell + 20, inner.y + queries.length * cell + 34];
  const columns = Math.max(1, Math.min(heads, Math.round(Math.sqrt((heads * h * 1.6) / w))));
  const [width, height] = [columns * w + 12, Math.ceil(heads / columns) * h + 12];
  const marks: Mark[] = [{ kind: "box", x: 0, y: 0, w: width, h: height, fill: colours.paper, opacity: 1 }];
  for (let head = 0; head < heads; head++) {
    const [left, top] = [12 + (head % columns) * w, 12 + Math.floor(head / columns) * h];
    const at = { x: left + inner.x, y: top + inner.y + 20, cell };
    marks.push({ kind: "text", x: at.x, y: top + 12, text: `Head ${head + 1}`, fill: hue(colours, head), size: 13, anchor: "start", bold: true });
    marks.push(...labels(attention, at, colours), ...cells(attention, head, at, colours, true));
  }
  return { marks, width, height };
}
