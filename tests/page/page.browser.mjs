// The page as a person uses it: with a mouse, a finger, a keyboard, a screen reader.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import { axe, start, watched } from "./support/browser.mjs";
import { again, chance, symbols } from "./support/pen.mjs";
import { serve } from "./support/serve.mjs";
import strokes from "./strokes.json" with { type: "json" };

const folder = process.env.PAGE;
const cases = fileURLToPath(new URL("../", import.meta.url));
const browser = await start();
// Not at the root, so that an address which is not relative is found out.
const site = await serve(folder, { base: "/some/where/" });
after(async () => {
  await browser.close();
  site.close();
});

const READY = "html[data-ready]";

async function open(options) {
  const opened = await watched(browser, options);
  await opened.page.goto(site.url);
  await opened.page.waitForSelector(READY);
  return opened;
}

/** The pad's box on the screen. */
async function pad(page) {
  const pad = page.locator("#pad");
  await pad.scrollIntoViewIfNeeded();
  return pad.boundingBox();
}

const place = ({ x, y, width }, [px, py]) => [x + width * (0.16 + 0.68 * px), y + width * (0.14 + 0.7 * py)];

async function drawByMouse(page, lines) {
  const box = await pad(page);
  for (const line of lines) {
    await page.mouse.move(...place(box, line[0]));
    await page.mouse.down();
    for (const point of line.slice(1)) {
      await page.mouse.move(...place(box, point), { steps: 3 });
    }
    await page.mouse.up();
  }
  // Twice: the drawing is brought to the model at the next frame.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
}

const answer = (page) => page.locator("#answer").textContent();

test("every digit is drawn with the mouse and recognised, and the heads follow", async () => {
  const { page, errors, requests, context } = await open();
  const view = page.locator("#digit-view");
  let before = JSON.stringify(await view.evaluate((element) => element.toJSON()));
  for (const [digit, forms] of strokes.entries()) {
    await page.click("#clear");
    assert.equal(await answer(page), "–");
    await drawByMouse(page, forms[0]);
    assert.equal(await answer(page), String(digit));
    assert.match(await page.locator("#sure").textContent(), /^\d+\.\d % sure$/);
    assert.equal(await page.locator("#digits tr[data-best] th").textContent(), String(digit));
    const now = JSON.stringify(await view.evaluate((element) => element.toJSON()));
    assert.notEqual(now, before, "the heads look elsewhere");
    before = now;
  }
  assert.deepEqual(errors, []);
  assert.ok(requests.every((url) => url.startsWith(site.url)), `asked for ${requests}`);
  await context.close();
});

test("the answer changes while the line is drawn", async () => {
  const { page, context } = await open();
  await page.click("#clear");
  const box = await pad(page);
  const line = strokes[0][0][0];
  const seen = new Set();
  await page.mouse.move(...place(box, line[0]));
  await page.mouse.down();
  for (const point of line.slice(1)) {
    await page.mouse.move(...place(box, point), { steps: 2 });
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    seen.add(await answer(page));
  }
  await page.mouse.up();
  assert.ok(seen.size >= 2 && seen.has("0"), [...seen].join());
  await context.close();
});

test("a finger draws, and does not scroll", async () => {
  const { page, context } = await open({ hasTouch: true, viewport: { width: 360, height: 740 }, isMobile: true });
  await page.locator("#clear").tap();
  const box = await pad(page);
  const scrolled = await page.evaluate(() => scrollY);
  const session = await context.newCDPSession(page);
  for (const line of strokes[7][0]) {
    const at = (point) => {
      const [x, y] = place(box, point);
      return [{ x, y }];
    };
    await session.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: at(line[0]) });
    for (const point of line.slice(1)) {
      await session.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: at(point) });
    }
    await session.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  }
  await page.waitForFunction(() => document.getElementById("answer").textContent === "7");
  assert.equal(await page.evaluate(() => scrollY), scrolled);
  await context.close();
});

