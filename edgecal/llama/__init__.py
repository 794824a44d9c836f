"""llama.cpp and the native hook: loads models, tokenizes prompts, and captures a model's output after each prompt.

Modules, lowest first: `library` and `hook` (the two native libraries), `machine`, `dequantize`, `settings`,
`microbatch`; the plan of a capture, which needs no llama.cpp (`decode_rows`, `steps`, `prefix_tree`, `packing`);
`model`, `control_tokens`, `tokenizer`; `context`, `step_runner`, `streams`; and what runs models: `capture`,
`generate`, `steered`. Importing this package loads none of them.
"""
