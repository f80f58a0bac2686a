// From a drawn bitmap to an 8×8 image, the way the data set was made: demos/nets/src/drawing.rs, in
// TypeScript. The drawing's box is scaled to the full height of 32 pixels and to at most 24 of width, put in
// the middle, its strokes are thinned or thickened until about as many pixels are ink as in the data, and the
// ink is counted in blocks of 4×4. Integers only; a bitmap is 32 words, bit `x` of word `y`.

const SIDE = 32;
const [NARROWEST, WIDEST] = [2, 24];

/** How many of the 1024 pixels are ink in most images of the data set. */
const [LEAST_INK, MOST_INK] = [230, 400];

/** The most times that strokes are thickened or thinned. */
const ROUNDS = 4;

/**
 * The 8×8 image of a drawing of `width` pixels a row, one byte a pixel: 128 and more is ink. Undefined where
 * there is no ink.
 */
export function image(canvas: Uint8Array, width: number): Uint8Array | undefined {
  let bitmap = scaled(canvas, width);
  if (bitmap === undefined) {
    return undefined;
  }
  for (let round = 0; round < ROUNDS; round++) {
    const ink = count(bitmap);
    if (ink < LEAST_INK) {
      bitmap = thicker(bitmap);
    } else if (ink > MOST_INK) {
      const thin = thinner(bitmap);
      // A blot would vanish; leave it as it is.
      if (count(thin) < LEAST_INK / 2) {
        break;
      }
      bitmap = thin;
    } else {
      break;
    }
  }
  return counted(bitmap);
}

/** The drawing at its new size, in the middle: each pixel is the nearest one of the drawing's. */
function scaled(canvas: Uint8Array, width: number): Uint32Array | undefined {
  let [left, right, top, bottom] = [width, -1, -1, -1];
  const rows = width === 0 ? 0 : Math.floor(canvas.length / width);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < width; x++) {
      if (canvas[y * width + x]! >= 128) {
        left = Math.min(left, x);
        right = Math.max(right, x);
        top = top < 0 ? y : top;
        bottom = y;
      }
    }
  }
  if (bottom < 0) {
    return undefined;
  }
  const [w, h] = [right - left + 1, bottom - top + 1];
  const wide = Math.max(NARROWEST, Math.min(WIDEST, Math.floor((w * SIDE + (h >> 1)) / h)));
  const margin = (SIDE - wide) >> 1;
  const bitmap = new Uint32Array(SIDE);
  for (let y = 0; y < SIDE; y++) {
    const row = top + Math.floor(((2 * y + 1) * h) / (2 * SIDE));
    for (let x = 0; x < wide; x++) {
      const column = left + Math.floor(((2 * x + 1) * w) / (2 * wide));
      if (canvas[row * width + column]! >= 128) {
        bitmap[y]! |= 1 << (margin + x);
      }
    }
  }
  return bitmap;
}

/** Every pixel that is ink or touches ink along a side. */
function thicker(bitmap: Uint32Array): Uint32Array {
  return bitmap.map((row, y) => row | (row << 1) | (row >>> 1) | (bitmap[y - 1] ?? 0) | (bitmap[y + 1] ?? 0));
}

/** Every pixel of ink that touches nothing else along a side; beyond the edge there is ink. */
function thinner(bitmap: Uint32Array): Uint32Array {
  return thicker(bitmap.map((row) => ~row)).map((row) => ~row);
}

/** Ink in blocks of 4×4. */
function counted(bitmap: Uint32Array): Uint8Array {
  return Uint8Array.from({ length: 64 }, (_, at) => {
    const [y, x] = [4 * (at >> 3), 4 * (at & 7)];
    return [0, 1, 2, 3].reduce((sum, i) => sum + bits((bitmap[y + i]! >>> x) & 15), 0);
  });
}

/** Pixels of ink. */
function count(bitmap: Uint32Array): number {
  return bitmap.reduce((sum, row) => sum + bits(row), 0);
}

/** The number of ones in a word. */
function bits(word: number): number {
  let sum = 0;
  for (let left = word; left !== 0; left &= left - 1) {
    sum++;
  }
  return sum;
}
