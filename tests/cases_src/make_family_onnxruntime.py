"""Cases of the attention family from ONNX Runtime's GroupQueryAttention on the CPU, which decoders exported for
it use: grouped heads over a cache, causal, with rotary positions from a table, a window, softcap and sinks. It
computes in f32.
"""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import casefile
from family import FOLDER as ROOT
from family import build

FOLDER = ROOT / "onnxruntime"
SOURCE = f"ONNX Runtime {onnxruntime.__version__} com.microsoft.GroupQueryAttention on the CPU, f32"


def case(name, d, heads, kv_heads, *, batch=2, past=0, new=5, window=None, cap=None, rope=None, sinks=None, scale=None, scores=None):
    """window counts the keys before the query; scores is "masked" or "softmax"."""
    keys = {"causal": True}
    if window is not None:
        keys["window"] = [window, -1]
    if cap:
        keys["softcap"] = cap
    if scale:
        keys["scale"] = scale
    if rope is not None:
        keys["rope"] = {**rope, "q_offset": past, "k_offset": past}
    if scores:
        keys["scores_at"] = scores
    meta, t = build("onnxruntime/" + name, d, heads, kv_heads=kv_heads, batch=(batch,), past=past, q_len=new, kv_len=new, sinks=sinks, **keys)
    total_len = past + new
    feeds = {"query": t["q"], "key": t["k"], "value": t["v"],
             "past_key": t.get("past_k", np.zeros((batch, kv_heads, 0, d), np.float32)),
             "past_value": t.get("past_v", np.zeros((batch, kv_heads, 0, d), np.float32)),
             "seqlens_k": np.full(batch, total_len - 1, np.int32), "total_sequence_length": np.array([total_len], np.int32)}
    names = list(feeds)
    attributes = {"num_heads": heads, "kv_num_heads": kv_heads}
    if rope is not None:
        angle = np.arange(64)[:, None] * rope.get("base", 10000) ** (-np.arange(0, d, 2) / d)
        feeds["cos_cache"], feeds["sin_cache"] = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        names += ["cos_cache", "sin_cache"]
        attributes |= {"do_rotary": 1, "rotary_interleaved": int(rope.get("interleaved", False))}
    if sinks:
        feeds["head_sink"] = t["sinks"]
        names += [""] * (11 - len(names)) + ["head_sink"]
    if window is not None:
        attributes["local_window_size"] = window + 1
    if cap:
        attributes["softcap"] = cap
    if scale:
        attributes["scale"] = scale
    outputs = ["output", "present_key", "present_value"]
    if scores:
        attributes["qk_output"] = {"masked": 1, "softmax": 2}[scores]
        outputs.append("output_qk")
    node = helper.make_node("GroupQueryAttention", names, outputs, domain="com.microsoft", **attributes)
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int32): TensorProto.INT32}
    graph = helper.make_graph([node], "case", [helper.make_tensor_value_info(n, kinds[x.dtype], x.shape) for n, x in feeds.items()],
                              [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, present_k, present_v, *qk = session.run(None, feeds)
    meta["source"] = SOURCE
    t |= {"y": y, "present_k": present_k, "present_v": present_v}
    if scores:
        t["scores"] = qk[0]
    if "past_k" not in t:
        del t["present_k"], t["present_v"]
    casefile.write(FOLDER / f"{name}.safetensors", meta, t)


def main():
    for old in FOLDER.glob("*.safetensors"):
        old.unlink()
    case("prompt", 8, 4, 2)
    case("decode", 8, 4, 2, past=6, new=1)
    case("decode_multi_query", 8, 6, 1, past=9, new=1)
    case("continued", 8, 4, 2, batch=1, past=6, new=3)
    case("rope", 16, 4, 2, rope={})
    case("rope_decode", 16, 4, 2, past=7, new=1, rope={})
    case("rope_interleaved_decode", 16, 4, 2, past=7, new=1, rope={"interleaved": True, "base": 500000})
    case("window", 8, 4, 2, new=9, window=3)
    case("window_decode", 8, 4, 2, past=12, new=1, window=4)
    case("softcap", 8, 4, 2, cap=2.0)
    case("softcap_decode_scale", 8, 4, 2, past=5, new=1, cap=10.0, scale=1.5)
    case("sinks", 8, 4, 2, sinks=True)
    case("sinks_decode_window_rope", 16, 8, 2, past=11, new=1, sinks=True, window=5, rope={"base": 150000})
    case("everything_continued", 16, 6, 3, batch=1, past=6, new=4, sinks=True, window=3, cap=3.0, rope={"interleaved": True})
    case("scores_softmax", 8, 4, 2, past=3, new=1, scores="softmax")


if __name__ == "__main__":
    main()
