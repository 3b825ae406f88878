"""Counts words: a program as an agent. JSON on stdin, a JSON object on stdout, logs on stderr."""

import json
import os
import sys


def main() -> None:
    inputs = json.load(sys.stdin)
    # The same at every repetition of this step: what it calls can tell that it is one.
    print("step", os.environ["HIVE_IDEMPOTENCY_KEY"], file=sys.stderr)
    text = inputs["text"] or ""
    json.dump({"words": len(text.split()), "long": len(text) > 100}, sys.stdout)


if __name__ == "__main__":
    main()
