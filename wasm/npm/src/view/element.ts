// <attention-view>: every head small, one head large, the row of one token in numbers.

import { type Attention, check, type Checked, exact, score, visible } from "./attention.js";
import { type Colours, DARK, hue, LIGHT } from "./colour.js";
import { paint } from "./paint.js";
import { cells, labels, type Matrix, place, room, sheet } from "./scene.js";
import { STYLE } from "./style.js";
import { attentionSvg } from "./svg.js";

/** What is pointed at. */
export interface Selection {
  /** The large head. */
  readonly head: number;
  /** The token that asks; undefined where none is pointed at. */
  readonly query: number | undefined;
  /** The token that is looked at. */
  readonly key: number | undefined;
  /** Whether the token that asks stays while the pointer moves on. */
  readonly locked: boolean;
}

/** Where there are no elements, as in Node, the module can still be imported. */
const Base: typeof HTMLElement = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

/** The largest and the smallest side of a cell. */
const [LARGEST, SMALLEST] = [38, 4];

/** The side of a small head. */
const SMALL = 84;

/** How many keys are listed in numbers; of more, those with the most weight. */
const LISTED = 64;

/**
 * A custom element that draws the scores of every head. {@link defineAttentionView} gives it its name.
 *
 * Point at a cell to read a token's row, click to lock it. With the keyboard: the arrows move, Enter locks,
 * Escape lets go, Home and End go to the ends of a row. An event `attention-select` with a {@link Selection}
 * as its `detail` says what is pointed at.
 *
 * @example
 * ```ts
 * defineAttentionView();
 * const view = document.querySelector("attention-view") as AttentionView;
 * view.attention = { scores, heads: 8, queries: ["the", "cat", "sat"], causal: true };
 * ```
 */
export class AttentionView extends Base {
  #attention: Checked | undefined;
  #given: Attention | undefined;
  #head = 0;
  #query: number | undefined;
  #key: number | undefined;
  #locked = false;
  #matrix: Matrix = { x: 0, y: 0, cell: LARGEST };
  #colours: Colours = LIGHT;
  #dark = false;
  #parts: Parts | undefined;
  #frame = 0;
  #watch: ResizeObserver | undefined;
  #media: MediaQueryList | undefined;
  readonly #themed = (): void => this.refresh();

  /** What is to be seen. Setting it again redraws and keeps what is locked, as far as that is still there. */
  get attention(): Attention | undefined {
    return this.#given;
  }

  set attention(attention: Attention | undefined) {
    this.#attention = attention === undefined ? undefined : check(attention);
    this.#given = attention;
    const { heads = 0, queries = [], keys = [] } = this.#attention ?? {};
    this.#head = Math.min(this.#head, Math.max(0, heads - 1));
    if (this.#query !== undefined && this.#query >= queries.length) {
      this.#query = this.#key = undefined;
      this.#locked = false;
    }
    if (this.#key !== undefined && this.#key >= keys.length) {
      this.#key = undefined;
    }
    this.#draw();
  }

  /** The large head, from 0. */
  get head(): number {
    return this.#head;
  }

  set head(head: number) {
    if (this.#attention !== undefined && head >= 0 && head < this.#attention.heads) {
      this.#select({ head });
    }
  }

