// A pen.

/** Draws strokes of points in a square of 1 with a round pen. */
export function inkOf(lines, { side, size, left, top, pen }) {
  const ink = new Uint8Array(side * side);
  for (const line of lines) {
    const points = line.map(([x, y]) => [left + size * x, top + size * y]);
    for (let i = 0; i + 1 < points.length; i++) {
      const [[ax, ay], [bx, by]] = [points[i], points[i + 1]];
      const steps = Math.max(1, Math.ceil(Math.hypot(bx - ax, by - ay)));
      for (let step = 0; step <= steps; step++) {
        const [x, y] = [ax + ((bx - ax) * step) / steps, ay + ((by - ay) * step) / steps];
        for (let py = Math.floor(y - pen); py <= y + pen; py++) {
          for (let px = Math.floor(x - pen); px <= x + pen; px++) {
            if ((px - x) ** 2 + (py - y) ** 2 < pen * pen && px >= 0 && py >= 0 && px < side && py < side) {
              ink[py * side + px] = 255;
            }
          }
        }
      }
    }
  }
  return ink;
}

/** Symbols that are no digits: lines of points in a square of 1. */
export const symbols = {
  star: [Array.from({ length: 6 }, (_, i) => [0.5 + 0.5 * Math.sin((i * 4 * Math.PI) / 5), 0.5 - 0.5 * Math.cos((i * 4 * Math.PI) / 5)])],
  arrow: [[[0, 0.5], [1, 0.5]], [[0.6, 0.1], [1, 0.5], [0.6, 0.9]]],
  E: [[[1, 0], [0, 0], [0, 1], [1, 1]], [[0, 0.5], [0.8, 0.5]]],
};

/** Numbers from 0 to 1 that are the same every time: xorshift. */
export function chance(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** The lines as the hand would draw them the next time: turned, slanted, wider or narrower, higher or lower. */
export function again(lines, random) {
  const normal = () => random() + random() + random() - 1.5;
  const [turn, slant, wide, high] = [0.2 * normal(), 0.2 * normal(), 1 + 0.2 * normal(), 1 + 0.2 * normal()];
  const [sin, cos] = [Math.sin(turn), Math.cos(turn)];
  return lines.map((line) =>
    line.map((point) => {
      const [x, y] = point.map((place) => place - 0.5 + 0.05 * normal());
      const [across, down] = [x * wide + slant * y, y * high];
      return [0.5 + cos * across - sin * down, 0.5 + cos * down + sin * across];
    }),
  );
}
