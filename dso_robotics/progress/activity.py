"""What JAX does at this moment in a thread: JAX says how long tracing and compiling took only when they are done."""

import sys

# Files of JAX whose functions are on the stack while it does that, the innermost counts.
_FILES = {
    "jax/_src/compiler.py": "compiling",
    "jax/_src/interpreters/mlir.py": "lowering",
    "jax/_src/interpreters/partial_eval.py": "tracing",
}


def activity(thread: int) -> str:
    """ "tracing", "lowering" or "compiling" if the thread with this number does that, else an empty text."""
    if "jax" not in sys.modules:
        return ""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        path = frame.f_code.co_filename.replace("\\", "/")
        for file, word in _FILES.items():
            if path.endswith(file):
                return word
        frame = frame.f_back
    return ""
