// Runs every case of tests/cases that this package's options can say, in Node, without any of the
// machinery of `cargo xtask check`: another reader, another way in, the same expectations.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";

import { readCase } from "./support/case.mjs";
import { load } from "./support/mha.mjs";

const mha = await load();
const cases = new URL("../cases/", import.meta.url);
const files = readdirSync(cases, { recursive: true })
  .map((name) => name.replaceAll("\\", "/"))
  .filter((name) => name.endsWith(".safetensors") && !name.includes("invalid/"))
  .sort();

/** The first element that is further off than allowed, in words. */
function difference(name, actual, expected, [absolute, relative]) {
  if (actual.length !== expected.length) {
    return `${name} has ${actual.length} elements, not ${expected.length}`;
  }
  for (let i = 0; i < expected.length; i++) {
    const [a, e] = [actual[i], expected[i]];
    if (!(Object.is(a, e) || a === e || Math.abs(a - e) <= absolute + relative * Math.abs(e))) {
      return `${name}[${i}] is ${a}, not ${e}`;
    }
  }
  return undefined;
}

test("there are enough cases", () => assert.ok(files.length >= 150, `${files.length} cases`));

for (const file of files) {
  test(file, () => {
    const { projected, layer, call, ...expected } = readCase(new URL(file, cases));
    let output;
    if (projected) {
      const made = mha.layer(layer);
      output = made.forward(call);
      made.dispose();
    } else {
      output = mha.dotProductAttention({ ...layer, ...call });
    }
    const differences = [
      expected.y && difference("y", output.y, expected.y, expected.yTolerance),
      expected.scores && difference("scores", output.scores, expected.scores, expected.scoresTolerance),
    ];
    assert.deepEqual(differences.filter(Boolean), []);
  });
}
