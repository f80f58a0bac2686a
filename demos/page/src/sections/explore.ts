// A case file of one's own: does the same come out here, and what do its heads look at?

import { type Mha, MhaError } from "mha/train";
import type { AttentionView } from "mha/view";

import { type Case, readCase } from "../case/case.js";
import { type Outcome, runCase } from "../case/run.js";
import { CaseError } from "../case/tensors.js";
import type { Data } from "../data.js";
import { button, find, make, milliseconds } from "../dom.js";

/** The most bytes that are taken. */
const MOST = 64 * 2 ** 20;

/** The most cells of a head that are drawn. */
const CELLS = 512 * 512;

/** Starts the part of the page. */
export function explore(mha: Mha, cases: Data["cases"]): void {
  const [file, drop, item] = [find<HTMLInputElement>("file"), find("drop"), find<HTMLSelectElement>("item")];
  const view = find<AttentionView>("case-view");
  let open: { given: Case; outcome: Outcome } | undefined;

  const refuse = (name: string, why: string): void => {
    const error = find("case-error");
    error.replaceChildren();
    make("b", error, `${name} cannot be explored. `);
    error.append(why);
    error.hidden = false;
    find("case").hidden = true;
  };

  const look = (): void => {
    if (open === undefined) {
      return;
    }
    const { given, outcome } = open;
    const { heads, causalOffset, causal } = given.about;
    const each = heads * given.qLen * outcome.columns;
    const sequence = Number(item.value);
    const offset = Array.isArray(causalOffset) ? causalOffset[sequence] : (causalOffset ?? given.past?.len ?? 0);
    view.attention = {
      scores: outcome.weights.subarray(sequence * each, (sequence + 1) * each),
      heads,
      queries: given.qLen,
      keys: outcome.columns,
      causal: causal ? offset : undefined,
    };
  };

  const read = (name: string, bytes: Uint8Array<ArrayBuffer>): void => {
    try {
      const given = readCase(bytes);
      const outcome = runCase(mha, given);
      if (given.batch === 0 || given.qLen === 0 || outcome.columns === 0) {
        throw new CaseError("It is a good case, but an empty one: there are no scores to see.");
      }
      if (given.qLen * outcome.columns > CELLS) {
        throw new CaseError(`It is a good case, but ${given.qLen} × ${outcome.columns} scores a head are too many to draw.`);
      }
      open = { given, outcome };
    } catch (error) {
      if (error instanceof CaseError || error instanceof MhaError) {
        refuse(name, error.message);
        return;
      }
      throw error;
    }
    find("case-error").hidden = true;
    find("case").hidden = false;
    item.replaceChildren();
    for (let i = 0; i < open.given.batch; i++) {
      make("option", item, `${i + 1} of ${open.given.batch}`).value = String(i);
    }
    find("item-row").hidden = open.given.batch === 1;
    facts(name, open.given, open.outcome);
    view.lock(undefined);
    look();
  };

  const take = async (given: File): Promise<void> => {
    if (given.size > MOST) {
      refuse(given.name, `It has ${Math.round(given.size / 2 ** 20)} MiB; this page takes up to ${MOST / 2 ** 20}.`);
      return;
    }
    read(given.name, new Uint8Array(await given.arrayBuffer()));
  };

  item.onchange = look;
  file.onchange = () => {
    const given = file.files?.[0];
    if (given !== undefined) {
      void take(given);
    }
    // So that the same file can be opened again.
    file.value = "";
  };
  drop.ondragover = (event) => {
    event.preventDefault();
    drop.setAttribute("data-over", "");
  };
  drop.ondragleave = () => drop.removeAttribute("data-over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.removeAttribute("data-over");
    const given = event.dataTransfer?.files[0];
    if (given !== undefined) {
      void take(given);
    }
  };
  addEventListener("paste", (event) => {
    const given = event.clipboardData?.files[0];
    const text = event.clipboardData?.getData("text/plain").replace(/\s/g, "") ?? "";
    if (given !== undefined) {
      event.preventDefault();
      void take(given);
    } else if (text !== "") {
      const bytes = decode(text);
      if (bytes === undefined) {
        refuse("What was pasted", "It is neither a file nor base64 of one.");
      } else {
        read("What was pasted", bytes);
      }
    }
  });
  for (const [name, bytes] of cases) {
    button(find("cases"), name, name, () => read(name, bytes));
  }
  read(...cases[0]!);
}

/** The bytes that base64 stands for. */
function decode(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  } catch {
    return undefined;
  }
}

/** Says what the layer is, and how the outputs compare. */
function facts(name: string, { about, batch, qLen }: Case, { columns, comparisons, took }: Outcome): void {
  const list = find("case-facts");
  list.replaceChildren();
  const fact = (term: string, text: string, kind = ""): void => {
    const row = make("div", list);
    make("dt", row, term);
    make("dd", row, text).className = kind;
  };
  const { dims, heads, kvHeads, causal } = about;
  fact("Case", name);
  fact("Computed by", about.source);
  fact("Layer", `${dims.qk} wide, ${heads} ${heads === 1 ? "head" : "heads"}${kvHeads === heads ? "" : `, ${kvHeads} of keys`}${causal ? ", causal" : ""}`);
  fact("Tokens", `${batch} × ${qLen} ask, ${columns} looked at`);
  for (const { output, failed, elements, worst } of comparisons) {
    const same = failed === 0;
    const off = worst === 0 ? "not a bit off" : `at most ${worst.toExponential(1)} off`;
    fact(output, same ? `equal: ${elements} numbers, ${off}` : `${failed} of ${elements} numbers differ, by up to ${worst.toExponential(1)}`, same ? "right" : "wrong");
  }
  fact("Took", milliseconds(took));
}
