// Small things that every part of the page does.

/** The element of this id. */
export function find<Kind extends HTMLElement>(id: string): Kind {
  const found = document.getElementById(id);
  if (found === null) {
    throw new Error(`the page has no ${id}`);
  }
  return found as Kind;
}

/** A colour of the style sheet, as it is now: light or dark. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Makes a new element in another. */
export function make<Name extends keyof HTMLElementTagNameMap>(name: Name, parent: Node, text = ""): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  element.textContent = text;
  parent.appendChild(element);
  return element;
}

/** A button that does something. */
export function button(parent: Node, text: string, label: string, press: () => void): HTMLButtonElement {
  const made = make("button", parent, text);
  made.type = "button";
  if (label !== text) {
    made.setAttribute("aria-label", label);
  }
  made.onclick = press;
  return made;
}

/** Empty paper on a canvas, as sharp as the screen; one unit is a pixel of the style sheet. */
export function paper(canvas: HTMLCanvasElement): { context: CanvasRenderingContext2D; width: number; height: number } {
  const [width, height] = [canvas.clientWidth || 1, canvas.clientHeight || 1];
  const ratio = devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
  }
  const context = canvas.getContext("2d")!;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Lines across a diagram, from `left` on, each with what it says beside it. */
export function lines(context: CanvasRenderingContext2D, left: number, width: number, all: readonly (readonly [y: number, text: string])[]): void {
  context.strokeStyle = colour("line");
  context.fillStyle = colour("muted");
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  context.textAlign = "end";
  for (const [y, text] of all) {
    context.beginPath();
    context.moveTo(left, Math.round(y) + 0.5);
    context.lineTo(width - 8, Math.round(y) + 0.5);
    context.stroke();
    context.fillText(text, left - 6, y + 4);
  }
}

/** Redraws where the window or the colours change. */
export function onLook(draw: () => void): void {
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

/** A table of bars, a row for each class. */
export class Bars {
  readonly #body: Element;
  #rows: { row: HTMLElement; bar: HTMLElement; value: HTMLElement }[] = [];

  constructor(id: string, names: readonly string[]) {
    this.#body = find(id).querySelector("tbody")!;
    this.name(names);
  }

  /** Takes other classes. */
  name(names: readonly string[]): void {
    const body = this.#body;
    body.textContent = "";
    this.#rows = names.map((name) => {
      const row = make("tr", body);
      make("th", row, name).scope = "row";
      const bar = make("i", make("td", row));
      return { row, bar, value: make("td", row) };
    });
  }

  /** Shows probabilities; `mark` says what is special about a row. */
  show(probabilities: readonly number[] | undefined, mark: (index: number) => string | undefined): void {
    this.#rows.forEach(({ row, bar, value }, i) => {
      const probability = probabilities?.[i] ?? 0;
      bar.style.width = `${100 * probability}%`;
      value.textContent = probabilities === undefined ? "" : percent(probability);
      for (const name of ["best", "right", "wrong"]) {
        row.removeAttribute(`data-${name}`);
      }
      const special = probabilities === undefined ? undefined : mark(i);
      if (special !== undefined) {
        row.setAttribute(`data-${special}`, "");
      }
    });
  }
}

/** A probability for the eye. */
export const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;

/** Milliseconds for the eye. */
export const milliseconds = (ms: number): string => `${ms.toPrecision(2)} ms`;
