// The library with the way back: `mha/train`. Everything that `mha/full` has, over a module that can go back too.

import { array, maybeFloats, object } from "./checks.js";
import { MhaError } from "./error.js";
import { bare, type BareOptions, FullLayer as Layer, FullMha as Mha, insideMha } from "./full.js";
import * as wasm from "./glue/mha_wasm.js";
import { inlined } from "./inlined.js";
import { type ForwardOptions, inside, type Output, output, type OutputWithScores } from "./layer.js";
import { once } from "./load.js";
import { type AttentionOptions, type Inputs, read } from "./options.js";
import { memory, out, type Owner, run, settle, text } from "./run.js";
import { unpack } from "./unpack.js";

export * from "./core.js";

/** What there are gradients of, in the order of the module. */
const NAMES = ["q", "k", "v", "wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo", "bias"] as const;

/** Something that has a gradient: an input, a weight, a bias of a projection, or the bias on the logits. */
export type GradientName = (typeof NAMES)[number];

/**
 * Which gradients are wanted: `true` for one in a new array, or where it is written. Each has the shape and the
 * order of what it is the gradient of. What is not wanted is not computed.
 */
export type WantedGradients = { readonly [name in GradientName]?: true | Float32Array | undefined };

/** The gradients that were wanted. */
export type Gradients<Wanted> = { [name in keyof Wanted & GradientName]: Float32Array };

/** What a way back takes beside what the way forward took. */
export interface BackwardOptions<Wanted extends WantedGradients> {
  /** The gradient of the loss with respect to the output, `[batch, qLen, out]`. */
  readonly dy: Float32Array;
  /** That with respect to the scores, after softmax and dropout, `[batch, heads, qLen, kvLen]`. */
  readonly dscores?: Float32Array | undefined;
  /** What {@link FullLayer.forwardKeeping} has kept of the same inputs: it is not computed again. */
  readonly kept?: Float32Array | undefined;
  /** Which gradients are wanted. */
  readonly gradients: Wanted;
  /** Adds to what stands in the arrays that are given instead of overwriting it. Default false. */
  readonly accumulate?: boolean | undefined;
}

/** A call that a layer goes back over. */
export type LayerBackwardOptions<Wanted extends WantedGradients> = Inputs & AttentionOptions & BackwardOptions<Wanted>;

/** What {@link FullLayer.forwardKeeping} takes: everything that the way back does. */
export type KeepingOptions = ForwardOptions & {
  /** Where it keeps what the way back would compute again, instead of in a new array. */
  readonly kept?: Float32Array | undefined;
};

/** What {@link FullLayer.forwardKeeping} gives besides. */
export interface WithKept {
  /** Queries, keys, values and mixed values, for {@link FullLayer.backward}. */
  kept: Float32Array;
}

/** A call of attention without projections that is gone back over. */
export type DotProductBackwardOptions<Wanted extends WantedGradients> = BareOptions &
  Inputs &
  AttentionOptions &
  Omit<BackwardOptions<Wanted>, "kept">;

