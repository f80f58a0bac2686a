// Draw a digit, and watch the answer and every head change.

import type { Attention, AttentionView, Selection } from "mha/view";

import { Bars, button, colour, find, make, milliseconds, onLook, paper, percent } from "../dom.js";
import { image } from "../drawing.js";
import { best, softmax } from "../nets/arithmetic.js";
import { type Digits, PATCHES } from "../nets/digits.js";

/** Pixels along a side of the bitmap that is drawn on, and the radius of the pen. */
const [SIDE, PEN] = [280, 10];

/** The names of the patches: row and column. */
const NAMES = Array.from({ length: PATCHES }, (_, i) => `${"ABCD"[i >> 2]}${(i & 3) + 1}`);

/** The names of the digits. */
const DIGITS: readonly string[] = Array.from({ length: 10 }, (_, digit) => String(digit));

/** Colours of the heads, as the view has them. */
const HUES = [
  ["#2457c5", "#b3460f", "#0f7a4d", "#9a2c93"],
  ["#7fa8ff", "#ff9a63", "#4fd39a", "#ea8be3"],
] as const;

type Point = readonly [number, number];

/** What is drawn, for those who want to learn from it. */
export interface Drawing {
  /** The image of what is drawn by hand; undefined where nothing is. */
  readonly drawn: Uint8Array | undefined;
  /** Answers by a network from now on, whose class beyond the digits has this name; or again, where it has changed. */
  answerBy(digits: Digits, name?: string): void;
  /** Takes a new sheet. */
  clear(): void;
  /** What to do where something else is drawn. */
  onDrawn: () => void;
}

/** Starts the part of the page. */
export function draw(digits: Digits, images: readonly Uint8Array[]): Drawing {
  const [pad, small] = [find<HTMLCanvasElement>("pad"), find<HTMLCanvasElement>("image")];
  const view = find<AttentionView>("digit-view");
  let names = DIGITS;
  const bars = new Bars("digits", names);
  const ink = new Uint8Array(SIDE * SIDE);
  let strokes: Point[][] = [];
  let shown: Uint8Array | undefined;
  let scores: Float32Array | undefined;
  let patch: number | undefined;

  const tiles = Array.from({ length: digits.heads }, (_, head) => {
    const figure = make("figure", find("tiles"));
    const canvas = make("canvas", figure);
    canvas.setAttribute("role", "img");
    make("figcaption", figure, `Head ${head + 1}`);
    canvas.onpointerdown = (event) => {
      const found = patchAt(canvas, event);
      view.lock(found === patch ? undefined : found);
    };
    return { canvas, caption: figure.querySelector("figcaption")! };
  });

  /** Puts ink from one point to the next. */
  const stroke = ([ax, ay]: Point, [bx, by]: Point): void => {
    const [dx, dy] = [bx - ax, by - ay];
    const [top, bottom] = [Math.max(0, Math.floor(Math.min(ay, by) - PEN)), Math.min(SIDE - 1, Math.ceil(Math.max(ay, by) + PEN))];
    const [left, right] = [Math.max(0, Math.floor(Math.min(ax, bx) - PEN)), Math.min(SIDE - 1, Math.ceil(Math.max(ax, bx) + PEN))];
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const along = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
        const [ox, oy] = [x - ax - along * dx, y - ay - along * dy];
        if (ox * ox + oy * oy < PEN * PEN) {
          ink[y * SIDE + x] = 255;
        }
      }
    }
  };

  const look = (): void => {
    paintPad(pad, strokes, strokes.length === 0 ? shown : undefined);
    paintImage(small, shown);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    tiles.forEach(({ canvas, caption }, head) => {
      const hue = HUES[dark ? 1 : 0][head % 4]!;
      caption.style.color = hue;
      const weights = scores && row(scores, head, patch);
      paintTile(canvas, shown, weights, patch, hue);
      const most = weights && weights.indexOf(Math.max(...weights));
      const said = most === undefined ? "nothing yet" : `most at patch ${NAMES[most]}`;
      canvas.setAttribute("aria-label", `Head ${head + 1} looks ${said}`);
    });
    find("looks").textContent = patch === undefined ? "What each head looks at" : `What patch ${NAMES[patch]} looks at`;
  };

  const show = (pixels: Uint8Array | undefined): void => {
    shown = pixels;
    const seen = pixels && digits.classify(pixels);
    scores = seen?.scores;
    const probabilities = seen && softmax(seen.logits);
    const answer = seen && best(seen.logits);
    find("answer").textContent = answer === undefined ? "–" : names[answer]!;
    find("sure").textContent = answer === undefined ? "draw something" : `${percent(probabilities![answer]!)} sure`;
    bars.show(probabilities, (i) => (i === answer ? "best" : undefined));
    if (seen !== undefined) {
      view.attention = { scores: seen.scores, heads: digits.heads, queries: NAMES } satisfies Attention;
    } else {
      view.attention = undefined;
    }
    look();
    drawing.onDrawn();
  };

  const clear = (): void => {
    strokes = [];
    ink.fill(0);
    view.lock(undefined);
    show(undefined);
  };

  let waiting = 0;
  const later = (): void => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      show(image(ink, SIDE));
    });
  };
  const at = (event: PointerEvent): Point => {
    const { left, top, width, height } = pad.getBoundingClientRect();
    return [((event.clientX - left) * SIDE) / width, ((event.clientY - top) * SIDE) / height];
  };
  pad.onpointerdown = (event) => {
    if (event.button !== 0) {
      return;
    }
    event.preventDefault();
    pad.setPointerCapture(event.pointerId);
    const point = at(event);
    strokes.push([point]);
    stroke(point, point);
    later();
  };
  pad.onpointermove = (event) => {
    const line = strokes.at(-1);
    if (!pad.hasPointerCapture(event.pointerId) || line === undefined) {
      return;
    }
    // All that lay between two frames, so that a fast stroke stays round.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length > 0 ? events : [event]) {
      const point = at(each);
      stroke(line.at(-1)!, point);
      line.push(point);
    }
    later();
  };

  DIGITS.forEach((name, digit) => {
    button(find("samples"), name, `A ${name} from the test data`, () => {
      clear();
      show(images[digit]);
    });
  });
  find("clear").onclick = clear;
  small.onpointerdown = (event) => {
    const found = patchAt(small, event);
    view.lock(found === patch ? undefined : found);
  };
  view.addEventListener("attention-select", (event) => {
    const { query } = (event as CustomEvent<Selection>).detail;
    if (query !== patch) {
      patch = query;
      look();
    }
  });
  onLook(look);
  const drawing: Drawing = {
    get drawn() {
      return strokes.length > 0 ? shown : undefined;
    },
    answerBy(network, name) {
      digits = network;
      if (name !== names[DIGITS.length]) {
        names = name === undefined ? DIGITS : [...DIGITS, name];
        bars.name(names);
      }
      show(shown);
    },
    clear,
    onDrawn() {},
  };
  show(images[3]);
  time(digits, images[3]!);
  return drawing;
}

