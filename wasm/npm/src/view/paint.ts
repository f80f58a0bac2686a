// Marks on a canvas.

import type { Mark } from "./scene.js";

/** Paints marks; the context is scaled already. */
export function paint(context: CanvasRenderingContext2D, marks: readonly Mark[]): void {
  context.save();
  for (const mark of marks) {
    switch (mark.kind) {
      case "box":
        context.globalAlpha = mark.opacity;
        context.fillStyle = mark.fill;
        context.fillRect(mark.x, mark.y, mark.w, mark.h);
        context.globalAlpha = 1;
        break;
      case "frame":
        context.strokeStyle = mark.stroke;
        context.lineWidth = mark.width;
        context.strokeRect(mark.x, mark.y, mark.w, mark.h);
        break;
      case "hatch":
        hatch(context, mark);
        break;
      case "text":
        text(context, mark);
        break;
    }
  }
  context.restore();
}

function hatch(context: CanvasRenderingContext2D, { x, y, w, h, stroke }: Mark & { kind: "hatch" }): void {
  context.save();
  context.beginPath();
  context.rect(x, y, w, h);
  context.clip();
  context.beginPath();
  // Lines go through the whole paper, so those of neighbours meet.
  for (let at = Math.floor((x + y) / 5) * 5; at <= x + y + w + h; at += 5) {
    context.moveTo(at - y, y);
    context.lineTo(at - y - h, y + h);
  }
  context.strokeStyle = stroke;
  context.lineWidth = 1.2;
  context.stroke();
  context.restore();
}

function text(context: CanvasRenderingContext2D, mark: Mark & { kind: "text" }): void {
  context.save();
  context.fillStyle = mark.fill;
  context.font = `${mark.bold === true ? "600 " : ""}${mark.size}px system-ui, sans-serif`;
  context.textAlign = mark.anchor === "middle" ? "center" : mark.anchor;
  context.translate(mark.x, mark.y);
  if (mark.turn === true) {
    context.rotate(-Math.PI / 2);
  }
  context.fillText(mark.text, 0, 0);
  context.restore();
}
