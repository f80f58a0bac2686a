// Marks as SVG. Pure: it needs no browser.

import { type Attention, check } from "./attention.js";
import { type Colours, DARK, LIGHT } from "./colour.js";
import { type Mark, sheet } from "./scene.js";

/** How an SVG is drawn. */
export interface SvgOptions {
  /** Dark paper. Default false. */
  readonly dark?: boolean | undefined;
  /** The side of a cell in pixels. Default 18. */
  readonly cell?: number | undefined;
}

/**
 * All heads as an SVG document. Every cell carries its exact value as a tooltip.
 *
 * @throws MhaError naming what does not fit.
 *
 * @example
 * ```ts
 * const { scores } = layer.forward({ q, scores: true });
 * const svg = attentionSvg({ scores, heads: layer.heads, queries: ["the", "cat", "sat"] });
 * ```
 */
export function attentionSvg(attention: Attention, options: SvgOptions = {}): string {
  const checked = check(attention);
  const colours = options.dark === true ? DARK : LIGHT;
  const { marks, width, height } = sheet(checked, colours, options.cell ?? 18);
  const size = [width, height].map(round);
  const about = `Attention of ${checked.heads} heads: rows ask, columns are looked at`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${size[0]}" height="${size[1]}" viewBox="0 0 ${size[0]} ${size[1]}" role="img" font-family="system-ui, sans-serif">`,
    `<title>${about}</title>`,
    hatching(colours),
    ...marks.map(element),
    "</svg>\n",
  ].join("\n");
}

const HATCH = "hidden";

function hatching(colours: Colours): string {
  return `<defs><pattern id="${HATCH}" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M0 0V5" stroke="${colours.line}" stroke-width="1.5"/></pattern></defs>`;
}

function element(mark: Mark): string {
  switch (mark.kind) {
    case "box": {
      const opacity = mark.opacity < 1 ? ` fill-opacity="${Number(mark.opacity.toFixed(3))}"` : "";
      const tip = mark.tip === undefined ? "/>" : `><title>${escape(mark.tip)}</title></rect>`;
      return `<rect${box(mark)} fill="${mark.fill}"${opacity}${tip}`;
    }
    case "frame":
      return `<rect${box(mark)} fill="none" stroke="${mark.stroke}"/>`;
    case "hatch":
      return `<rect${box(mark)} fill="url(#${HATCH})"/>`;
    case "text": {
      const turn = mark.turn === true ? ` transform="rotate(-90 ${round(mark.x)} ${round(mark.y)})"` : "";
      const bold = mark.bold === true ? ' font-weight="600"' : "";
      return `<text x="${round(mark.x)}" y="${round(mark.y)}" font-size="${mark.size}" text-anchor="${mark.anchor}" fill="${mark.fill}"${bold}${turn}>${escape(mark.text)}</text>`;
    }
  }
}

const round = (value: number): number => Number(value.toFixed(2));

const box = ({ x, y, w, h }: { x: number; y: number; w: number; h: number }): string =>
  ` x="${round(x)}" y="${round(y)}" width="${round(w)}" height="${round(h)}"`;

/** Text that means itself in XML; characters that XML has not become a mark that says so. */
function escape(text: string): string {
  return text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd")
    .replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}
