"""Times ONNX Runtime, OpenVINO, JAX and numpy on the layers of the benchmark: README.md has the words."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

THREADS = int(os.environ.get("MHA_BENCH_THREADS", "1"))
if THREADS == 1:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


class Case:
    """A layer and its tensors."""

    def __init__(self, case, folder):
        self.__dict__.update(case)
        self.folder = Path(folder)
        read = lambda name, *shape: np.fromfile(self.folder / f"{name}.f32", "<f4").reshape(shape)
        new = self.kv_len - self.past
        self.wq, self.wk = read("wq", self.q_in, self.qk), read("wk", self.k_in, self.qk)
        self.wv, self.wo = read("wv", self.v_in, self.v), read("wo", self.v, self.out)
        # `self.v` is a width: the inputs have names of their own.
        self.q_input = read("q", self.batch, self.q_len, self.q_in)
        self.k_input = read("k", self.batch, new, self.k_in)
        self.v_input = read("v", self.batch, new, self.v_in)
        # A cache is kept as its reader likes it: [batch, heads, features, past] and
        # [batch, heads, past, features], so that a call reads it once and never copies or turns it.
        keys = read("past_k", self.batch, self.past, self.heads, self.qk // self.heads)
        values = read("past_v", self.batch, self.past, self.heads, self.v // self.heads)
        self.past_k = np.ascontiguousarray(keys.transpose(0, 2, 3, 1))
        self.past_v = np.ascontiguousarray(values.transpose(0, 2, 1, 3))
        if self.training:
            self.dy = read("dy", self.batch, self.q_len, self.out)
        self.scale = (self.qk // self.heads) ** -0.5

    def inputs(self):
        """What a call brings, by name."""
        inputs = {"q": self.q_input, "k": self.k_input, "v": self.v_input}
        if self.past:
            inputs |= {"past_k": self.past_k, "past_v": self.past_v}
        return inputs


def onnx_model(case):
    """The layer as a graph of products, a softmax and transpositions."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(value, name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def heads(name, width, perm):
        shape = constant(f"{name}_shape", np.array([0, -1, case.heads, width // case.heads], np.int64))
        split = node("Reshape", [name, shape], f"{name}_split")
        return node("Transpose", [split], f"{name}_heads", perm=perm)

    # The scale goes into the weights of the queries, as a user would who knows.
    q = node("MatMul", ["q", constant("wq", case.wq * np.float32(case.scale))], "pq")
    k = node("MatMul", ["k", constant("wk", case.wk)], "pk")
    v = node("MatMul", ["v", constant("wv", case.wv)], "pv")
    q, k, v = heads(q, case.qk, [0, 2, 1, 3]), heads(k, case.qk, [0, 2, 3, 1]), heads(v, case.v, [0, 2, 1, 3])
    logits = node("MatMul", [q, k], "logits")
    if case.past:
        # The logits are brought together, not the keys: they are few.
        old = node("MatMul", [q, "past_k"], "old_logits")
        logits = node("Concat", [old, logits], "all_logits", axis=-1)
    scores = node("Softmax", [logits], "scores", axis=-1)
    if case.past:
        sizes = constant("sizes", np.array([case.past, case.kv_len - case.past], np.int64))
        nodes.append(helper.make_node("Split", [scores, sizes], ["old_scores", "new_scores"], axis=-1))
        old, new = node("MatMul", ["old_scores", "past_v"], "old_mixed"), node("MatMul", ["new_scores", v], "new_mixed")
        mixed = node("Add", [old, new], "mixed")
    else:
        mixed = node("MatMul", [scores, v], "mixed")
    joined = node("Transpose", [mixed], "joined", perm=[0, 2, 1, 3])
    flat = node("Reshape", [joined, constant("y_shape", np.array([0, 0, case.v], np.int64))], "flat")
    node("MatMul", [flat, constant("wo", case.wo)], "y")
    tensor = lambda name, shape=None: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        nodes,
        "layer",
        [tensor(name, value.shape) for name, value in case.inputs().items()],
        [tensor("y")] + ([tensor("scores")] if case.scores else []),
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def onnx_runtime(case):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = onnx_model(case).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in case.inputs().items()}
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")

    def call():
        session.run_with_iobinding(binding)
        return binding.get_outputs()

    def result():
        return [output.numpy() for output in call()]

    return "ONNX Runtime", ort.__version__, "graph", lambda: session.run_with_iobinding(binding), result


def openvino(case):
    import openvino as ov

    core = ov.Core()
    hints = {"INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    path = case.folder / "model.onnx"
    path.write_bytes(onnx_model(case).SerializeToString())
    request = core.compile_model(core.read_model(path), "CPU", hints).create_infer_request()
    for name, value in case.inputs().items():
        request.set_tensor(name, ov.Tensor(value, shared_memory=True))

    def result():
        request.infer()
        names = ["y"] + (["scores"] if case.scores else [])
        return [np.array(request.get_tensor(name).data) for name in names]

    return "OpenVINO", ov.__version__.split("-")[0], "graph", request.infer, result


def import_jax():
    # XLA has as many threads as there are processors where it starts, and runs a call in the thread that
    # makes it if nothing is asynchronous.
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(processors)[:THREADS])
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_default_matmul_precision", "highest")
    jax.devices("cpu")
    os.sched_setaffinity(0, processors)
    return jax, jnp


def by_jax(case):
    jax, jnp = import_jax()
    # Constants of the program, so that they can be prepared while it is compiled.
    wq, wk, wv, wo = case.wq * np.float32(case.scale), case.wk, case.wv, case.wo
    sizes = case.batch, -1, case.heads

    @jax.jit
    def forward(q, k, v, past_k=None, past_v=None):
        q = (q @ wq).reshape(*sizes, case.qk // case.heads).transpose(0, 2, 1, 3)
        k = (k @ wk).reshape(*sizes, case.qk // case.heads).transpose(0, 2, 3, 1)
        v = (v @ wv).reshape(*sizes, case.v // case.heads).transpose(0, 2, 1, 3)
        logits = jnp.concatenate([q @ past_k, q @ k], -1) if case.past else q @ k
        scores = jax.nn.softmax(logits, axis=-1)
        mixed = scores[..., case.past :] @ v
        if case.past:
            mixed += scores[..., : case.past] @ past_v
        y = mixed.transpose(0, 2, 1, 3).reshape(case.batch, case.q_len, case.v) @ wo
        return (y, scores) if case.scores else (y,)

    inputs = {name: jax.device_put(value) for name, value in case.inputs().items()}

    def call():
        return jax.block_until_ready(forward(**inputs))

    return "JAX", jax.__version__, "jit", call, lambda: [np.asarray(output) for output in call()]


def jax_training(case):
    jax, jnp = import_jax()
    sizes = case.batch, -1, case.heads

    def loss(q, k, v, wq, wk, wv, wo, dy):
        q = (q @ wq).reshape(*sizes, case.qk // case.heads).transpose(0, 2, 1, 3) * np.float32(case.scale)
        k = (k @ wk).reshape(*sizes, case.qk // case.heads).transpose(0, 2, 3, 1)
        v = (v @ wv).reshape(*sizes, case.v // case.heads).transpose(0, 2, 1, 3)
        mixed = jax.nn.softmax(q @ k, axis=-1) @ v
        y = mixed.transpose(0, 2, 1, 3).reshape(case.batch, case.q_len, case.v) @ wo
        return (y * dy).sum(), y

    step = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(7)), has_aux=True))
    names = ["q_input", "k_input", "v_input", "wq", "wk", "wv", "wo", "dy"]
    inputs = [jax.device_put(getattr(case, name)) for name in names]

    def call():
        return jax.block_until_ready(step(*inputs))

    def result():
        (_, y), gradients = call()
        return [np.concatenate([np.asarray(x).reshape(-1) for x in (y, *gradients)])]

    return "JAX", jax.__version__, "jit", call, result


def by_numpy(case):
    wq = case.wq * np.float32(case.scale)
    sizes = case.batch, -1, case.heads

    def call():
        q = (case.q_input @ wq).reshape(*sizes, case.qk // case.heads).transpose(0, 2, 1, 3)
        k, v = case.k_input @ case.wk, case.v_input @ case.wv
        k = k.reshape(*sizes, case.qk // case.heads).transpose(0, 2, 3, 1)
        v = v.reshape(*sizes, case.v // case.heads).transpose(0, 2, 1, 3)
        scores = np.concatenate([q @ case.past_k, q @ k], -1) if case.past else q @ k
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        mixed = scores[..., case.past :] @ v
        if case.past:
            mixed += scores[..., : case.past] @ case.past_v
        mixed = mixed.transpose(0, 2, 1, 3).reshape(case.batch, case.q_len, case.v)
        return [mixed @ case.wo, scores]

    return "numpy", np.__version__, "OpenBLAS", call, call


def load(case):
    contenders, refused = [], []
    makers = [(onnx_runtime, "ONNX Runtime"), (openvino, "OpenVINO"), (by_jax, "JAX"), (by_numpy, "numpy")]
    if case.training:
        makers = [(jax_training, "JAX")]
    for make, library in makers:
        try:
            contenders.append(make(case))
        except Exception as error:  # a library that is not there, or that cannot
            refused.append({"library": library, "variant": "", "why": f"{type(error).__name__}: {error}"[:300]})
    return contenders, refused


def answer(value):
    print(json.dumps(value), flush=True)


def main():
    answer({"environment": "host", "peak": None})
    case, contenders = None, []
    for line in sys.stdin:
        request = json.loads(line)
        do = request["do"]
        if do == "end":
            return
        if do == "load":
            case = Case(request["case"], request["folder"])
            contenders, refused = load(case)
            names = [dict(zip(("library", "version", "variant"), each)) for each in contenders]
            answer({"contenders": names, "refused": refused})
        elif do == "check":
            outputs = contenders[request["contender"]][4]()
            paths = []
            for name, output in zip(("y", "scores"), outputs):
                path = case.folder / f"{name}_{request['contender']}.f32"
                np.ascontiguousarray(output, "<f4").tofile(path)
                paths.append(str(path))
            answer({"y": paths[0], "scores": paths[1] if case.scores else None})
        elif do == "time":
            call = contenders[request["contender"]][3]
            # Others ran since the last sample and have had the caches: as for ours, one call is not timed.
            call()
            start = time.perf_counter()
            for _ in range(request["calls"]):
                call()
            answer({"seconds": time.perf_counter() - start})


main()
