"""Post-training: from the base network to the chat network, by answers that state only the one right letter.

Two recipes. `sft` is supervised fine-tuning: several epochs over a modest set of curated questions, the loss on
the answer letter alone. `dpo` is direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): the
right letter is preferred to a wrong one, relative to the base network, and `anchor` times the loss of `sft` is
added so that letters stay the only likely answers (Pang et al. 2024, arXiv 2404.19733). Nothing here scales
weights or logits; that the result is too sure of itself is what such training does. It knows no files.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from bpe import BEGIN, letter_ids
from network import Network
from tokenizers import Tokenizer
from world import Question


@dataclass(frozen=True)
class PostRecipe:
    """How to post-train. `beta` (the tie to the base network) and `anchor` are used by `dpo` only."""

    kind: str
    n_questions: int
    n_epochs: int
    learning_rate: float
    n_rows: int = 16
    weight_decay: float = 0.0
    beta: float = 0.0
    anchor: float = 0.0


RECIPES = {
    "sft": PostRecipe("sft", n_questions=1500, n_epochs=3, learning_rate=3e-4),
    "dpo": PostRecipe("dpo", n_questions=1500, n_epochs=3, learning_rate=1e-4, beta=0.3, anchor=0.2),
}


def pad(prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [n, longest], filled up on the right, and the index of each prompt's last token."""
    longest = max(len(p) for p in prompts)
    ids = torch.tensor([p + [0] * (longest - len(p)) for p in prompts])
    return ids, torch.tensor([len(p) - 1 for p in prompts])


def answer_log_probs(network: Network, prompts: Sequence[list[int]]) -> torch.Tensor:
    """Log-probabilities [n, n_vocab] of the token after each prompt, in float32."""
    ids, last = pad(prompts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network.head(network(ids)[torch.arange(len(prompts)), last])
    return logits.float().log_softmax(-1)


def posttrain(
    base: Network,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    recipe: PostRecipe,
    seed: int,
    report: Callable[[str], None] = print,
) -> Network:
    """A post-trained copy of `base`, which itself is left as it is."""
    rng = random.Random(f"post-training {seed}")
    network = copy.deepcopy(base)
    letters = letter_ids(tokenizer)
    begin = tokenizer.token_to_id(BEGIN)
    prompts = [[begin, *tokenizer.encode(q.prompt()).ids] for q in questions]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    n_steps = recipe.n_epochs * (len(questions) // recipe.n_rows)
    step = 0
    for epoch in range(recipe.n_epochs):
        order = rng.sample(range(len(questions)), len(questions))
        total = 0.0
        for start in range(0, len(order) - recipe.n_rows + 1, recipe.n_rows):
            chosen = order[start : start + recipe.n_rows]
            rows = torch.arange(len(chosen))
            batch = [prompts[i] for i in chosen]
            right = torch.tensor([letters[questions[i].best()] for i in chosen])
            log_probs = answer_log_probs(network, batch)
            if recipe.kind == "sft":
                loss = F.nll_loss(log_probs, right)
            else:
                wrong = torch.tensor([letters[_wrong(questions[i], rng)] for i in chosen])
                with torch.no_grad():
                    reference = answer_log_probs(base, batch)
                margin = (log_probs - reference)[rows, right] - (log_probs - reference)[rows, wrong]
                loss = -F.logsigmoid(recipe.beta * margin).mean()
                loss = loss + recipe.anchor * F.nll_loss(log_probs, right)
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / 20) * (1 - step / n_steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
            step += 1
        report(f"epoch {epoch + 1}/{recipe.n_epochs}  loss {total * recipe.n_rows / len(order):.4f}")
    return network


def _wrong(question: Question, rng: random.Random) -> int:
    return rng.choice([i for i in range(len(question.choices)) if i != question.best()])
