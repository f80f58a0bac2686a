"""Records expected.json: what anarcii's own code decodes. Needs the package with all that it wants, PyTorch too;
export.py and the test do not.

    python record.py [--check FILE]     FILE: what export.py wrote; is it what PyTorch loads?

The package is used as it is: its public `Anarcii`, whose model runner translates the tokens that it decoded
by indexing its vocabulary. That index is what is recorded, with the logits that the decoder gave. The logits that
the package's authors published (published.json) are held against them.
"""

import hashlib
import json
import re
import struct
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from anarcii import Anarcii
from anarcii.inference import model_runner
from anarcii.input_data_processing.tokeniser import NumberingTokeniser

EXPECTED = Path(__file__).resolve().parent / "expected.json"
PUBLISHED = EXPECTED.with_name("published.json")
PACKAGE = Path(model_runner.__file__).resolve().parents[2]
FILES = {"speed": "anarcii/models/antibody/antibody_4_1_128_512.pt", "accuracy": "anarcii/models/antibody/antibody_4_2_128_512.pt"}
NOTEBOOK = "examples.ipynb of ANARCII's repository"

SEQUENCES = [
    ("kappa", NOTEBOOK, "EIVMTQSPDTLSVSPGERATLSCRASESISSNLAWYQQKPGQVPRLLIYGASTRATGVPARFTGSGSGTEFTLTISSLQSEDFAVYYCQQYNNRLPYTFGQGTKLEIKRTVAAP"),
    ("heavy", NOTEBOOK, "EVQLLESGGGLVQPGGSLRLSCAASGFTFNHYAMTWVRQAPGKGLEWVASSSGSGRSTYYTDSVKGRFSVSRDNSKNTLYLQMNSLRAEDTAVYYCAKSSNYYGSGSYSPDDYYHMDVWGQGTTVTVSGASTKGP"),
    ("4p9h_H", NOTEBOOK, "QIHLVQSGTEVKKPGSSVTVSCKAYGVNTFGLYAVNWVRQAPGQSLEYIGQIWRWKSSASHHFRGRVLISAVDLTGSSPPISSLEIKNLTSDDTAVYFCTTTSTYDKWSGLHHDGVMAFSSWGQGTLISVSAAS"),
    ("lambda between linkers", NOTEBOOK, "GGGSGGGGIQPGLTQPPSVSKGLRQTATLTCTGNSNNVGNQGAAWLQQHQGHPPKLLSYRNNDRPSGISERFSASRSGNTASLTITGLQPEDEADYYCSTWDSSLSAVVFGGGTKLTVLGQPKAAPSAAAEQKLISEEDLNGAAHHHHHH"),
    ("heavy without its start", NOTEBOOK, "SVKVSCTSSEVTFSSFAISWVRQAPGQGLEWLGGISPMFGTPNYAQKFQGRVTITADQSTRTAYMDLRSLRSEDTAVYYCARSPSYICSGGTCVFDHWGQGTLVTVSSGGGGSG"),
    ("trastuzumab heavy", "public: the antibody's variable domain",
     "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDYWGQGTLVTVSS"),
    ("trastuzumab light", "public: the antibody's variable domain",
     "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATYYCQQHYTTPPTFGQGTKVEIK"),
]


class Watched:
    """A vocabulary that remembers what it was asked for."""

    def __init__(self, words):
        self.words, self.asked = words, None

    def __getitem__(self, index):
        self.asked = index.tolist()
        return self.words[index]


def decode(mode, sequences):
    """What the package makes of sequences in one batch: its results, and for each source tokens, decoded tokens,
    and per step the largest logit and its lead over the next."""
    steps = []

    class Runner(model_runner.ModelRunner):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            for tokeniser in (self.number_tokeniser, self.sequence_tokeniser):
                tokeniser.tokens = Watched(tokeniser.tokens)
            seen["runner"] = self
            self.model.decoder.register_forward_hook(lambda _, __, output: steps.append(output[0][:, -1].topk(2).values))

    import anarcii.pipeline

    seen = {}
    original, anarcii.pipeline.ModelRunner = anarcii.pipeline.ModelRunner, Runner
    try:
        results = Anarcii(mode=mode, batch_size=len(sequences), cpu=True, ncpu=1).number(sequences)
    finally:
        anarcii.pipeline.ModelRunner = original
    source = seen["runner"].sequence_tokeniser.tokens.asked
    tokens = seen["runner"].number_tokeniser.tokens.asked
    # The window finder decodes one step of long sequences with a model of its own; none is that long.
    assert len(steps) == len(tokens[0]) - 1
    best = torch.stack(steps, 1)
    return results, source, tokens, best[..., 0].tolist(), (best[..., 0] - best[..., 1]).tolist()