declare module "./full.js" {
  interface FullLayer {
    /**
     * Computes the gradients of a loss with respect to the inputs, the weights and the additive bias, from
     * those with respect to the output and, where they matter, to the scores. The other options are those of
     * the way forward, dropout included, of which nothing has to be kept. An array that is queries and keys at
     * once (`q` alone) has the sum of the gradients of its uses, each of which is asked for by its own name.
     *
     * @throws MhaError naming what does not fit, such as `"dwq"`; nothing has been written then.
     *
     * @example
     * ```ts
     * const { wq, bias } = layer.backward({ q, bias: { data, shape }, dy, gradients: { wq: true, bias: true } });
     * ```
     */
    backward<Wanted extends WantedGradients>(options: LayerBackwardOptions<Wanted>): Gradients<Wanted>;
    /**
     * {@link Layer.forward}, which also keeps what {@link FullLayer.backward} would compute again: queries, keys,
     * values and what is mixed of them. The same outputs and gradients, bit for bit, both together in about a sixth
     * less time. `kept` is in a new array, or in yours if you give one.
     *
     * @throws MhaError for what does not fit; nothing has been written then.
     *
     * @example
     * ```ts
     * const { y, kept } = layer.forwardKeeping({ q });
     * const { wq } = layer.backward({ q, kept, dy: slope(y), gradients: { wq: true } });
     * ```
     */
    forwardKeeping(options: KeepingOptions & { readonly scores: true | Float32Array }): OutputWithScores & WithKept;
    forwardKeeping(options: KeepingOptions & { readonly scores?: false | undefined }): Output & WithKept;
    forwardKeeping(options: KeepingOptions): Output & Partial<OutputWithScores> & WithKept;
    /**
     * The weights where they lie, `wq wk wv wo` and then the biases that there are: write to it to train the
     * layer. It is a view on the module's memory: take it anew whenever that may have grown, as it does for a new
     * layer or a larger call.
     */
    readonly weights: Float32Array;
  }
}

declare module "./full.js" {
  interface FullMha {
    /**
     * The way back of {@link FullMha.dotProductAttention}: gradients of queries, keys, values and the additive
     * bias.
     *
     * @throws MhaError for what does not fit; nothing has been written then.
     */
    dotProductAttentionBackward<Wanted extends WantedGradients>(
      options: DotProductBackwardOptions<Wanted>,
    ): Gradients<Wanted>;
  }
}

/** What is wanted and where it goes, read once. */
function wantedOf(options: BackwardOptions<WantedGradients>): {
  dy: Float32Array;
  dscores: Float32Array | undefined;
  kept: Float32Array | undefined;
  wanted: (true | Float32Array | undefined)[];
  accumulate: boolean;
} {
  const { dy, dscores, kept, gradients, accumulate } = object("options", options);
  const given = object("options", gradients);
  const all = NAMES.map((name) => given[name]);
  return {
    dy: array("y", "Float32Array", dy),
    dscores: maybeFloats("scores", dscores),
    kept: maybeFloats("kept", kept),
    wanted: all.map((to, i) => (to === undefined || to === true ? to : array(NAMES[i] as GradientName, "Float32Array", to))),
    accumulate: accumulate === true,
  };
}

/** The way back of an owner, which it then frees. */
function backOf(owner: Owner): number {
  if (owner.back === undefined) {
    const made = wasm.back_new();
    owner.back = made;
    owner.frees.push(() => wasm.back_free(made));
  }
  return owner.back;
}

/** Throws what a step of the way back has found wrong: with the call, as ever, or with a gradient of an argument. */
function settled(code: number, back: number): 0 {
  const [name, length, needed, given, gradient] = new Uint32Array(memory.buffer, wasm.back_problem(back), 5) as unknown as [
    number, number, number, number, number,
  ];
  if (code === 11 || (code !== 0 && gradient === 1)) {
    const argument = text(name, length);
    const at = gradient === 1 ? `d${argument}` : argument;
    const words =
      code === 11
        ? "there is no way back through it"
        : code === 10
          ? `the call has no ${argument}`
          : `${needed} elements needed, ${given} given`;
    throw new MhaError(code, at, `${at}: ${words}`);
  }
  settle(code, wasm.back_problem, back);
  return 0;
}

