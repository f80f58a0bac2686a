// Draw a symbol of your own a few times, and the network learns it here.

import type { Mha } from "mha/train";

import type { Data } from "../data.js";
import { colour, find, lines, make, onLook, paper } from "../dom.js";
import { best } from "../nets/arithmetic.js";
import type { Digits } from "../nets/digits.js";
import { Pupil, STEPS } from "../nets/symbol.js";
import { type Drawing, paintBlocks } from "./draw.js";

/** The least drawings to learn from, and the most. */
const [LEAST, MOST] = [3, 12];

/** Milliseconds of learning between two frames. */
const SLICE = 12;

/** Starts the part of the page. */
export function teach(mha: Mha, data: Data, teacher: Digits, drawing: Drawing): void {
  const [keep, learn, forget] = ["keep", "learn", "forget"].map((id) => find<HTMLButtonElement>(id)) as [
    HTMLButtonElement,
    HTMLButtonElement,
    HTMLButtonElement,
  ];
  const [name, said, kept] = [find<HTMLInputElement>("name"), find("lesson"), find("kept")];
  let drawings: Uint8Array[] = [];
  let pupil: Pupil | undefined;
  let losses: number[] = [];
  let frame = 0;

  /** What can be pressed now. */
  const allow = (): void => {
    keep.disabled = drawing.drawn === undefined || frame !== 0 || drawings.length === MOST;
    learn.disabled = drawings.length < LEAST || frame !== 0;
    forget.disabled = drawings.length === 0;
    name.disabled = frame !== 0;
  };
  const look = (): void => {
    const canvases = [...kept.querySelectorAll("canvas")];
    canvases.forEach((canvas, i) => {
      const { context, width } = paper(canvas);
      paintBlocks(context, drawings[i], width);
    });
    paintLosses(find("loss"), losses);
    allow();
  };

  /** Goes back to the network that knows digits alone. */
  const unlearn = (): void => {
    cancelAnimationFrame(frame);
    frame = 0;
    losses = [];
    drawing.answerBy(teacher);
    pupil?.dispose();
    pupil = undefined;
  };

  keep.onclick = () => {
    drawings.push(drawing.drawn!);
    const canvas = make("canvas", kept);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Drawing ${drawings.length}`);
    const missing = LEAST - drawings.length;
    said.textContent =
      missing > 0 ? `Kept ${drawings.length}. Draw it again, a little differently: ${missing} more.` : `Kept ${drawings.length}. Let it learn, or draw it again.`;
    drawing.clear();
    look();
  };

  learn.onclick = () => {
    unlearn();
    const symbol = name.value.trim() || "?";
    const lesson = (pupil = new Pupil(mha, data.digits, teacher, data.rehearsals, drawings));
    let spent = 0;
    said.textContent = `Learning ${symbol} …`;
    const some = (): void => {
      const start = performance.now();
      while (lesson.done < 1 && performance.now() - start < SLICE) {
        losses.push(lesson.step());
      }
      spent += performance.now() - start;
      frame = lesson.done < 1 ? requestAnimationFrame(some) : 0;
      drawing.answerBy(lesson.digits, symbol);
      if (frame === 0) {
        const known = data.images.filter((image, digit) => best(lesson.digits.classify(image).logits) === digit).length;
        const seconds = (spent / 1000).toFixed(1);
        said.textContent = `Learned ${symbol} from ${drawings.length} drawings: ${STEPS} steps in ${seconds} s. It still knows ${known} of the 10 digits above. Draw ${symbol} again.`;
      }
      look();
    };
    frame = requestAnimationFrame(some);
    allow();
  };

  forget.onclick = () => {
    unlearn();
    drawings = [];
    kept.textContent = "";
    said.textContent = "Forgotten: it knows the ten digits again, and nothing else.";
    look();
  };

  drawing.onDrawn = allow;
  onLook(look);
  look();
}

/** The loss, step by step. */
function paintLosses(canvas: HTMLCanvasElement, losses: readonly number[]): void {
  const { context, width, height } = paper(canvas);
  const [left, bottom, top] = [30, 22, 10];
  const most = Math.max(0.5, ...losses);
  const y = (loss: number): number => top + (1 - loss / most) * (height - top - bottom);
  lines(context, left, width, [0, most / 2, most].map((loss) => [y(loss), loss.toFixed(2)]));
  context.textAlign = "center";
  context.fillText(`${STEPS} steps`, (left + width) / 2, height - 7);
  context.strokeStyle = colour("accent");
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.beginPath();
  losses.forEach((loss, i) => context.lineTo(left + ((i + 0.5) * (width - left - 8)) / STEPS, y(loss)));
  context.stroke();
  const now = losses.at(-1);
  canvas.setAttribute("aria-label", now === undefined ? "How wrong it is: nothing learned yet" : `How wrong it is: ${losses[0]!.toFixed(2)} at first, ${now.toFixed(2)} now`);
}
