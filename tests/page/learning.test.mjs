// The page learns: its gradients and steps are JAX's, and a symbol is learned without forgetting the digits.

import assert from "node:assert/strict";
import { test } from "node:test";

import { safetensors } from "../wasm/support/case.mjs";
import strokes from "./strokes.json" with { type: "json" };
import { again, chance, inkOf, symbols } from "./support/pen.mjs";
import { mha, source } from "./support/stage.mjs";

const library = await (await mha()).load();
const { Digits, tokens } = await source("nets/digits.ts");
const { Learner } = await source("nets/learning.ts");
const { best } = await source("nets/arithmetic.ts");
const { Pupil } = await source("nets/symbol.ts");
const { image: imageOf } = await source("drawing.ts");
const { digits, rehearsals } = await (await source("data.ts")).unpack();

/** The tensors of a file of the demos. */
function demo(name) {
  const { tensors } = safetensors(new URL(`../../demos/${name}.safetensors`, import.meta.url));
  return Object.fromEntries(Object.entries(tensors).map(([name, { data }]) => [name, data]));
}
const { images, labels, split } = demo("data/digits");
const image = (i) => images.subarray(64 * i, 64 * (i + 1));

test("a hundred steps from the same weights in the same order are those of JAX in float64", () => {
  const { start, order, losses } = demo("models/digits_curve");
  const { network } = new Digits(library, start.slice());
  const learner = new Learner(network, 0.1);
  const batch = order.length / losses.length;
  assert.equal(losses.length, 100);
  losses.forEach((expected, step) => {
    const items = Array.from(order.subarray(step * batch, (step + 1) * batch), Number);
    const wanted = items.flatMap((item) => Array.from({ length: 10 }, (_, i) => 0.01 + (i === Number(labels[item]) ? 0.9 : 0)));
    const loss = learner.step(Float32Array.from(items.flatMap((item) => [...tokens(image(item))])), Float32Array.from(wanted), 3e-3);
    assert.ok(Math.abs(loss - expected) <= 1e-5 * expected, `step ${step}: ${loss} is not ${expected}`);
  });
});

const hand = { side: 140, size: 80, left: 30, top: 30, pen: 5 };
const drawn = (lines, random) => imageOf(inkOf(again(lines, random), hand), hand.side);

for (const [name, lines] of Object.entries(symbols)) {
  test(`of three drawings ${name} is learned, and no digit is forgotten`, () => {
    const random = chance(7);
    const teacher = new Digits(library, digits);
    const drawings = Array.from({ length: 3 }, () => drawn(lines, random));
    const pupil = new Pupil(library, digits, teacher, rehearsals, drawings, random);
    const symbol = 10;
    const more = Array.from({ length: 60 }, () => drawn(lines, random));
    const answers = (network, images) => images.map((image) => best(network.classify(image).logits));
    assert.ok(answers(pupil.digits, more).every((answer) => answer !== symbol), "not known before");
    while (pupil.done < 1) {
      pupil.step();
    }
    const known = answers(pupil.digits, more).filter((answer) => answer === symbol).length;
    assert.ok(known >= 54, `${known} of ${more.length} more drawings`);

    // Digits that it was not given: of the test split, and drawn.
    const items = [...split.keys()].filter((i) => split[i] === 1);
    const right = (network) => items.filter((i) => best(network.classify(image(i)).logits) === labels[i]).length;
    const [before, after] = [right(teacher), right(pupil.digits)];
    assert.equal(before, 447);
    assert.ok(after >= 437, `${after} of ${items.length}, ${before} before`);
    const forms = strokes.flatMap((forms, digit) => forms.map((lines) => [digit, imageOf(inkOf(lines, hand), hand.side)]));
    const still = forms.filter(([digit, image]) => best(pupil.digits.classify(image).logits) === digit).length;
    assert.ok(still >= 0.95 * forms.length, `${still} of ${forms.length} drawn digits`);
    // The one that taught is what it was.
    assert.equal(right(teacher), before);
    pupil.dispose();
  });
}
