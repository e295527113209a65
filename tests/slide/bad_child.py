"""A child that does to itself what a slide's name says."""

import os
import sys
import time

from lamella.children import serve


def answer(path: str, **_: object) -> str:
    name = path
    if "abort" in name:
        os.abort()
    if "exit" in name:
        os._exit(3)
    if "killed" in name:
        os.kill(os.getpid(), 9)
    if "endless" in name:
        time.sleep(600)
    if "memory" in name:
        try:
            bytearray(5 << 30)
        except MemoryError:
            return "MemoryError"
    if "talks" in name:
        print("a line that is no answer")  # noqa: T201
        sys.stdout.flush()
    return ""


if __name__ == "__main__":
    serve(answer)
