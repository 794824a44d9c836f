"""llama.cpp's server from the package xllamacpp, in a process of its own, since this one has another llama.cpp in it.

As a script (`python decision_server.py MODEL OPTIONS`) it prints its address, then answers each line [call, body] of
standard input with a line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


class DecisionServer:
    """A running server; a context manager that ends it.

    Parameters
    ----------
    model: a GGUF file.
    flash_attention: on or off.
    n_slots: requests that are computed side by side.
    """

    def __init__(self, model: Path | str, *, flash_attention: bool = False, n_slots: int = 1) -> None:
        options = {"flash_attention": flash_attention, "n_slots": n_slots}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(model), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self.address = json.loads(self._process.stdout.readline())

    def __enter__(self) -> DecisionServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def call(self, name: str, body: object) -> dict:
        """What the server's `handle_<name>` answers."""
        self._process.stdin.write(json.dumps([name, body]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def probabilities(self, body: dict) -> dict[str, list[float]]:
        """The probabilities that the server's decision mode answers a request with, for each question by option."""
        answers = self.call("systemone", body)["answers"]
        return {
            key: [answer["noul"], 1 - answer["noul"]]
            if answer["type"] == "noul"
            else list(answer["probabilities"].values())
            for key, answer in answers.items()
        }

    def log_probs(self, tokens: list[int], n_vocab: int, shown: int) -> dict[int, float]:
        """The log-probability of every token after some tokens, at temperature 1. `shown` is a token with a text: it is
        made to come next, since the server tells nothing of a token without one."""
        body = {"prompt": tokens, "n_predict": 1, "n_probs": n_vocab, "temperature": 0, "cache_prompt": False}
        body["logit_bias"] = [[shown, 1000.0]]  # applied after these log-probabilities are taken
        (token,) = self.call("completions", body)["choices"][0]["logprobs"]["content"]
        return {each["id"]: each["logprob"] for each in token["top_logprobs"]}


def _serve(model: str, options: dict) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_parallel = options["n_slots"]
    params.n_ctx = 4096 * params.n_parallel
    # No number depends on it, and threads that wait for each other on a busy machine take long.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # Kernels for repacked weights give a row other digits beside other rows, and a beginning that is not computed again
    # leaves other rows.
    params.no_extra_bufts = True
    params.cache_prompt = False
    params.warmup = False
    attention = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = (
        attention.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if options["flash_attention"]
        else attention.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    server = xllamacpp.Server(params)
    print(json.dumps(server.listening_address), flush=True)
    for line in sys.stdin:
        name, body = json.loads(line)
        print(json.dumps(getattr(server, f"handle_{name}")(body)), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
