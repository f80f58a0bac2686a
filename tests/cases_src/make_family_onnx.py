"""ONNX's own conformance cases, rewritten as case files; not a number is computed here.

    python make_family_onnx.py [--wheel onnx-1.22.0….whl]             writes the cases
    python make_family_onnx.py [--wheel onnx-1.22.0….whl] --check     holds the committed ones against new ones

onnx_1_22   the 64 test_attention_* folders (`_expanded` ones, which test the operator's rewriting into
            others, apart) of .pb files in the wheel of onnx 1.22.0, fetched with pip unless it is given
onnx_1_23   the 93 test_attention_* cases that the installed onnx 1.23 makes in memory (opsets 23, 24 and 25)
            and its 8 test_rotary_embedding* cases

How the operator's words become ours:
    [batch, heads, length, d]      [batch, length, heads * d], weights "none"
    attn_mask of bools, of floats  mask, bias; one that ends early is padded with false, with -inf
    past_key, past_value           past_k, past_v; present_k, present_v are expected
    nonpad_kv_seqlen               kv_lens, and positions that count from n - q_len, for each sequence its own
    left_ and right_window_size    window
    qk_matmul_output_mode          scores_at
    softmax_precision              nothing: it says how, not what
Tensors keep their type. The tolerance is the case's own, rtol 1e-3 and atol 1e-7 in all of them, but in half
precision, where the operator rounds every intermediate and so one unit in the last place of 1.0 is allowed.
"""

import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

import casefile

FOLDER = casefile.CASES.parent / "cases_family"
STAGES = ["logits", "capped", "masked", "softmax"]
SLOTS = {
    "Attention": ("Q K V attn_mask past_key past_value nonpad_kv_seqlen".split(),
                  "Y present_key present_value qk_matmul_output".split()),
    "RotaryEmbedding": ("input cos_cache sin_cache position_ids".split(), ["output"]),
}
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def rows(x):
    """[batch, heads, length, d] to [batch, length, heads * d]; three axes stay."""
    return x if x.ndim == 3 else x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def tolerance(x, rtol, atol):
    narrow = EPSILON.get(x.dtype.name)
    return [narrow, narrow] if narrow else [atol, rtol]


def attention(attributes, given, wanted, rtol, atol):
    """The description and the tensors of one Attention node with its inputs and outputs by name."""
    q, k, v = (given.pop(n) for n in "QKV")
    heads = q.shape[1] if q.ndim == 4 else attributes["q_num_heads"]
    kv_heads = k.shape[1] if k.ndim == 4 else attributes["kv_num_heads"]
    attributes = {n: x for n, x in attributes.items() if n not in ("q_num_heads", "kv_num_heads", "softmax_precision")}
    t = {"q": rows(q), "k": rows(k), "v": rows(v)}
    q_len, past = t["q"].shape[1], 0
    if "past_key" in given:
        t["past_k"], t["past_v"] = given.pop("past_key"), given.pop("past_value")
        past = t["past_k"].shape[2]
    kv_len = past + t["k"].shape[1]
    qk, out = t["q"].shape[2], rows(wanted["Y"]).shape[2]
    dims = {"q_in": qk, "k_in": t["k"].shape[2], "v_in": t["v"].shape[2], "qk": qk, "v": out, "out": out}
    meta = {"dims": dims, "heads": heads, "kv_heads": kv_heads, "weights": "none"}
    for name in ("scale", "softcap"):
        if name in attributes:
            meta[name] = attributes.pop(name)
    window = [attributes.pop("left_window_size", -1), attributes.pop("right_window_size", -1)]
    if window != [-1, -1]:
        meta["window"] = window
    if attributes.pop("is_causal", 0):
        meta["causal"] = True
    if "nonpad_kv_seqlen" in given:
        t["kv_lens"] = given.pop("nonpad_kv_seqlen")
        if "causal" in meta or "window" in meta:
            meta["causal_offset"] = [int(n) - q_len for n in t["kv_lens"]]
    if "attn_mask" in given:
        m = given.pop("attn_mask")
        missing = kv_len - m.shape[-1]
        if missing:
            m = np.concatenate([m, np.full((*m.shape[:-1], missing), False if m.dtype == bool else -np.inf, m.dtype)], -1)
        t["mask" if m.dtype == bool else "bias"] = m
    t["y"] = rows(wanted.pop("Y"))
    meta["y_tol"] = tolerance(t["y"], rtol, atol)
    mode = attributes.pop("qk_matmul_output_mode", 0)
    if "qk_matmul_output" in wanted:
        meta["scores_at"] = STAGES[mode]
        t["scores"] = wanted.pop("qk_matmul_output")
        meta["scores_tol"] = tolerance(t["scores"], rtol, atol)
    for ours, theirs in (("present_k", "present_key"), ("present_v", "present_value")):
        if theirs in wanted:
            t[ours] = wanted.pop(theirs)
    assert not (attributes or given or wanted), (attributes, given, wanted)
    return meta, t


