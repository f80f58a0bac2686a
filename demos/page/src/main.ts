// The page: loads the library and starts its parts.

import { load, type Mha } from "mha/train";
import { defineAttentionView } from "mha/view";

import { type Data, unpack } from "./data.js";
import { find } from "./dom.js";
import { Digits } from "./nets/digits.js";
import { Vowels } from "./nets/vowels.js";
import { draw } from "./sections/draw.js";
import { explore } from "./sections/explore.js";
import { listen } from "./sections/listen.js";
import { teach } from "./sections/teach.js";

defineAttentionView();

function start([mha, data]: [Mha, Data]): void {
  find("isa").textContent = `this tab: WebAssembly, ${mha.isa}`;
  const digits = new Digits(mha, data.digits);
  teach(mha, data, digits, draw(digits, data.images));
  listen(new Vowels(mha, data.vowels), data.spoken);
  explore(mha, data.cases);
  document.documentElement.dataset["ready"] = "";
}

// A classic script, so that the page can be opened from a folder; it has no `await` at its top.
Promise.all([load(), unpack()]).then(start, (error: unknown) => {
  find("isa").textContent = `not at all: ${error instanceof Error ? error.message : String(error)}`;
});