test("a symbol is drawn three times, learned, answered, and forgotten", async () => {
  const { page, errors, requests, context } = await open({ viewport: { width: 1440, height: 900 }, deviceScaleFactor: 1 });
  const random = chance(3);
  const classes = () => page.locator("#digits tbody th").allTextContents();
  const drawStar = async () => {
    await page.click("#clear");
    await drawByMouse(page, again(symbols.star, random));
  };
  const lesson = page.locator("#lesson");
  // A sample of the data is nothing that a person has drawn.
  await page.locator("#samples button", { hasText: "5" }).click();
  assert.ok(await page.locator("#keep").isDisabled());
  for (let i = 0; i < 3; i++) {
    assert.ok(await page.locator("#learn").isDisabled());
    await drawStar();
    await page.click("#keep");
  }
  assert.ok(await page.locator("#keep").isDisabled(), "a new sheet");
  assert.equal(await page.locator("#kept canvas").count(), 3);
  await page.fill("#name", "sun");
  await page.click("#learn");
  await page.waitForFunction(() => document.getElementById("lesson").textContent.startsWith("Learned"), undefined, { timeout: 120000 });
  assert.match(await lesson.textContent(), /^Learned sun from 3 drawings: 160 steps in \d+\.\d s\. It still knows (9|10) of the 10 digits/);
  assert.deepEqual(await classes(), [..."0123456789", "sun"]);
  let right = 0;
  for (let i = 0; i < 5; i++) {
    await drawStar();
    right += (await answer(page)) === "sun" ? 1 : 0;
  }
  assert.ok(right >= 4, `${right} of 5`);
  assert.match(await page.locator("#loss").getAttribute("aria-label"), /^How wrong it is: \d\.\d\d at first, 0\.[012]\d now$/);
  const shots = join(folder, "../page-shots");
  mkdirSync(shots, { recursive: true });
  await page.locator("#draw").screenshot({ path: join(shots, "learned.png") });
  await page.evaluate(axe());
  const { violations } = await page.evaluate(() => globalThis.axe.run(document.getElementById("draw"), { resultTypes: ["violations"] }));
  assert.deepEqual(violations.map(({ id, help }) => `${id}: ${help}`), []);
  await page.click("#clear");
  await drawByMouse(page, strokes[4][0]);
  assert.equal(await answer(page), "4");
  await page.click("#forget");
  assert.deepEqual(await classes(), [..."0123456789"]);
  assert.equal(await page.locator("#kept canvas").count(), 0);
  await drawStar();
  assert.match(await answer(page), /^\d$/);
  assert.deepEqual(errors, []);
  assert.ok(requests.every((url) => url.startsWith(site.url)), `asked for ${requests}`);
  await context.close();
});

test("everything is reached by Tab, in the order in which it is read, and is seen to be", async () => {
  const { page, context } = await open();
  const order = [];
  for (let i = 0; i < 120; i++) {
    await page.keyboard.press("Tab");
    const found = await page.evaluate(() => {
      let element = document.activeElement;
      const host = element?.id;
      while (element?.shadowRoot?.activeElement) {
        element = element.shadowRoot.activeElement;
      }
      if (element === null || element === document.body) {
        return undefined;
      }
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      const name = element.getAttribute("aria-label") ?? element.textContent.trim();
      const inner = element.id === host ? "" : `/${element.className || element.textContent.trim()}`;
      // The input of a file is as good as invisible; its label has the outline.
      const seen = element.id === "file" ? "label" : outlineStyle === "none" ? "" : outlineWidth;
      return { id: `${host}${inner}`, name, seen };
    });
    if (found === undefined) {
      break;
    }
    assert.ok(found.seen !== "" && found.seen !== "0px", `${JSON.stringify(found)} is not seen to have the focus`);
    order.push(found.id);
  }
  const wanted = [
    "clear", "name", "digit-view/head", "digit-view/matrix", "digit-view/rows", "digit-view/SVG", "digit-view/JSON", "utterance", "play", "frame",
    "vowel-view/matrix", "file", "case-view/matrix", "case-view/PNG",
  ];
  const places = wanted.map((id) => order.indexOf(id));
  assert.ok(places.every((at) => at >= 0), `${wanted.filter((_, i) => places[i] < 0)} not among ${order}`);
  assert.deepEqual(places, [...places].sort((a, b) => a - b), order.join());
  await context.close();
});

