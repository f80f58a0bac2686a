// The page's reader of case files understands every good one, refuses every broken one and says what is wrong
// with it, and what it computes is what the cases expect.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { mha, source } from "./support/stage.mjs";

const library = await (await mha()).load();
const { readCase } = await source("case/case.ts");
const { runCase } = await source("case/run.ts");

const tests = new URL("..", import.meta.url);
const read = (path) => new Uint8Array(readFileSync(new URL(path, tests)));

for (const folder of ["cases", "cases_family"]) {
  const files = readdirSync(new URL(`${folder}/`, tests), { recursive: true })
    .map((name) => name.replaceAll("\\", "/"))
    .filter((name) => name.endsWith(".safetensors") && !name.startsWith("invalid/"));

  test(`${folder}: every good case`, () => {
    let [ran, rotations] = [0, 0];
    for (const name of files) {
      let given;
      try {
        given = readCase(read(`${folder}/${name}`));
      } catch (error) {
        assert.match(error.message, /rotation alone/, `${name}: ${error.message}`);
        rotations++;
        continue;
      }
      const { comparisons, weights, columns } = runCase(library, given);
      assert.equal(weights.length, given.batch * given.about.heads * given.qLen * columns, name);
      assert.ok(comparisons.length > 0, name);
      for (const { output, failed, worst } of comparisons) {
        assert.equal(failed, 0, `${name}: ${failed} of ${output}, by ${worst}`);
      }
      ran++;
    }
    assert.ok(ran >= 150 && rotations < 20, `${ran} cases, ${rotations} rotations`);
  });

  test(`${folder}: every broken case`, () => {
    const index = JSON.parse(readFileSync(new URL(`${folder}/invalid/index.json`, tests), "utf8"));
    for (const [name, word] of Object.entries(index)) {
      // A rotation is refused as a whole.
      const expected = name.startsWith("kind_rope") ? "rotation" : word;
      assert.throws(
        () => readCase(read(`${folder}/invalid/${name}`)),
        (error) => {
          assert.equal(error.name, "CaseError", `${name}: ${error.stack}`);
          assert.ok(error.message.includes(expected), `${name}: “${error.message}” does not say “${expected}”`);
          return true;
        },
      );
    }
  });
}

test("an answer that is off is counted", () => {
  const given = readCase(read("cases/flux/causal.safetensors"));
  const wrong = { ...given, y: given.y.map((value, i) => (i === 3 ? value + 0.01 : i === 4 ? NaN : value)) };
  assert.equal(runCase(library, wrong).comparisons[0].failed, 2);
});
