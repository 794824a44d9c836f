"""Ask llama.cpp which tensors an architecture wants: a script, run in a process of its own.

    python tiny_arch_probe.py METADATA.gguf...    prints one line of JSON per file: {"name": [ne0, ne1]}, or a
                                                  string, llama.cpp's message, where it refused the file

Each file holds metadata and no tensors. llama.cpp builds the model from that, and reports each tensor that
it creates; names and sizes are all that is taken, so what llama.cpp wrote into its structures otherwise
does not matter. A file that llama.cpp refuses ends the script with its message on stderr; an abort kills it.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator

import llama_cpp


class _TensorHead(ctypes.Structure):
    """The first fields of a ggml tensor of this llama.cpp: type, buffer, ne."""

    _fields_ = (("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4))


class _GgufInitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def probe(path: str) -> dict[str, list[int]] | None:
    base = ctypes.CDLL(str(llama_cpp.llama_cpp._base_path / "libggml-base.so"))
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = [ctypes.c_char_p, _GgufInitParams]
    base.ggml_get_name.restype = ctypes.c_char_p
    base.ggml_get_name.argtypes = [ctypes.c_void_p]
    metadata = base.gguf_init_from_file(path.encode(), _GgufInitParams(True, None))
    if not metadata:
        sys.exit(f"{path}: not a GGUF")
    found: dict[str, list[int]] = {}

    def note(tensor: int, _userdata: int) -> None:
        ne = list(_TensorHead.from_address(tensor).ne)
        while len(ne) > 1 and ne[-1] == 1:
            ne.pop()
        found[base.ggml_get_name(tensor).decode()] = ne

    callback = llama_cpp.llama_model_set_tensor_data_t(note)
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    params.load_mtp = True  # else llama.cpp leaves out blocks behind the trunk, which a file has all the same
    model = llama_cpp.llama_model_init_from_user(metadata, callback, None, params)
    if not model:
        return None
    llama_cpp.llama_model_free(model)
    return found


def main(paths: list[str]) -> Iterator[str]:
    said: list[str] = []

    @llama_cpp.llama_log_callback
    def errors_only(level: int, text: bytes, _userdata: int) -> None:
        if level >= 4:
            said.append(text.decode(errors="replace"))
            sys.stderr.write(said[-1])

    llama_cpp.llama_log_set(errors_only, None)
    llama_cpp.llama_backend_init()
    for path in paths:
        said.clear()
        yield json.dumps(probe(path) or "".join(said))


if __name__ == "__main__":
    for line in main(sys.argv[1:]):
        print(line, flush=True)