test("the matrix is read with the keyboard", async () => {
  const { page, context } = await open();
  await page.locator("#digit-view .matrix").focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowRight");
  const status = page.locator("#digit-view .status");
  const said = await status.textContent();
  assert.match(said, /^Head 1: “A2” looks at “A2”: 0?\.?\d/);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("looks").textContent === "What patch A2 looks at");
  const { scores, queries } = await page.locator("#digit-view").evaluate((view) => view.toJSON());
  assert.equal(queries[1], "A2");
  assert.equal(Number(said.split(": ").at(-1)), scores[0][1][1]);
  // Locked: the pointer does not change it, another head keeps it.
  await page.locator("#digit-view .head").nth(2).click();
  await page.mouse.move(5, 5);
  assert.deepEqual(await page.locator("#digit-view").evaluate((view) => view.selection), { head: 2, query: 1, key: 1, locked: true });
  await page.waitForFunction(() => document.querySelector("#digit-view").shadowRoot.querySelector("caption").textContent.includes("locked"));
  const rows = await page.locator("#digit-view tbody tr td.value").allTextContents();
  assert.deepEqual(rows, scores[2][1].map((weight) => weight.toFixed(4)));
  await page.locator("#digit-view .matrix").focus();
  await page.keyboard.press("Escape");
  assert.equal((await page.locator("#digit-view").evaluate((view) => view.selection)).locked, false);
  await context.close();
});

test("a patch is pointed at, and locked by a click", async () => {
  const { page, context } = await open();
  const tile = page.locator("#tiles canvas").first();
  await tile.click({ position: { x: 6, y: 6 } });
  await page.waitForFunction(() => document.getElementById("looks").textContent === "What patch A1 looks at");
  await tile.click({ position: { x: 6, y: 6 } });
  await page.waitForFunction(() => document.getElementById("looks").textContent === "What each head looks at");
  await context.close();
});

async function saved(page, view, name) {
  const waiting = page.waitForEvent("download");
  await page.locator(`#${view} button`, { hasText: name }).click();
  const download = await waiting;
  return { name: download.suggestedFilename(), data: readFileSync(await download.path()) };
}

test("all heads are saved as SVG, PNG and JSON, and say the same", async () => {
  const { page, context } = await open();
  await page.locator("#samples button", { hasText: "8" }).click();
  const json = await saved(page, "digit-view", "JSON");
  assert.equal(json.name, "attention.json");
  const { scores, heads, queries } = JSON.parse(json.data.toString("utf8"));
  assert.equal(heads, 4);
  assert.equal(queries.length, 16);
  for (const row of scores.flat()) {
    assert.ok(Math.abs(row.reduce((sum, weight) => sum + weight, 0) - 1) < 1e-5);
  }

  const svg = await saved(page, "digit-view", "SVG");
  assert.equal(svg.name, "attention.svg");
  const text = svg.data.toString("utf8");
  const found = await page.evaluate((text) => {
    const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
    const cells = [...parsed.querySelectorAll("rect > title")].map((title) => title.textContent);
    const names = [...parsed.querySelectorAll("text")].map((text) => text.textContent);
    return { error: parsed.querySelector("parsererror")?.textContent, root: parsed.documentElement.localName, cells, names };
  }, text);
  assert.equal(found.error, undefined);
  assert.equal(found.root, "svg");
  assert.ok(["Head 1", "Head 2", "Head 3", "Head 4", "A1", "D4"].every((name) => found.names.includes(name)));
  const exact = scores.flatMap((head) => head.flatMap((row, q) => row.map((weight, k) => `${queries[q]} → ${queries[k]}: ${weight}`)));
  // Cells too faint to be seen are left out.
  assert.ok(found.cells.length > 400 && found.cells.every((cell) => exact.includes(cell)), found.cells.find((cell) => !exact.includes(cell)));

  const png = await saved(page, "digit-view", "PNG");
  assert.deepEqual([...png.data.subarray(1, 4)], [...Buffer.from("PNG")]);
  const [width, height] = [png.data.readUInt32BE(16), png.data.readUInt32BE(20)];
  const size = /width="([\d.]+)" height="([\d.]+)"/.exec(text);
  assert.deepEqual([width, height], [Math.ceil(2 * size[1]), Math.ceil(2 * size[2])]);
  await context.close();
});

test("an utterance is replayed frame by frame to its end", async () => {
  const { page, errors, context } = await open();
  await page.selectOption("#utterance", "4");
  const last = Number(await page.getAttribute("#frame", "max"));
  await page.locator("#frame").focus();
  await page.keyboard.press("Home");
  assert.equal(await page.locator("#frame-of").textContent(), `1 of ${last}`);
  assert.equal((await page.locator("#vowel-view").evaluate((view) => view.toJSON())).queries.length, 1);
  await page.click("#play");
  assert.equal(await page.locator("#play").textContent(), "Pause");
  await page.waitForFunction((last) => document.getElementById("frame-of").textContent === `${last} of ${last}`, last, { timeout: 20000 });
  assert.equal(await page.locator("#play").textContent(), "Play");
  assert.equal(await page.locator("#speaker").textContent(), "5");
  assert.equal((await page.locator("#vowel-view").evaluate((view) => view.toJSON())).queries.length, last);
  assert.deepEqual(errors, []);
  await context.close();
});

