// The networks in TypeScript give the bits of those in Rust, for every item of the data.

import assert from "node:assert/strict";
import { test } from "node:test";

import { inkOf } from "./support/pen.mjs";
import { expected, floats, mha, source } from "./support/stage.mjs";
import strokes from "./strokes.json" with { type: "json" };

const library = await (await mha()).load();
const { cases, digits, images, spoken, vowels } = await (await source("data.ts")).unpack();
const { Digits } = await source("nets/digits.ts");
const { Vowels } = await source("nets/vowels.ts");
const { best } = await source("nets/arithmetic.ts");
const { image } = await source("drawing.ts");

const bits = (values) => Array.from(new Uint32Array(values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength)));

test("every image", () => {
  const network = new Digits(library, digits);
  const [all, logits] = [expected("images.bin"), floats(expected("digits.bin"))];
  const count = all.length / 64;
  assert.equal(count, 1797);
  for (let i = 0; i < count; i++) {
    const seen = network.classify(all.subarray(64 * i, 64 * (i + 1)));
    assert.deepEqual(bits(seen.logits), bits(logits.subarray(10 * i, 10 * (i + 1))), `image ${i}`);
    assert.ok(Math.abs(seen.scores.subarray(0, 16).reduce((sum, weight) => sum + weight, 0) - 1) < 1e-5);
  }
});

test("every beginning of every utterance, heard frame by frame", () => {
  const network = new Vowels(library, vowels);
  const [items, logits] = [floats(expected("utterances.bin")), floats(expected("vowels.bin"))];
  let [at, row, utterances] = [0, 0, 0];
  for (; at < items.length; utterances++) {
    const length = items[at + 1];
    at += 2;
    const listener = network.listen();
    for (let i = 0; i < length; i++, at += 12, row++) {
      const heard = listener.hear(items.slice(at, at + 12));
      assert.deepEqual(bits(heard.logits), bits(logits.subarray(9 * row, 9 * (row + 1))), `utterance ${utterances}, frame ${i}`);
      assert.equal(heard.scores.length, 4 * (i + 1) ** 2);
    }
    listener.stop();
  }
  assert.equal(utterances, 640);
  assert.equal(9 * row, logits.length);
});

test("drawings become the images that they become in Rust", () => {
  const all = expected("drawings.bin");
  let [at, drawings, inked] = [0, 0, 0];
  for (; at < all.length; drawings++) {
    const [width, length, ink] = [0, 4, 8].map((place) => all.readUInt32LE(at + place));
    at += 12;
    const found = image(all.subarray(at, at + length), width);
    at += length;
    const rust = all.subarray(at, at + 64);
    assert.deepEqual(found && [...found], ink === 0 ? undefined : [...rust], `drawing ${drawings}`);
    inked += ink;
    at += 64;
  }
  assert.equal(drawings, 300);
  assert.ok(inked > 200);
});

test("strokes of all ten digits are recognised, large and small, anywhere, with a thick and a thin pen", () => {
  const network = new Digits(library, digits);
  const hands = [
    { side: 280, size: 200, left: 40, top: 40, pen: 10 },
    { side: 280, size: 110, left: 150, top: 20, pen: 10 },
    { side: 280, size: 230, left: 20, top: 30, pen: 7 },
  ];
  for (const hand of hands) {
    assert.equal(strokes.length, 10);
    strokes.forEach((forms, digit) => {
      forms.forEach((lines, form) => {
        const { logits } = network.classify(image(inkOf(lines, hand), hand.side));
        assert.equal(best(logits), digit, `digit ${digit}, form ${form}, size ${hand.size}, pen ${hand.pen}`);
      });
    });
  }
});

test("what comes with the page is of the test data, and is recognised", () => {
  const seen = images.map((pixels) => best(new Digits(library, digits).classify(pixels).logits));
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  const heard = spoken.map(({ frames }) => {
    const listener = new Vowels(library, vowels).listen();
    return best(frames.map((frame) => listener.hear(frame)).at(-1).logits);
  });
  assert.deepEqual(heard, spoken.map(({ speaker }) => speaker));
  assert.equal(heard.length, 9);
  // Frame for frame an utterance of the data.
  const all = expected("utterances.bin");
  for (const { frames } of spoken) {
    const bytes = Buffer.concat(frames.map(({ buffer }) => Buffer.from(buffer)));
    assert.ok(all.includes(bytes), "as published");
  }
  assert.equal(cases.length, 2);
});