  /** What is pointed at. */
  get selection(): Selection {
    return { head: this.#head, query: this.#query, key: this.#key, locked: this.#locked };
  }

  /** Points at a token that asks, and locks it; `undefined` lets go. */
  lock(query: number | undefined): void {
    if (query === undefined) {
      this.#select({ query, key: undefined, locked: false });
    } else if (this.#attention !== undefined && query >= 0 && query < this.#attention.queries.length) {
      this.#select({ query, key: undefined, locked: true });
    }
  }

  /** Draws again with the colours of now. Needed only where a page changes `color-scheme` by itself. */
  refresh(): void {
    this.#draw();
  }

  /** All heads as an SVG document. Empty where there is nothing to be seen. */
  toSVG(): string {
    return this.#given === undefined ? "" : attentionSvg(this.#given, { dark: this.#dark });
  }

  /** All heads as a PNG, `scale` device pixels a pixel. */
  toPNG(scale = 2): Promise<Blob> {
    const canvas = document.createElement("canvas");
    if (this.#attention !== undefined) {
      const { marks, width, height } = sheet(this.#attention, this.#colours, 18);
      [canvas.width, canvas.height] = [Math.ceil(width * scale), Math.ceil(height * scale)];
      const context = canvas.getContext("2d") as CanvasRenderingContext2D;
      context.scale(scale, scale);
      paint(context, marks);
    }
    return new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob === null ? reject(new Error("the picture is too large")) : resolve(blob))),
    );
  }

  /** Every score by head, query and key, with the names of the tokens. What is not a number is its text. */
  toJSON(): object {
    const { heads = 0, queries = [], keys = [], causal } = this.#attention ?? {};
    const value = (v: number): number | string => (Number.isFinite(v) ? Number(exact(v)) : String(v));
    const attention = this.#attention;
    const scores =
      attention &&
      Array.from({ length: heads }, (_, h) => queries.map((_, q) => keys.map((_, k) => value(score(attention, h, q, k)))));
    return { heads, queries, keys, ...(causal === undefined ? {} : { causal }), scores: scores ?? [] };
  }

  /** @internal */
  connectedCallback(): void {
    this.#parts ??= build(this.shadowRoot ?? this.attachShadow({ mode: "open" }));
    const { matrix, save } = this.#parts;
    matrix.onpointermove = (event) => this.#point(event, false);
    matrix.onpointerdown = (event) => this.#point(event, event.button === 0);
    matrix.onpointerleave = () => this.#locked || this.#select({ query: undefined, key: undefined });
    matrix.onkeydown = (event) => this.#press(event);
    save.svg.onclick = () => download(new Blob([this.toSVG()], { type: "image/svg+xml" }), "attention.svg");
    save.png.onclick = () => void this.toPNG().then((blob) => download(blob, "attention.png"));
    save.json.onclick = () => download(new Blob([JSON.stringify(this)], { type: "application/json" }), "attention.json");
    this.#watch = new ResizeObserver(this.#themed);
    this.#watch.observe(this);
    this.#media = matchMedia("(prefers-color-scheme: dark)");
    this.#media.addEventListener("change", this.#themed);
    this.#draw();
  }

  /** @internal */
  disconnectedCallback(): void {
    this.#watch?.disconnect();
    this.#media?.removeEventListener("change", this.#themed);
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  #select(change: Partial<Selection>): void {
    const before = this.selection;
    const next = { ...before, ...change };
    if (next.head === before.head && next.query === before.query && next.key === before.key && next.locked === before.locked) {
      return;
    }
    this.#head = next.head;
    this.#query = next.query;
    this.#key = next.key;
    this.#locked = next.locked;
    this.#draw();
    this.dispatchEvent(new CustomEvent<Selection>("attention-select", { detail: this.selection, bubbles: true, composed: true }));
  }

  #point(event: PointerEvent, press: boolean): void {
    const attention = this.#attention;
    if (attention === undefined || this.#parts === undefined) {
      return;
    }
    const { x, y, cell } = this.#matrix;
    const bounds = this.#parts.canvas.getBoundingClientRect();
    const key = Math.floor((event.clientX - bounds.left - x) / cell);
    const query = Math.floor((event.clientY - bounds.top - y) / cell);
    const named = event.clientX - bounds.left < x;
    const inside = query >= 0 && query < attention.queries.length && (named || (key >= 0 && key < attention.keys.length));
    const column = inside && !named ? key : undefined;
    if (press) {
      const same = !inside || (this.#locked && this.#query === query);
      this.#select(same ? { query: undefined, key: undefined, locked: false } : { query, key: column, locked: true });
    } else if (!this.#locked) {
      this.#select({ query: inside ? query : undefined, key: column });
    } else if (inside && column !== undefined) {
      this.#select({ key: column });
    }
  }

  #press(event: KeyboardEvent): void {
    const attention = this.#attention;
    if (attention === undefined || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const [lastQuery, lastKey] = [attention.queries.length - 1, attention.keys.length - 1];
    const [query, key] = [this.#query ?? 0, this.#key ?? 0];
    const fresh = this.#query === undefined || this.#key === undefined;
    const to = (q: number, k: number): void =>
      this.#select(fresh ? { query, key } : { query: Math.max(0, Math.min(lastQuery, q)), key: Math.max(0, Math.min(lastKey, k)) });
    switch (event.key) {
      case "ArrowUp":
        to(query - 1, key);
        break;
      case "ArrowDown":
        to(query + 1, key);
        break;
      case "ArrowLeft":
        to(query, key - 1);
        break;
      case "ArrowRight":
        to(query, key + 1);
        break;
      case "Home":
        to(query, 0);
        break;
      case "End":
        to(query, lastKey);
        break;
      case "Enter":
      case " ":
        this.#select({ query, locked: !this.#locked });
        break;
      case "Escape":
        this.#select({ query: undefined, key: undefined, locked: false });
        break;
      default:
        return;
    }
    event.preventDefault();
    this.#announce(attention);
  }

  /** Says the cell aloud. */
  #announce(attention: Checked): void {
    if (this.#parts !== undefined) {
      this.#parts.status.textContent = this.#query === undefined ? "nothing locked" : this.#reading(attention);
    }
  }

  #draw(): void {
    if (this.#parts === undefined || !this.isConnected || this.#frame !== 0) {
      return;
    }
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#paint();
    });
  }

  #paint(): void {
    const [parts, attention] = [this.#parts, this.#attention];
    if (parts === undefined) {
      return;
    }
    this.#dark = isDark(this);
    this.toggleAttribute("data-dark", this.#dark);
    this.#colours = own(this.#dark ? DARK : LIGHT, parts.all);
    parts.all.hidden = attention === undefined;
    if (attention === undefined) {
      return;
    }
    parts.all.style.setProperty("--hue", hue(this.#colours, this.#head));
    this.#paintHeads(parts, attention);
    this.#paintMatrix(parts, attention);
    this.#fillRows(parts, attention);
    const [least, most] = attention.range;
    parts.scale.style.background = `linear-gradient(to right, transparent, ${hue(this.#colours, this.#head)})`;
    parts.least.textContent = exact(least);
    parts.most.textContent = exact(most);
  }

  #paintHeads(parts: Parts, attention: Checked): void {
    const { heads, queries, keys } = attention;
    while (parts.heads.length > heads) {
      parts.heads.pop()?.button.remove();
    }
    while (parts.heads.length < heads) {
      const head = parts.heads.length;
      const button = make("button", "head", parts.group);
      button.type = "button";
      const canvas = make("canvas", "", button);
      canvas.setAttribute("aria-hidden", "true");
      make("span", "", button).textContent = `Head ${head + 1}`;
      button.onclick = () => this.#select({ head });
      parts.heads.push({ button, canvas });
    }
    const cell = SMALL / Math.max(1, queries.length, keys.length);
    parts.heads.forEach(({ button, canvas }, head) => {
      button.setAttribute("aria-pressed", String(head === this.#head));
      button.style.setProperty("--hue", hue(this.#colours, head));
      const context = fit(canvas, SMALL, SMALL);
      const at = { x: (SMALL - keys.length * cell) / 2, y: (SMALL - queries.length * cell) / 2, cell };
      paint(context, cells(attention, head, at, this.#colours));
      if (this.#query !== undefined) {
        const { x, y } = at;
        paint(context, [{ kind: "frame", x, y: y + this.#query * cell, w: keys.length * cell, h: Math.max(cell, 1), stroke: this.#colours.ink, width: 1 }]);
      }
    });
  }

  #paintMatrix(parts: Parts, attention: Checked): void {
    const { queries, keys } = attention;
    const free = parts.matrix.clientWidth - room(queries) - 14;
    const cell = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(free / Math.max(1, keys.length))));
    this.#matrix = place(attention, cell);
    const { x, y } = this.#matrix;
    const [w, h] = [x + keys.length * cell + 14, y + queries.length * cell + 2];
    const context = fit(parts.canvas, w, h);
    const [query, key] = [this.#query, this.#key];
    paint(context, [
      ...cells(attention, this.#head, this.#matrix, this.#colours),
      ...labels(attention, this.#matrix, this.#colours, query, key),
    ]);
    const stroke = this.#colours.ink;
    if (query !== undefined) {
      const width = this.#locked ? 2 : 1;
      paint(context, [{ kind: "frame", x: x - 1, y: y + query * cell - 1, w: keys.length * cell + 1, h: cell + 1, stroke, width }]);
      if (key !== undefined) {
        paint(context, [{ kind: "frame", x: x + key * cell - 1, y: y + query * cell - 1, w: cell + 1, h: cell + 1, stroke, width: 2 }]);
      }
    }
    const lock = this.#locked ? " Locked." : "";
    parts.matrix.setAttribute(
      "aria-label",
      `Head ${this.#head + 1}: ${queries.length} tokens look at ${keys.length}.${lock} Arrows move, Enter locks, Escape lets go.`,
    );
  }

  /** The row of the token that asks, or the mean of all rows. */
  #fillRows(parts: Parts, attention: Checked): void {
    const { queries, keys } = attention;
    const query = this.#query;
    const values = keys.map((_, key) => {
      if (query !== undefined) {
        const value = score(attention, this.#head, query, key);
        return visible(attention, query, key, value) ? value : undefined;
      }
      const column = queries.map((_, q) => score(attention, this.#head, q, key)).filter(Number.isFinite);
      return column.length === 0 ? undefined : column.reduce((sum, value) => sum + value, 0) / queries.length;
    });
    const order = keys.map((_, key) => key);
    if (order.length > LISTED) {
      order.sort((a, b) => (values[b] ?? -Infinity) - (values[a] ?? -Infinity));
      order.length = LISTED;
    }
    parts.caption.textContent =
      query === undefined ? "What is looked at, on average" : `What “${queries[query]}” looks at${this.#locked ? " (locked)" : ""}`;
    const { rows } = parts;
    while (rows.length > order.length) {
      rows.pop()?.row.remove();
    }
    while (rows.length < order.length) {
      const row = make("tr", "", parts.body);
      const name = make("th", "", row);
      name.scope = "row";
      const bar = make("div", "bar", make("td", "", row));
      rows.push({ row, name, bar, value: make("td", "value", row) });
    }
    const most = Math.max(1e-9, ...values.map((value) => Math.abs(value ?? 0)));
    rows.forEach(({ row, name, bar, value }, i) => {
      const key = order[i] as number;
      const found = values[key];
      set(name, keys[key] ?? "");
      set(value, found === undefined ? "hidden" : Number.isFinite(found) ? found.toFixed(4) : exact(found));
      value.title = found === undefined ? "" : exact(found);
      bar.style.width = `${found === undefined || !Number.isFinite(found) ? 0 : (100 * Math.abs(found)) / most}%`;
      row.toggleAttribute("data-here", key === this.#key);
    });
    set(parts.reading, this.#reading(attention));
  }

  /** The cell in words, with its exact value. */
  #reading(attention: Checked): string {
    const { queries, keys } = attention;
    const [query, key] = [this.#query, this.#key];
    if (query === undefined) {
      return "Each row asks, each column is looked at. Point at a row to read it; click to lock it.";
    }
    if (key === undefined) {
      return `“${queries[query]}” asks.`;
    }
    const value = score(attention, this.#head, query, key);
    const said = visible(attention, query, key, value) ? exact(value) : "hidden";
    return `Head ${this.#head + 1}: “${queries[query]}” looks at “${keys[key]}”: ${said}`;
  }
}

/** Gives the element its name in this page, once. */
export function defineAttentionView(name = "attention-view"): void {
  if (customElements.get(name) === undefined) {
    customElements.define(name, AttentionView);
  }
}

/** What is inside the element. */
interface Parts {
  readonly all: HTMLElement;
  readonly group: HTMLElement;
  readonly heads: { button: HTMLButtonElement; canvas: HTMLCanvasElement }[];
  readonly matrix: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  readonly reading: HTMLElement;
  readonly caption: HTMLElement;
  readonly body: HTMLElement;
  readonly rows: { row: HTMLElement; name: HTMLElement; bar: HTMLElement; value: HTMLElement }[];
  readonly scale: HTMLElement;
  readonly least: HTMLElement;
  readonly most: HTMLElement;
  readonly save: { svg: HTMLButtonElement; png: HTMLButtonElement; json: HTMLButtonElement };
  readonly status: HTMLElement;
}

function build(root: ShadowRoot): Parts {
  // Not a style element: a page may forbid those (Content-Security-Policy).
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);
  root.adoptedStyleSheets = [sheet];
  const all = make("div", "", root);
  const group = make("div", "heads", all);
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Heads");
  const body = make("div", "body", all);
  const left = make("div", "", body);
  make("p", "axis", left).textContent = "Columns are looked at →, rows ask ↓";
  const matrix = make("div", "matrix", left);
  matrix.tabIndex = 0;
  matrix.setAttribute("role", "application");
  matrix.setAttribute("aria-roledescription", "attention matrix");
  const canvas = make("canvas", "", matrix);
  canvas.setAttribute("aria-hidden", "true");
  const right = make("div", "", body);
  const reading = make("p", "reading", right);
  const list = make("div", "rows", right);
  list.tabIndex = 0;
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", "The row in numbers");
  const table = make("table", "", list);
  const caption = make("caption", "", table);
  const rows = make("tbody", "", table);
  const foot = make("div", "foot", all);
  const legend = make("div", "", foot);
  const least = make("span", "", legend);
  const scale = make("span", "scale", legend);
  const most = make("span", "", legend);
  const saves = make("div", "", foot);
  make("span", "", saves).textContent = "Save all heads:";
  const save = (name: string): HTMLButtonElement => {
    const button = make("button", "", saves);
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-label", `Save all heads as ${name}`);
    return button;
  };
  const status = make("div", "status", all);
  status.setAttribute("aria-live", "polite");
  return {
    all, group, heads: [], matrix, canvas, reading, caption, body: rows, rows: [], scale, least, most, status,
    save: { svg: save("SVG"), png: save("PNG"), json: save("JSON") },
  };
}

function make<Name extends keyof HTMLElementTagNameMap>(name: Name, style: string, parent: Node): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  if (style !== "") {
    element.className = style;
  }
  parent.appendChild(element);
  return element;
}

/** Sets text where it is another one. */
function set(element: HTMLElement, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** Makes a canvas so large, on whatever screen, and gives its empty paper. */
function fit(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const ratio = globalThis.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  }
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Whether the page wants dark colours here: its `color-scheme`, and where that leaves it open the system's. */
function isDark(element: HTMLElement): boolean {
  const scheme = getComputedStyle(element).colorScheme;
  const [light, dark] = [scheme.includes("light"), scheme.includes("dark")];
  return dark && (!light || matchMedia("(prefers-color-scheme: dark)").matches);
}

/** The colours, with those that the page has set itself. */
function own(colours: Colours, element: HTMLElement): Colours {
  const style = getComputedStyle(element);
  const read = (name: string, usual: string): string => style.getPropertyValue(`--attention-${name}`).trim() || usual;
  const [paper, ink] = [read("paper", colours.paper), read("ink", colours.ink)];
  const [muted, line] = [read("muted", colours.muted), read("line", colours.line)];
  const changed = paper !== colours.paper || ink !== colours.ink || muted !== colours.muted || line !== colours.line;
  return changed ? { ...colours, paper, ink, muted, line } : colours;
}

function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
