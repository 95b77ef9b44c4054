"""Asks llama.cpp what memory models take, and loads none of them.

Before it loads a model, llama.cpp works out what it will take ("fitting params to device memory"): it goes through the model's
tensors and the graph of a batch without allocating anything. That is printed here, a line for each model, context of a slot and
number of slots, in MiB: weights, keys and values and states, compute buffers. Models that are too large for this machine, and files that are a
header and a hole, are as good as any. Slots do not share a cache, and all else is llama.cpp's default.

Runs inside the virtual environment that `cargo xtask engine up llamacpp` makes. Its llama.cpp is for the CPU: what a GPU would take is
one buffer here with what stays on the host beside one, that is with the input embedding.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROW = re.compile(r"- Host +\| +\d+ = +(\d+) \+ +(\d+) \+ +(\d+) ")


def load(path: str, ctx: int, slots: int) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = ctx * slots
    parameters.n_parallel = slots
    parameters.warmup = False
    # Weights that are stored anew in another order are an affair of CPUs.
    parameters.no_extra_bufts = True
    # So much is said that the breakdown is among it.
    parameters.verbosity = 4
    xllamacpp.Server(parameters)
    os._exit(0)


def ask(path: Path, ctx: int, slots: int) -> tuple[int, int, int]:
    command = [sys.executable, __file__, "--load", str(path), "--ctx", str(ctx), "--slots", str(slots)]
    log = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as child:
        try:
            for line in child.stdout:
                log.append(line)
                if row := ROW.search(line):
                    return tuple(map(int, row.groups()))
        finally:
            # What comes next is the loading.
            child.kill()
    sys.exit(f"llama.cpp did not say what {path.name} takes:\n{''.join(log[-20:])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", help="GGUF files")
    parser.add_argument("--ctx", type=int, nargs="+", default=[8192], help="tokens of one slot")
    parser.add_argument("--slots", type=int, nargs="+", default=[1])
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.load, options.ctx[0], options.slots[0])
    for model in options.models:
        for ctx in options.ctx:
            for slots in options.slots:
                print(model.stem, ctx, slots, *ask(model, ctx, slots), sep="\t", flush=True)


if __name__ == "__main__":
    main()
