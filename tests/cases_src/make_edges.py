"""Cases on the edges of arithmetic and of shapes, by the textbook implementation: infinities, NaN, logits of
every size, keys that nobody sees, rows whose maximum keeps rising, lengths of zero.

Where logits are large, inputs are chosen so that the answer is the same however f32 rounds them: they are
exact, and either equal or far apart. A few cases mean to feel the rounding and say so in their tolerance.
"""

from functools import partial

import numpy as np

from casefile import f32, rng
from textbook import case as textbook_case

case = partial(textbook_case, "edges")
BARE = {"weights": "none"}
INF, NAN = np.inf, np.nan
F32_MAX = float(np.finfo(np.float32).max)


def ramp(name, logits, values=4, q_len=3, **options):
    """Bare attention of one head whose logits are exactly the given ones: [kv_len], the same for each
    query, or [q_len, kv_len]. With a head width of 2, q = (1, 0) reads the first feature of k."""
    logits = np.asarray(logits, float)
    kv_len = logits.shape[-1]
    given = {}
    if logits.ndim == 1:
        k = np.stack([logits, rng(name).standard_normal(kv_len)], -1)
        given = {"q": np.tile([1.0, 0.0], (1, q_len, 1)), "k": k[None]}
        dims = {"q_in": 2, "k_in": 2, "v_in": values, "qk": 2, "v": values, "out": values}
    else:  # one feature a query, so each has logits of its own
        q_len = len(logits)
        given = {"q": np.eye(q_len)[None], "k": logits.T[None]}
        dims = {"q_in": q_len, "k_in": q_len, "v_in": values, "qk": q_len, "v": values, "out": values}
    case(name, dims, 1, batch=(1,), q_len=q_len, kv_len=kv_len, **BARE, scale=1, given=given, **options)


