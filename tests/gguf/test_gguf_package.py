"""Reading a file's header and its calibration loads nothing that writes."""

import json
import subprocess
import sys


def test_showing_a_file_loads_little():
    code = (
        "import sys, json; from edgecal.gguf.header import read_header; "
        "from edgecal.stamping.record import read_calibration; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    loaded = set(json.loads(out))
    assert "edgecal.gguf.header" in loaded
    writers = {
        f"edgecal.gguf.{name}"
        for name in ("rewrite", "inplace.engine", "copying", "output", "placing", "hashes")
    }
    assert not loaded & (writers | {"numpy", "hashlib", "shutil", "ctypes", "tempfile"})