/** Says how long an inference takes: the mean over some, since a clock of a browser is coarse. */
function time(digits: Digits, pixels: Uint8Array): void {
  for (let i = 0; i < 30; i++) {
    digits.classify(pixels);
  }
  const start = performance.now();
  let count = 0;
  for (; performance.now() - start < 12; count++) {
    digits.classify(pixels);
  }
  find("ms").textContent = milliseconds((performance.now() - start) / count);
}

/** How much a patch looks at each; the mean of all where none is chosen. */
function row(scores: Float32Array, head: number, patch: number | undefined): number[] {
  const at = (query: number, key: number): number => scores[(head * PATCHES + query) * PATCHES + key]!;
  return Array.from({ length: PATCHES }, (_, key) => {
    if (patch !== undefined) {
      return at(patch, key);
    }
    let sum = 0;
    for (let query = 0; query < PATCHES; query++) {
      sum += at(query, key);
    }
    return sum / PATCHES;
  });
}

/** The patch under the pointer. */
function patchAt(canvas: HTMLCanvasElement, event: PointerEvent): number {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const place = (part: number): number => Math.max(0, Math.min(3, Math.floor(4 * part)));
  return 4 * place((event.clientY - top) / height) + place((event.clientX - left) / width);
}

function paintPad(canvas: HTMLCanvasElement, strokes: readonly (readonly Point[])[], pixels: Uint8Array | undefined): void {
  const { context, width } = paper(canvas);
  paintBlocks(context, pixels, width);
  context.scale(width / SIDE, width / SIDE);
  context.strokeStyle = colour("ink");
  context.lineWidth = 2 * PEN;
  context.lineCap = context.lineJoin = "round";
  for (const line of strokes) {
    context.beginPath();
    line.forEach(([x, y], i) => (i === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
    context.lineTo(...line.at(-1)!);
    context.stroke();
  }
}

/** The ink of an image as blocks of a square. */
export function paintBlocks(context: CanvasRenderingContext2D, pixels: Uint8Array | undefined, side: number, strength = 1): void {
  context.fillStyle = colour("ink");
  pixels?.forEach((ink, i) => {
    context.globalAlpha = (strength * ink) / 16;
    const [x, y] = [(i & 7) * (side / 8), (i >> 3) * (side / 8)];
    context.fillRect(x, y, side / 8, side / 8);
  });
  context.globalAlpha = 1;
}

function grid(context: CanvasRenderingContext2D, side: number): void {
  context.strokeStyle = colour("line");
  context.lineWidth = 1;
  context.beginPath();
  for (let i = 0; i <= 4; i++) {
    const at = Math.min(side - 0.5, Math.round((i * side) / 4) + 0.5);
    context.moveTo(at, 0);
    context.lineTo(at, side);
    context.moveTo(0, at);
    context.lineTo(side, at);
  }
  context.stroke();
}

function paintImage(canvas: HTMLCanvasElement, pixels: Uint8Array | undefined): void {
  const { context, width } = paper(canvas);
  paintBlocks(context, pixels, width);
  grid(context, width);
  context.fillStyle = colour("muted");
  context.font = "10px system-ui, sans-serif";
  NAMES.forEach((name, i) => {
    if (!inked(pixels, i)) {
      context.fillText(name, ((i & 3) * width) / 4 + 4, ((i >> 2) * width) / 4 + 13);
    }
  });
}

/** Whether there is ink where the name of a patch would stand. */
function inked(pixels: Uint8Array | undefined, patch: number): boolean {
  return pixels !== undefined && pixels[(patch >> 2) * 16 + (patch & 3) * 2]! > 3;
}

function paintTile(
  canvas: HTMLCanvasElement,
  pixels: Uint8Array | undefined,
  weights: readonly number[] | undefined,
  patch: number | undefined,
  hue: string,
): void {
  const { context, width } = paper(canvas);
  paintBlocks(context, pixels, width, 0.28);
  context.fillStyle = hue;
  weights?.forEach((weight, i) => {
    context.globalAlpha = 0.85 * Math.sqrt(weight);
    context.fillRect(((i & 3) * width) / 4, ((i >> 2) * width) / 4, width / 4, width / 4);
  });
  context.globalAlpha = 1;
  grid(context, width);
  if (patch !== undefined) {
    context.strokeStyle = colour("ink");
    context.lineWidth = 2;
    context.strokeRect(((patch & 3) * width) / 4 + 1, ((patch >> 2) * width) / 4 + 1, width / 4 - 2, width / 4 - 2);
  }
}
