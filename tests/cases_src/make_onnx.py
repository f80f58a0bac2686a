"""Cases from ONNX's Attention operator (opset 23): computed in float64 by the reference evaluator of the
onnx package, and written only where ONNX Runtime's CPU kernel agrees (which rounds the scale to f32).

Projections are MatMul and Add nodes around the operator, as exporters write them: weights are [in][out].
"""

import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import casefile
from casefile import build, full_dims

FOLDER = casefile.CASES / "onnx"
MODES = {"logits": 0, "capped": 1, "masked": 2, "softmax": 3}
SOURCE = f"onnx {onnx.__version__} reference evaluator, Attention-23 in float64; ONNX Runtime {onnxruntime.__version__} agrees"


def model(meta, tensors):
    """A graph from the case's tensors to y and scores."""
    heads, (_, _, _, qk, v, _) = meta["heads"], full_dims(meta["dims"])
    nodes, ends = [], {}
    sources = {"q": "q", "k": "k" if "k" in tensors else "q"}
    sources["v"] = "v" if "v" in tensors else sources["k"]
    plain = meta.get("weights") == "none"

    def project(x, letter):
        if plain:
            return x
        nodes.append(helper.make_node("MatMul", [x, "w" + letter], ["m" + letter]))
        if "b" + letter not in tensors:
            return "m" + letter
        nodes.append(helper.make_node("Add", ["m" + letter, "b" + letter], ["a" + letter]))
        return "a" + letter

    inputs = [project(sources[n], n) for n in "qkv"]
    inputs += [n for n in ("bias", "mask") if n in tensors]
    attributes = {"q_num_heads": heads, "kv_num_heads": heads, "qk_matmul_output_mode": MODES[meta.get("scores_at", "softmax")]}
    if meta.get("causal"):
        attributes["is_causal"] = 1
    if "scale" in meta:
        attributes["scale"] = meta["scale"]
    nodes.append(helper.make_node("Attention", inputs, ["x", "", "", "scores"], **attributes))
    y = project("x", "o")
    kinds = {n: TensorProto.BOOL if x.dtype == bool else TensorProto.DOUBLE for n, x in tensors.items()}
    graph = helper.make_graph(
        nodes, "case",
        [helper.make_tensor_value_info(n, kinds[n], x.shape) for n, x in tensors.items()],
        [helper.make_tensor_value_info(n, TensorProto.DOUBLE, [None] * rank) for n, rank in ((y, 3), ("scores", 4))])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), [y, "scores"]


def case(name, dims, heads, **options):
    meta, stored = build("onnx/" + name, dims, heads, **options)
    meta["source"] = SOURCE
    feeds = {n: x if x.dtype == bool else x.astype(np.float64) for n, x in stored.items()}
    proto, names = model(meta, feeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y, scores = ReferenceEvaluator(proto).run(names, feeds)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for expected, other in zip((y, scores), session.run(names, feeds)):
        np.testing.assert_allclose(other, expected, rtol=1e-6, atol=1e-6, err_msg=name)
    casefile.write(FOLDER / f"{name}.safetensors", meta, {**stored, "y": y, "scores": scores})


def main():
    case("layer", 8, 2)
    case("layer_all_widths", {"q_in": 5, "k_in": 7, "v_in": 3, "qk": 8, "v": 12, "out": 9}, 4, biases="qkvo")
    case("layer_some_biases", {"q_in": 5, "qk": 6, "out": 4}, 3, biases="qv")
    case("layer_self_causal", 8, 2, call="q", q_len=7, causal=True)
    case("attention", 8, 2, weights="none")
    case("attention_value_wider", {"q_in": 6, "k_in": 6, "v_in": 10, "qk": 6, "v": 10, "out": 10}, 2, weights="none")
    case("causal_longer_keys", 8, 2, weights="none", q_len=4, kv_len=9, causal=True)
    case("causal_longer_queries", 8, 2, weights="none", q_len=9, kv_len=4, causal=True)
    for shape in ((3, 5), (2, 3, 5), (1, 2, 3, 5), (2, 1, 3, 5), (2, 2, 3, 5), (2, 1, 1, 5), (1, 1, 3, 5), (1, 3, 5)):
        tag = "x".join(map(str, shape))
        case(f"bias_{tag}", 4, 2, weights="none", bias=shape)
        r = casefile.rng("onnx mask " + tag)
        mask = r.random(shape) < 0.6
        mask[..., 0] = True
        case(f"mask_{tag}", 4, 2, weights="none", mask=mask)
    case("scale", 8, 2, scale=0.25)
    case("scale_larger", 8, 2, weights="none", scale=1.5)
    case("scores_logits", 8, 2, scores_at="logits")
    case("scores_logits_masked_out", 8, 2, weights="none", scores_at="logits", mask=np.tri(3, 5, dtype=bool), scale=0.5)
    case("scores_capped", 8, 2, weights="none", scores_at="capped", bias=(3, 5))
    case("scores_masked_bias", 8, 2, weights="none", scores_at="masked", bias=(2, 1, 3, 5))
    case("scores_masked_causal", 8, 2, scores_at="masked", q_len=5, causal=True)
    hole = np.zeros((3, 5))
    hole[1, 2:4] = -np.inf
    case("bias_minus_inf", 8, 2, weights="none", bias=hole)
    hole = hole.copy()
    hole[2] = -np.inf
    case("bias_minus_inf_empty_row", 8, 2, weights="none", bias=hole)
    blind = np.ones((3, 5), bool)
    blind[0] = False
    case("mask_empty_row", 8, 2, mask=blind, biases="qkvo")
    case("17_by_65", 6, 2, weights="none", batch=(1,), q_len=17, kv_len=65, causal=True)
    case("2_by_257", 6, 2, batch=(1,), q_len=2, kv_len=257, bias=(2, 257))


if __name__ == "__main__":
    main()