test("a broken case file is refused with what is wrong, a good one is explored", async () => {
  const { page, errors, context } = await open();
  const error = page.locator("#case-error");
  const load = (name) => page.setInputFiles("#file", join(cases, name));
  for (const [name, word] of [
    ["cases/invalid/key_misspelt_scale.safetensors", /sclae: no case has this key/],
    ["cases/invalid/wq_wrong_order.safetensors", /wq: \[\d+, \d+\] where \[\d+, \d+\] is expected/],
    ["cases/invalid/truncated_data.safetensors", /not a safetensors file/],
    ["README.md", /not a safetensors file/],
  ]) {
    await load(name);
    await error.waitFor({ state: "visible" });
    await page.waitForFunction((name) => document.getElementById("case-error").textContent.startsWith(name), name.split("/").at(-1));
    assert.match(await error.textContent(), word);
    assert.equal(await page.locator("#case").isVisible(), false);
  }
  await load("cases/flux/causal.safetensors");
  await error.waitFor({ state: "hidden" });
  assert.match(await page.locator("#case-facts").textContent(), /yequal: \d+ numbers.*scoresequal: \d+ numbers/s);
  assert.equal((await page.locator("#case-view").evaluate((view) => view.toJSON())).causal, 0);
  await page.locator("#cases button", { hasText: "broken" }).click();
  await error.waitFor({ state: "visible" });
  assert.match(await error.textContent(), /heads: this key is missing/);
  assert.deepEqual(errors, []);
  await context.close();
});

test("a case file is pasted and dropped", async () => {
  const { page, context } = await open();
  const bytes = [...readFileSync(join(cases, "cases/flux/causal.safetensors"))];
  for (const kind of ["paste", "drop"]) {
    await page.locator("#cases button", { hasText: "broken" }).click();
    await page.evaluate(
      ({ bytes, kind }) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(bytes)], `${kind}.safetensors`));
        const event =
          kind === "paste"
            ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
            : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
        document.getElementById("drop").dispatchEvent(event);
      },
      { bytes, kind },
    );
    await page.waitForFunction((kind) => document.getElementById("case-facts").textContent.includes(`${kind}.safetensors`), kind);
    assert.equal(await page.locator("#case-error").isVisible(), false);
  }
  await context.close();
});

test("it works from a folder, and without a network", async () => {
  const { page, errors, requests, context } = await watched(browser);
  await context.setOffline(true);
  await page.goto(pathToFileURL(join(folder, "index.html")).href);
  await page.waitForSelector(READY);
  await page.click("#clear");
  await drawByMouse(page, strokes[4][0]);
  assert.equal(await answer(page), "4");
  assert.deepEqual(errors, []);
  assert.ok(requests.every((url) => /^(file|data|blob):/.test(url)), requests.join());
  await context.close();
});

const LOOKS = [360, 1440].flatMap((width) => ["light", "dark"].map((colorScheme) => ({ width, colorScheme })));

for (const { width, colorScheme } of LOOKS) {
  test(`${width} px, ${colorScheme}: nothing sticks out, axe finds nothing`, async () => {
    const { page, errors, context } = await open({ viewport: { width, height: 900 }, colorScheme, deviceScaleFactor: 1 });
    await page.locator("#digit-view .matrix").focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("looks").textContent !== "What each head looks at");
    const shots = join(folder, "../page-shots");
    mkdirSync(shots, { recursive: true });
    await page.screenshot({ path: join(shots, `${width}-${colorScheme}.png`), fullPage: true });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
    await page.locator("#cases button", { hasText: "broken" }).click();
    // The page forbids foreign scripts, so axe comes in by the debugger.
    await page.evaluate(axe());
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    const said = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ target, failureSummary }) => `${target} ${failureSummary}`).join("; ")}`);
    assert.deepEqual(said, []);
    assert.deepEqual(errors, []);
    await context.close();
  });
}
