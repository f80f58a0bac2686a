"""The model of README.md in numpy, in float64: does what is written there decode what the package decodes?

    python decode.py FILE     FILE: what export.py wrote

It keeps projected keys and values, one position a step, as a cache of `mha` does.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np


def load(path):
    raw = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + size])
    expected = json.loads(header.pop("__metadata__")["anarcii"])
    tensors = {}
    for name, t in header.items():
        begin, end = (8 + size + x for x in t["data_offsets"])
        tensors[name] = np.frombuffer(raw[begin:end], "<f4").reshape(t["shape"]).astype(np.float64)
    return expected, tensors


class Model:
    def __init__(self, tensors, name, layers, heads):
        self.t = {n.removeprefix(name + "."): x for n, x in tensors.items() if n.startswith(name + ".")}
        self.layers, self.heads = layers, heads

    def linear(self, x, name):
        return x @ self.t[name + ".weight"].T + self.t[name + ".bias"]

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * self.t[name + ".weight"] + self.t[name + ".bias"]

    def project(self, x, name, part):
        """Part 0, 1, 2 of the packed projection: queries, keys, values, as [heads, length, 32]."""
        w, b = (np.split(self.t[f"{name}.multihead_attn.in_proj_{n}"], 3)[part] for n in ("weight", "bias"))
        return (x @ w.T + b).reshape(len(x), self.heads, -1).transpose(1, 0, 2)

    def attend(self, q, k, v, name, allowed):
        logits = np.where(allowed, q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]), -np.inf)
        e = np.exp(logits - logits.max(-1, keepdims=True))
        mixed = (e / e.sum(-1, keepdims=True)) @ v
        return self.linear(mixed.transpose(1, 0, 2).reshape(mixed.shape[1], -1), f"{name}.multihead_attn.out_proj")

    def feed_forward(self, x, name):
        return self.linear(np.maximum(self.linear(x, name + ".fc_1"), 0), name + ".fc_2")

    def embed(self, tokens, first, side):
        table = self.t[side + ".tok_embedding.weight"]
        return table[tokens] * np.sqrt(table.shape[1]) + self.t[side + ".pos_embedding.weight"][first:first + len(tokens)]

    def encode(self, source):
        real, x = source != 0, self.embed(source, 0, "encoder")
        for i in range(self.layers):
            at = f"encoder.layers.{i}."
            q, k, v = (self.project(x, at + "self_attention", part) for part in range(3))
            x = self.norm(x + self.attend(q, k, v, at + "self_attention", real), at + "self_attn_layer_norm")
            x = self.norm(x + self.feed_forward(x, at + "positionwise_feedforward"), at + "ff_layer_norm")
        return x

    def decode(self, source, steps):
        """Greedily; a token and the logit that won it for each step."""
        memory = self.encode(source)
        crossed = [[self.project(memory, f"decoder.layers.{i}.encoder_attention", part) for part in (1, 2)] for i in range(self.layers)]
        cache = [[[], []] for _ in range(self.layers)]
        tokens, logits = [int(source[0])], []
        for step in range(steps):
            x = self.embed(np.array(tokens[-1:]), step, "decoder")
            for i in range(self.layers):
                at = f"decoder.layers.{i}."
                for part in (1, 2):
                    cache[i][part - 1].append(self.project(x, at + "self_attention", part))
                k, v = (np.concatenate(c, 1) for c in cache[i])
                y = self.attend(self.project(x, at + "self_attention", 0), k, v, at + "self_attention", np.array(tokens) != 0)
                x = self.norm(x + y, at + "self_attn_layer_norm")
                y = self.attend(self.project(x, at + "encoder_attention", 0), *crossed[i], at + "encoder_attention", source != 0)
                x = self.norm(x + y, at + "enc_attn_layer_norm")
                x = self.norm(x + self.feed_forward(x, at + "positionwise_feedforward"), at + "ff_layer_norm")
            scores = self.linear(x, "decoder.fc_out")[0]
            tokens.append(int(scores.argmax()))
            logits.append(scores.max())
        return tokens, np.array(logits)


def main(path):
    expected, tensors = load(path)
    words = expected["vocabulary"]["sequence"]
    residues = {s["name"]: s["residues"] for s in expected["sequences"]}
    source = {n: np.array([words.index(w) for w in ("<SOS>", *r, "<EOS>")]) for n, r in residues.items()}
    longest = max(map(len, source.values()))
    wrong = count = 0
    for mode, about in expected["models"].items():
        model = Model(tensors, mode, about["layers"], about["heads"])
        for d in about["decoded"]:
            tokens, logits = model.decode(source[d["name"]], len(d["tokens"]) - 1)
            wrong += tokens != d["tokens"]
            count += 1
            print(f"{mode}, {d['name']}: {len(tokens)} tokens, logits within {np.abs(logits - d['logits']).max():.1e}")
        for name, wanted in zip(about["batch"]["names"], about["batch"]["tokens"]):
            padded = np.pad(source[name], (0, longest - len(source[name])))
            wrong += model.decode(padded, len(wanted) - 1)[0] != wanted
            count += 1
    print(f"{count - wrong} passed, {wrong} failed")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
