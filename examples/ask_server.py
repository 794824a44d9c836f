"""Gets calibrated confidence from an OpenAI-compatible server with the openai client.

Bake the temperature into the weights, and serve that file; any server will do, here llama-cpp-python's:

    edgecal bake chat.calibrated.gguf --output chat.baked.gguf
    python -m llama_cpp.server --model chat.baked.gguf --n_ctx 1024 --port 8000
    python ask_server.py http://127.0.0.1:8000/v1 "Which planet is largest?" Mars Jupiter

Servers report log-probabilities of the file's own logits, whatever temperature they sample with. In a baked file these
logits are calibrated; in a file that only names its temperature they are not.
"""

import math
import sys

from openai import OpenAI

import edgecal


def main(base_url, question, *choices):
    asked = edgecal.Question(question, choices)
    prompt = edgecal.PromptTemplate().render(asked).text  # as in the fit
    client = OpenAI(base_url=base_url, api_key="none")
    response = client.completions.create(
        model="served", prompt=prompt, max_tokens=1, temperature=0, logprobs=20
    )
    logprobs = response.choices[0].logprobs.top_logprobs[0]
    # A letter is one token with or without a leading space, depending on the tokenizer, but alike for all letters.
    for space in (" ", ""):
        if all(space + label in logprobs for label in asked.labels):
            powers = [math.exp(logprobs[space + label]) for label in asked.labels]
            break
    else:
        sys.exit(
            f"not all letters are among the likeliest tokens, {sorted(logprobs, key=logprobs.get)[::-1]}"
        )
    for label, choice, power in zip(asked.labels, choices, powers, strict=True):
        print(f"{label} {power / sum(powers):.4f} {choice}")


if __name__ == "__main__":
    main(*sys.argv[1:])