/** Goes back: describes, makes room, copies in, computes, copies out. */
function goBack<Wanted extends WantedGradients>(
  owner: Owner,
  given: Parameters<typeof run>[1],
  options: BackwardOptions<Wanted>,
  reserve: (back: number) => number,
  compute: (back: number) => number,
): Gradients<Wanted> {
  const { dy, dscores, kept, wanted, accumulate } = wantedOf(options);
  const back = backOf(owner);
  wasm.back_begin(back, dy.length, dscores?.length, kept?.length, accumulate);
  for (const [i, to] of wanted.entries()) {
    if (to !== undefined) {
      wasm.back_want(back, i, to === true ? undefined : to.length);
    }
  }
  // The call's own way makes the room, copies its inputs in and says what is wrong with them; the errors are
  // the way back's.
  run(
    owner.call,
    { ...given, y: undefined, scores: false },
    () => settled(reserve(back), back),
    () => {
      const { buffer } = memory;
      const fill = (at: number, data: Float32Array): void => new Float32Array(buffer, at, data.length).set(data);
      fill(wasm.back_dy(back), dy);
      if (dscores !== undefined) {
        fill(wasm.back_dscores(back), dscores);
      }
      if (kept !== undefined) {
        fill(wasm.back_kept(back), kept);
      }
      for (const [i, to] of wanted.entries()) {
        if (to !== undefined) {
          const room = new Float32Array(buffer, wasm.back_gradient(back, i), wasm.back_gradient_len(back, i));
          to === true ? room.fill(0) : room.set(to);
        }
      }
      return settled(compute(back), back);
    },
  );
  const found: { [name in GradientName]?: Float32Array } = {};
  for (const [i, to] of wanted.entries()) {
    if (to !== undefined) {
      const place = wasm.back_gradient(back, i);
      found[NAMES[i] as GradientName] = out(place, wasm.back_gradient_len(back, i), to === true ? undefined : to);
    }
  }
  return found as Gradients<Wanted>;
}

Layer.prototype.backward = function <Wanted extends WantedGradients>(
  this: Layer,
  options: LayerBackwardOptions<Wanted>,
): Gradients<Wanted> {
  const own = inside(this);
  const { layer, call } = own;
  const given = read(options, this.dims.qIn, this.dims.kIn, this.heads);
  return goBack(
    own,
    given,
    options,
    (back) => wasm.layer_reserve_backward(layer, call, back),
    (back) => wasm.layer_backward(layer, call, back),
  );
};

Layer.prototype.forwardKeeping = function (this: Layer, options: KeepingOptions): OutputWithScores & WithKept {
  const own = inside(this);
  const { layer, call } = own;
  const kept = maybeFloats("kept", object("options", options).kept);
  const given = read(options, this.dims.qIn, this.dims.kIn, this.heads);
  const back = backOf(own);
  const written = run(
    call,
    given,
    () => {
      settle(wasm.layer_reserve(layer, call), wasm.call_problem, call);
      return settled(wasm.layer_reserve_kept(layer, call, back, kept?.length), back);
    },
    () => settled(wasm.layer_forward_keeping(layer, call, back), back),
  );
  // With scores where they were asked for.
  return { ...(output(written) as OutputWithScores), kept: out(wasm.back_kept(back), wasm.back_kept_len(back), kept) };
};

Object.defineProperty(Layer.prototype, "weights", {
  get(this: Layer): Float32Array {
    const { layer } = inside(this);
    return new Float32Array(memory.buffer, wasm.layer_data(layer), wasm.layer_data_len(layer));
  },
});

Mha.prototype.dotProductAttentionBackward = function <Wanted extends WantedGradients>(
  this: Mha,
  options: DotProductBackwardOptions<Wanted>,
): Gradients<Wanted> {
  const own = insideMha(this);
  const { call } = own;
  const { qk, v, heads, kvHeads, scale } = bare(options);
  const given = read(options, qk, (qk / heads) * kvHeads, heads);
  return goBack(
    own,
    given,
    options,
    (back) => wasm.call_reserve_backward(call, back, heads, kvHeads, qk, v, scale),
    (back) => wasm.call_attend_backward(call, back, heads, kvHeads, qk, v, scale),
  );
};

/**
 * Loads the library with the way back. There is one instance a realm (page, worker, process), apart from that of
 * `mha`, and later calls give it.
 *
 * @example
 * ```ts
 * import { load } from "mha/train";
 * const mha = await load();
 * ```
 */
export function load(): Promise<Mha> {
  return once(() => unpack(inlined));
}