def until_end(tokens, end):
    return tokens.index(end) + 1 if end in tokens else len(tokens)


def record():
    words = {"sequence": NumberingTokeniser("protein_antibody").vocab, "number": [str(w) for w in NumberingTokeniser("number_antibody").vocab]}
    end = words["number"].index("<EOS>")
    models = {}
    for mode, file in FILES.items():
        decoded = []
        for name, _, residues in SEQUENCES:
            results, (source,), (tokens,), (logits,), (leads,) = decode(mode, {name: residues})
            assert source == [words["sequence"].index(w) for w in ("<SOS>", *residues, "<EOS>")]
            count = until_end(tokens, end)
            # What comes after the end has no meaning and is not compared.
            decoded.append({"name": name, "tokens": tokens[:count], "logits": [round(x, 4) for x in logits[:count - 1]],
                            "least_lead": round(min(leads[:count - 1]), 4), "chain": results[name]["chain_type"], "score": round(results[name]["score"], 4)})
        # All of them in one batch, padded to the longest, shortest first as the package sorts them.
        ordered = sorted(SEQUENCES, key=lambda s: len(s[2]))
        _, source, tokens, _, leads = decode(mode, {name: residues for name, _, residues in ordered})
        counts = [until_end(row, end) for row in tokens]
        batch = {"names": [s[0] for s in ordered], "tokens": [row[:n] for row, n in zip(tokens, counts)],
                 "least_lead": round(min(x for row, n in zip(leads, counts) for x in row[:n - 1]), 4)}
        models[mode] = {"file": file, "sha256": hashlib.sha256((PACKAGE / file).read_bytes()).hexdigest(),
                        "layers": 1 if mode == "speed" else 2, "heads": 4, "decoded": decoded, "batch": batch}
        print(mode, [(d["name"], d["chain"], d["score"], d["least_lead"], len(d["tokens"])) for d in decoded], batch["least_lead"])
    published = json.loads(PUBLISHED.read_text())
    for name, logits in published["logits"].items():
        (ours,) = (d["logits"] for d in models[published["mode"]]["decoded"] if d["name"] == name)
        np.testing.assert_allclose(ours[published["first"]:], logits, atol=published["tolerance"], rtol=0)
    lines = {"package": f"anarcii {version('anarcii')}", "recorded_with": f"PyTorch {torch.__version__.split('+')[0]}", "vocabulary": words,
             "sequences": [{"name": n, "source": s, "residues": r} for n, s, r in SEQUENCES], "models": models, "published": published}
    text = json.dumps(lines, indent=1)
    # A list of plain values on one line.
    EXPECTED.write_text(re.sub(r"\[[^][{}]*\]", lambda m: re.sub(r"\s*\n\s*", " ", m[0]).replace("[ ", "[").replace(" ]", "]"), text) + "\n")


def check(path):
    """Every tensor of the exported file against torch.load, bit for bit."""
    raw = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + size])
    del header["__metadata__"]
    for mode, file in FILES.items():
        for name, tensor in torch.load(PACKAGE / file, map_location="cpu", weights_only=True).items():
            entry = header.pop(f"{mode}.{name}")
            begin, finish = (8 + size + x for x in entry["data_offsets"])
            ours = np.frombuffer(raw[begin:finish], "<u4").reshape(entry["shape"])
            assert (tensor.contiguous().numpy().view(np.uint32) == ours).all(), name
    assert not header, header
    print("equal to what PyTorch loads, bit for bit")


if __name__ == "__main__":
    check(sys.argv[2]) if "--check" in sys.argv else record()