def rotary(attributes, given, wanted, rtol, atol):
    """The same of a RotaryEmbedding node, as a case of kind "rope"."""
    heads = attributes.pop("num_heads", None)
    split = lambda x: x if x.ndim == 4 else x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)
    t = {"x": split(given.pop("input")), "cos": given.pop("cos_cache"), "sin": given.pop("sin_cache")}
    if "position_ids" in given:
        t["positions"] = given.pop("position_ids")
    meta = {"kind": "rope", "interleaved": bool(attributes.pop("interleaved", 0))}
    assert attributes.pop("rotary_embedding_dim", t["x"].shape[-1]) == 2 * t["cos"].shape[-1]
    t["rotated"] = split(wanted.pop("output"))
    meta["rotated_tol"] = tolerance(t["rotated"], rtol, atol)
    assert not (attributes or given or wanted), (attributes, given, wanted)
    return meta, t


def put(out, folder, name, model, inputs, outputs, rtol, atol, version):
    """Writes one case from a model of one node and its tensors in the order of the graph."""
    (node,) = model.graph.node
    (opset,) = model.opset_import
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    before, after = SLOTS[node.op_type]
    given = dict(zip((slot for slot, used in zip(before, node.input) if used), inputs, strict=True))
    wanted = dict(zip((slot for slot, used in zip(after, node.output) if used), outputs, strict=True))
    meta, tensors = {"Attention": attention, "RotaryEmbedding": rotary}[node.op_type](attributes, given, wanted, rtol, atol)
    meta["source"] = f"onnx {version} conformance case {name}, {node.op_type}-{opset.version}"
    casefile.write(out / folder / f"{name}.safetensors", meta, tensors)


def from_wheel(path, out):
    """What lies in the wheel as .pb files."""
    count = 0
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        root = "onnx/backend/test/data/node/"
        for case in sorted({n[len(root):].split("/")[0] for n in names if n.startswith(root + "test_attention_")}):
            if case.endswith("_expanded"):
                continue
            model = onnx.load_from_string(wheel.read(f"{root}{case}/model.onnx"))

            def load(kind):
                present = [n for n in names if n.startswith(f"{root}{case}/test_data_set_0/{kind}_")]
                return [numpy_helper.to_array(onnx.load_tensor_from_string(wheel.read(f"{root}{case}/test_data_set_0/{kind}_{i}.pb")))
                        for i in range(len(present))]

            # The folders hold no tolerance: it is the one of onnx's own test runner.
            put(out, "onnx_1_22", case, model, load("input"), load("output"), 1e-3, 1e-7, "1.22.0")
            count += 1
    return count


def from_memory(out):
    """What the installed package makes."""
    count = {"Attention": 0, "RotaryEmbedding": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for case in cases:
        if not case.name.startswith(("test_attention_", "test_rotary_embedding")) or case.name.endswith("_expanded"):
            continue
        ((inputs, outputs),) = case.data_sets
        put(out, "onnx_1_23", case.name, case.model, inputs, outputs, case.rtol, case.atol, onnx.__version__)
        count[case.model.graph.node[0].op_type] += 1
    return count


# Of a case: what somebody computed.
COMPUTED = {"y", "scores", "present_k", "present_v", "rotated"}


def differences(ours, theirs):
    """What is not the same in two case files. Descriptions and inputs are, to the last bit; what onnx 1.23 computes
    in memory is a sum in the order of this machine's numpy, so of that a few last bits may differ."""
    (meta, tensors), (meta_2, tensors_2) = casefile.read(ours), casefile.read(theirs)
    if meta != meta_2 or [(n, x.dtype, x.shape) for n, x in tensors.items()] != [(n, x.dtype, x.shape) for n, x in tensors_2.items()]:
        yield "another description"
        return
    for name, x in tensors.items():
        y = tensors_2[name]
        if x.tobytes() == y.tobytes():
            continue
        last_bits = EPSILON.get(x.dtype.name, 1e-6)
        if name not in COMPUTED or not np.allclose(x.astype(float), y.astype(float), atol=last_bits, rtol=last_bits, equal_nan=True):
            yield f"another {name}"


def check(made):
    """Whether the committed cases are those in `made`, no more and no fewer."""
    wrong, same = [], 0
    for folder in ("onnx_1_22", "onnx_1_23"):
        committed, new = ({p.name for p in (root / folder).glob("*")} for root in (FOLDER, made))
        wrong += [f"{folder}/{name}: not in both" for name in sorted(committed ^ new)]
        for name in sorted(committed & new):
            found = list(differences(FOLDER / folder / name, made / folder / name))
            wrong += [f"{folder}/{name}: {what}" for what in found]
            same += not found
    for line in wrong:
        print(line)
    print(f"{same} cases are what onnx makes, {len(wrong)} are not")
    sys.exit(1 if wrong or same == 0 else 0)


def make(arguments, out):
    assert onnx.__version__.startswith("1.23."), onnx.__version__
    print("onnx_1_23:", from_memory(out))
    with tempfile.TemporaryDirectory() as folder:
        if "--wheel" in arguments:
            wheel = arguments[arguments.index("--wheel") + 1]
        else:
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "onnx==1.22.0", "-d", folder], check=True)
            (wheel,) = Path(folder).glob("*.whl")
        print("onnx_1_22:", from_wheel(wheel, out))


def main(arguments):
    if "--check" not in arguments:
        make(arguments, FOLDER)
        return
    with tempfile.TemporaryDirectory() as folder:
        make(arguments, Path(folder))
        check(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