def rising():
    """The running maximum moves in every block of 16 keys, so whatever was summed before is rescaled."""
    for kv_len in (65, 128, 257):
        j = np.arange(kv_len)
        noise = f32(rng(f"noise {kv_len}").standard_normal(kv_len)).astype(float)
        for step in (1, 5, 20, 200):
            top = j // 16 - (kv_len - 1) // 16
            # Ending near zero: what is large is also negligible.
            ramp(f"rising_{step}_to_0_{kv_len}", step * top + noise, q_len=2, outputs="y scores" if kv_len < 200 else "y")
        # Ending high, all equal in a block: exact.
        ramp(f"rising_200_from_0_{kv_len}", 200.0 * (j // 16), q_len=2)
        ramp(f"falling_20_{kv_len}", -20.0 * (j // 16) + noise, q_len=2)
    j = np.arange(130)
    ramp("rising_each_key_1", j - 129.0)
    ramp("rising_each_key_small", j / 64 - 2)
    ramp("rising_each_key_0.7_from_0", f32(0.7 * j))
    ramp("rising_by_powers_of_two", 2.0 ** (j / 13).astype(int))
    ramp("zigzag", np.where(j % 2, 30.0, -30.0) * (j // 16 % 3))
    ramp("rising_then_falling", 12 - 6.0 * np.abs(j // 16 - 4))
    # Each query has its peak elsewhere.
    peaks = np.array([0, 1, 15, 16, 17, 31, 32, 63, 64, 65, 127, 128, 129])
    ramp("one_peak_a_query", np.where(np.arange(130) == peaks[:, None], 8.0, 0.0))
    ramp("one_high_peak_a_query", np.where(np.arange(130) == peaks[:, None], 512.0, 0.0))
    ramp("rising_causal", 3.0 * (np.arange(70) // 16), q_len=70, causal=True, outputs="y")
    ramp("rising_by_bias", np.zeros(70), bias=4.0 * (np.arange(70) // 8) - 32)
    ramp("rising_by_bias_and_logit", 16.0 * (np.arange(70) // 16), bias=-16.0 * (np.arange(70) // 16) + np.arange(70) / 32)
    layer = rng("rising layer")
    k = layer.standard_normal((1, 67, 6)) * (1 + np.arange(67)[:, None] / 8)
    case("rising_through_a_layer", 6, 2, batch=(1,), q_len=5, kv_len=67, given={"k": k}, biases="qkvo")


def large():
    r = rng("large")
    for size, tolerance in ((30, {}), (300, {"y_tol": [4e-5, 4e-5], "scores_tol": [4e-5, 4e-5]}), (3000, {})):
        k = r.standard_normal((2, 33, 8)) * size / 4
        case(f"logits_to_{size}_rounded", 8, 2, q_len=3, kv_len=33, **BARE, given={"k": k}, **tolerance)
    steps = np.array([[1, 0, 0.5, 0, 1], [0, 0, 0, 0, 0.25], [-1, -1, -0.5, -1, -1], [-1, 1, 0, 1, -1]])
    for exponent in (7, 10, 17, 40, 70, 100, 120, 126):
        ramp(f"logits_to_2_to_the_{exponent}", steps * 2.0**exponent)
    ramp("logits_to_1e30", steps * 1e30)
    # One step below f32's largest number: log2(e) times as much does not fit into an f32.
    ramp("logits_to_f32_max", steps * F32_MAX)
    ramp("logits_all_minus_1e30", np.full(19, -1e30))
    ramp("logits_all_1e30", np.full(19, 1e30))
    ramp("logits_all_f32_max", np.full(19, F32_MAX))
    ramp("logits_all_minus_f32_max", np.full(19, -F32_MAX))
    ramp("logits_f32_max_late", np.where(np.arange(70) == 66, F32_MAX, np.arange(70) / 16))
    ramp("logits_1e30_early", np.where(np.arange(70) == 1, 1e30, 0.0))
    ramp("logits_88_and_its_neighbours", np.arange(-104.0, 105.0, 8))  # exp overflows f32 beyond 88.7
    ramp("logits_where_exp_underflows", -np.array([0, 86, 87, 87.5, 88, 90, 100, 103, 104, 110, 150.0]))
    ramp("logits_equal", np.full(31, 3.25))
    ramp("logits_tiny", r.integers(-3, 4, 17) * 1e-40)
    case("scale_cancels_large_inputs", 8, 2, **BARE, scale=2.0**-80, given={
        "q": r.standard_normal((2, 3, 8)) * 2.0**40, "k": r.standard_normal((2, 5, 8)) * 2.0**40})
    case("values_1e30", 4, 2, **BARE, given={"v": r.standard_normal((2, 5, 4)) * 1e30}, y_tol=[1e24, 2e-5])
    case("values_1e-30", 4, 2, **BARE, given={"v": r.standard_normal((2, 5, 4)) * 1e-30}, y_tol=[1e-36, 2e-5])
    case("inputs_zero", 8, 2, given={n: np.zeros((2, 5 if n != "q" else 3, 8)) for n in "qkv"}, biases="qkvo")
    case("values_equal", 4, 2, **BARE, given={"v": np.full((2, 5, 4), 1.5)})


def finite_fills():
    """Large negative numbers that other libraries use for a mask. To mha they are numbers like any other."""
    for tag, fill in (("1e9", -1e9), ("1e30", -1e30), ("f32_min", -F32_MAX)):
        some = np.zeros((3, 5))
        some[0, [1, 3]] = fill
        some[2, 1:] = fill
        case(f"fill_{tag}", 8, 2, bias=some)
        # A whole row of it over equal logits is an even row, not an empty one.
        row = np.zeros((3, 5))
        row[1] = fill
        q = rng("fill").standard_normal((2, 3, 8))
        q[:, 1] = 0
        case(f"fill_{tag}_whole_row", 8, 2, bias=row, given={"q": q})
        row[1, 2] = -INF
        case(f"fill_{tag}_whole_row_but_one_masked", 8, 2, bias=row, given={"q": q}, biases="o")
    row = np.zeros((3, 5))
    row[1] = -F32_MAX
    case("fill_f32_min_absorbs_logits", 8, 2, **BARE, bias=row, given={"k": np.abs(rng("absorb").standard_normal((2, 5, 8)))})
    row[1] = -1e4
    case("fill_1e4_whole_row_rounded", 8, 2, **BARE, bias=row, y_tol=[2e-3, 2e-5], scores_tol=[5e-4, 2e-5])
    case("fill_1e9_and_mask", 8, 2, bias=np.where(np.tri(3, 5) > 0, 0, -1e9), mask=np.tri(3, 5, 2, dtype=bool))
    late = np.full(70, -1e9)
    late[69] = 0
    ramp("fill_1e9_until_the_last_key", np.zeros(70), bias=late)


def infinite_bias():
    for tag, kept in (("first", slice(0, 1)), ("last", slice(69, 70)), ("block_2", slice(16, 32)), ("after_64", slice(64, 70)),
                      ("after_15", slice(15, 70)), ("until_17", slice(0, 17))):
        bias = np.full(70, -INF)
        bias[kept] = 0
        case(f"bias_minus_inf_but_{tag}", 6, 2, batch=(1,), q_len=3, kv_len=70, bias=bias, biases="o")
        case(f"mask_but_{tag}", 6, 2, batch=(1,), q_len=3, kv_len=70, **BARE, mask=np.isfinite(bias))
    gaps = np.arange(70) // 16 % 2 == 1
    case("mask_every_other_block", 6, 2, batch=(1,), q_len=3, kv_len=70, mask=gaps)
    case("mask_every_other_key", 6, 2, batch=(1,), q_len=3, kv_len=70, mask=(np.arange(70) % 2).astype(np.uint8))
    case("bias_minus_inf_everywhere", 6, 2, bias=np.full((1,), -INF), biases="o")
    case("bias_minus_inf_causal_triangle", 6, 2, call="q", q_len=19, batch=(1,), bias=np.where(np.tri(19) > 0, 0, -INF))
    case("bias_minus_inf_one_head", 6, 3, bias=np.array([0, -INF, 0]).reshape(3, 1, 1), biases="vo")
    both = np.zeros((4, 6))
    both[0] = [INF, -INF, 0, INF, -INF, 1]
    both[1] = [-INF, -INF, INF, -INF, -INF, -INF]
    both[2] = INF
    both[3] = [INF, -1e9, 1e30, 0, 0, -INF]
    case("bias_plus_and_minus_inf", 6, 2, q_len=4, kv_len=6, bias=both)
    hidden = np.tile([1, 1, 0, 1, 1, 1], (4, 1)).astype(bool)
    hidden[0, [0, 3]] = False
    case("bias_plus_inf_behind_the_mask", 6, 2, q_len=4, kv_len=6, bias=both, mask=hidden)
    ahead = np.zeros((4, 6))
    ahead[:, 5] = INF
    case("bias_plus_inf_in_the_future", 6, 2, q_len=4, kv_len=6, bias=ahead, causal=True, causal_offset=2)
    for at in ((0,), (69,), (15, 16), (3, 40, 68), tuple(range(0, 70, 7))):
        bias = np.zeros(70)
        bias[list(at)] = INF
        case(f"bias_plus_inf_at_{'_'.join(map(str, at[:3]))}_of_70", 6, 2, batch=(1,), q_len=2, kv_len=70, bias=bias)


def unseen():
    """Keys and values that nobody may see hold NaN and infinities; the outputs do not notice."""
    def poisoned(name, rows, batch=2, kv_len=6, width=6):
        r = rng(name)
        k, v = r.standard_normal((2, batch, kv_len, width))
        for b, j in rows:
            k[b, j], v[b, j] = (NAN, INF) if j % 2 else (-INF, NAN)
        return {"k": k, "v": v}

    padding = np.ones((2, 1, 1, 6), bool)
    padding[0, ..., 4:] = padding[1, ..., 2:] = False
    rows = [(0, 4), (0, 5), (1, 2), (1, 3), (1, 4), (1, 5)]
    case("unseen_by_mask", 6, 2, q_len=3, kv_len=6, mask=padding, given=poisoned("a", rows))
    case("unseen_by_mask_bare", 6, 3, **BARE, q_len=3, kv_len=6, mask=padding, given=poisoned("b", rows))
    case("unseen_by_u8_mask_biases", 6, 2, q_len=3, kv_len=6, mask=padding.astype(np.uint8), given=poisoned("c", rows), biases="qkvo", weights="out_in")
    case("unseen_by_bias", 6, 2, q_len=3, kv_len=6, bias=np.where(padding, 0.5, -INF), given=poisoned("d", rows))
    case("unseen_by_bias_bare", 6, 2, **BARE, q_len=3, kv_len=6, bias=np.where(padding, 0.5, -INF), given=poisoned("e", rows))
    case("unseen_future", 6, 2, q_len=3, kv_len=6, causal=True, given=poisoned("f", [(b, j) for b in (0, 1) for j in (3, 4, 5)]))
    case("unseen_future_bare", 6, 2, **BARE, q_len=3, kv_len=6, causal=True, given=poisoned("g", [(b, j) for b in (0, 1) for j in (3, 4, 5)]))
    case("unseen_future_per_batch", 6, 2, q_len=3, kv_len=6, causal=True, causal_offset=[1, -1],
         given=poisoned("h", [(0, 4), (0, 5), (1, 2), (1, 3), (1, 4), (1, 5)]), biases="o")
    case("unseen_by_mask_and_future_together", 6, 2, q_len=3, kv_len=6, causal=True, causal_offset=1, mask=np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1]], bool),
         given=poisoned("i", [(b, j) for b in (0, 1) for j in (3, 4, 5)]))
    case("unseen_by_mask_and_bias_together", 6, 2, q_len=2, kv_len=6, mask=np.array([[1, 1, 0, 1, 1, 1], [1] * 6], bool),
         bias=np.array([[0.0] * 6, [0, 0, -INF, 0, 0, 0]]), given=poisoned("j", [(0, 2), (1, 2)]))
    case("unseen_all", 6, 2, q_len=3, kv_len=6, mask=np.zeros(1, bool), given=poisoned("k", [(b, j) for b in (0, 1) for j in range(6)]), biases="o")
    long = np.arange(70) < 37
    case("unseen_33_of_70", 6, 2, batch=(1,), q_len=3, kv_len=70, mask=long, given=poisoned("l", [(0, j) for j in range(37, 70)], 1, 70))
    case("unseen_first_37_of_70", 6, 2, batch=(1,), q_len=3, kv_len=70, **BARE, mask=~long, given=poisoned("m", [(0, j) for j in range(37)], 1, 70))
    case("unseen_every_other", 6, 2, batch=(1,), q_len=3, kv_len=70, mask=np.arange(70) % 2 == 0, given=poisoned("n", [(0, j) for j in range(1, 70, 2)], 1, 70))
    case("unseen_key_is_value", 6, 2, call="qk", q_len=3, kv_len=6, mask=padding, given={"k": poisoned("o", rows)["k"]})
    behind = np.zeros((3, 5))
    behind[0, 3:], behind[1, 4], behind[2, 4] = NAN, INF, NAN
    case("nan_bias_behind_the_mask", 6, 2, bias=behind, mask=np.array([1, 1, 1, 0, 0], bool))
    case("nan_bias_in_the_future", 6, 2, bias=behind, causal=True)


def nan_stays():
    """NaN reaches what depends on it and nothing else."""
    r = rng("nan")
    q = r.standard_normal((2, 5, 6))
    q[0, 1, 2] = q[1, 4, 5] = NAN
    case("nan_query", 6, 2, q_len=5, kv_len=7, given={"q": q}, biases="o")
    case("nan_query_bare_one_head", 6, 2, **BARE, q_len=5, kv_len=7, given={"q": q})
    case("nan_query_sees_nothing", 6, 2, q_len=5, kv_len=7, given={"q": q}, biases="o", mask=np.array([1, 0, 1, 1, 1], np.uint8).reshape(5, 1))
    bias = r.standard_normal((5, 7))
    bias[2, 3] = bias[4, 6] = NAN
    case("nan_bias", 6, 2, q_len=5, kv_len=7, bias=bias)
    case("nan_bias_one_head", 6, 2, q_len=5, kv_len=7, **BARE, bias=np.stack([np.zeros((5, 7)), bias]))
    k = r.standard_normal((2, 7, 6))
    k[0, 6, 0] = k[1, 5] = NAN
    case("nan_key_late_causal", 6, 2, q_len=7, kv_len=7, given={"k": k}, causal=True, outputs="y")
    case("nan_key_late_causal_bare", 6, 2, **BARE, q_len=7, kv_len=7, given={"k": k}, causal=True, outputs="y")
    only = np.ones((5, 7), bool)
    only[[0, 1, 3], 5:] = False
    case("nan_key_masked_for_some", 6, 2, q_len=5, kv_len=7, given={"k": k}, mask=only, outputs="y")
    k = r.standard_normal((2, 7, 6))
    k[0, 3] = NAN
    case("nan_key_one_batch_item", 6, 2, q_len=5, kv_len=7, given={"k": k})
    k = r.standard_normal((2, 7, 6))
    k[:, 3, 4] = NAN
    case("nan_key_one_head", 6, 2, **BARE, q_len=5, kv_len=7, given={"k": k})
    v = r.standard_normal((2, 7, 6))
    v[0, 3, 4] = v[1, 0, 0] = NAN
    case("nan_value_one_feature", 6, 2, **BARE, q_len=5, kv_len=7, given={"v": v})
    case("nan_everywhere", 4, 2, given={"q": np.full((2, 3, 4), NAN)}, outputs="y")


def shapes():
    case("no_keys", 6, 2, q_len=3, kv_len=0, biases="qkvo")
    case("no_keys_no_biases", 6, 2, q_len=3, kv_len=0)
    case("no_keys_bare", 6, 2, **BARE, q_len=3, kv_len=0)
    case("no_keys_causal", 6, 2, q_len=3, kv_len=0, causal=True, causal_offset=4, biases="o", outputs="y")
    case("no_queries", 6, 2, q_len=0, kv_len=5, biases="qkvo")
    case("no_queries_bare", 6, 2, **BARE, q_len=0, kv_len=5, outputs="y")
    case("no_batch_items", 6, 2, batch=(0,), biases="qkvo", outputs="y")
    case("one_of_everything_bare", 1, 1, **BARE, batch=(1,), q_len=1, kv_len=1)
    case("one_of_everything_biases", 1, 1, batch=(), q_len=1, kv_len=1, biases="qkvo", call="q")
    case("one_key_masked", 4, 2, kv_len=1, mask=np.zeros((1, 1), bool), biases="o")
    case("one_key_large_logit", 4, 2, **BARE, kv_len=1, scale=1e30)
    case("sixteen_heads", 16, 16, q_len=3, kv_len=17, call="qk")
    case("thirteen_heads_of_three", {"q_in": 5, "qk": 39, "out": 3}, 13, q_len=3, kv_len=5, biases="v")
    case("head_width_129", 129, 1, **BARE, batch=(1,), q_len=3, kv_len=5)
    case("value_width_65_key_width_1", {"q_in": 3, "qk": 2, "v": 130, "out": 2}, 2, batch=(1,), q_len=3, kv_len=5)
    case("key_width_65_value_width_1", {"q_in": 3, "qk": 130, "v": 2, "out": 2}, 2, batch=(1,), q_len=3, kv_len=5)
    case("wide_in_narrow_head", {"q_in": 67, "k_in": 35, "v_in": 19, "qk": 2, "v": 2, "out": 1}, 2, batch=(1,), q_len=3, kv_len=5, biases="qkvo")
    case("narrow_in_wide_out", {"q_in": 1, "k_in": 1, "v_in": 1, "qk": 2, "v": 2, "out": 71}, 1, batch=(1,), q_len=3, kv_len=5)
    case("129_by_129_causal", 4, 2, batch=(1,), call="q", q_len=129, causal=True, outputs="y")
    case("33_by_67_everything", {"q_in": 5, "k_in": 3, "v_in": 7, "qk": 6, "v": 10, "out": 4}, 2, q_len=33, kv_len=67, biases="qkvo",
         bias=(2, 1, 67), mask=(2, 1, 33, 67), causal=True, causal_offset=34, outputs="y")
    case("1024_keys", 4, 1, **BARE, batch=(1,), q_len=1, kv_len=1024, mask=(1, 1024))


def main():
    rising()
    large()
    finite_fills()
    infinite_bias()
    unseen()
    nan_stays()
    shapes()


if __name__ == "__main__":
    main()
