// The words of a worker (../README.md), for any environment: reads lines, writes lines.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

const NAMES = ["wq", "wk", "wv", "wo", "q", "k", "v", "past_k", "past_v", "dy"];

/** Answers until the input ends. `there` has `load(layer, tensors)`, `check(i)`, `time(i, calls)`, `peak()`. */
export async function answer(environment, there) {
  const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
  say({ environment, peak: await there.peak() });
  let folder;
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    try {
      if (request.do === "end") {
        break;
      } else if (request.do === "load") {
        folder = request.folder;
        const tensors = Object.fromEntries(NAMES.map((name) => [name, floats(join(folder, `${name}.f32`))]));
        say({ ...(await there.load(request.case, tensors)), peak: await there.peak() });
      } else if (request.do === "check") {
        const outputs = await there.check(request.contender);
        const [y, scores] = outputs.map((output, i) => {
          if (output === undefined || output === null) {
            return null;
          }
          const path = join(folder, `${environment}_${["y", "scores"][i]}_${request.contender}.f32`);
          writeFileSync(path, new Uint8Array(output.buffer, output.byteOffset, output.byteLength));
          return path;
        });
        say({ y, scores });
      } else if (request.do === "time") {
        say({ seconds: await there.time(request.contender, request.calls) });
      } else {
        say({ error: `no word ${request.do}` });
      }
    } catch (error) {
      say({ error: String(error?.stack ?? error) });
    }
  }
}

function floats(path) {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}
