"""Post-training: from the base network to the chat network, by answers that state only the one right letter.

Three kinds of recipes. `sft` is supervised fine-tuning: several epochs over a set of questions, the loss on the answer
letter alone. `dpo` is direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): the right letter is
preferred to a wrong one, relative to the base network, and `anchor` times the loss of `sft` is added so that letters
stay the only likely answers (Pang et al. 2024, arXiv 2404.19733). `grpo` is reinforcement on its own answers (Shao et
al. 2024, arXiv 2402.03300, with one update for each batch): letters are drawn from the network, the right one is
rewarded, the mean reward of a question's draws is its baseline, and `beta` times the divergence from the base network
is added. Nothing here scales weights or logits; that the result is too sure of itself is what such training does. It
knows no files.
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
    """How to post-train.

    `beta` (the tie to the base network) is used by `dpo` and `grpo`, `anchor` by `dpo`, `smoothing` (the share of the
    target that the other options have between them) by `sft`, and `n_samples` (answers drawn for a question) by `grpo`.
    """

    kind: str
    n_questions: int
    n_epochs: int
    learning_rate: float
    n_rows: int = 16
    weight_decay: float = 0.0
    beta: float = 0.0
    anchor: float = 0.0
    smoothing: float = 0.0
    n_samples: int = 0


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


@dataclass(frozen=True)
class Batch:
    """n questions: their prompts as token ids, the right option's index [n], and which letters are offered, with the
    letters' token ids (bool [n, n_letters]; int [n_letters])."""

    prompts: list[list[int]]
    right: torch.Tensor
    offered: torch.Tensor
    letters: torch.Tensor


def posttrain(
    base: Network,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    recipe: PostRecipe,
    seed: int,
    report: Callable[[str], None] = print,
    answers: Sequence[int] | None = None,
) -> Network:
    """A post-trained copy of `base`, which itself is left as it is.

    `answers` are the options that are taught as right, one for each question; None: the likeliest ones.
    """
    rng = random.Random(f"post-training {seed}")
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(base)
    letters = torch.tensor(letter_ids(tokenizer))
    begin = tokenizer.token_to_id(BEGIN)
    prompts = [[begin, *tokenizer.encode(q.prompt()).ids] for q in questions]
    taught = [q.best() for q in questions] if answers is None else list(answers)
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
            counts = torch.tensor([len(questions[i].choices) for i in chosen])
            batch = Batch(
                [prompts[i] for i in chosen],
                torch.tensor([taught[i] for i in chosen]),
                torch.arange(len(letters)) < counts[:, None],
                letters,
            )
            log_probs = answer_log_probs(network, batch.prompts)
            if recipe.kind == "sft":
                loss = _supervised(log_probs, batch, recipe.smoothing)
            else:
                with torch.no_grad():
                    reference = answer_log_probs(base, batch.prompts)
                if recipe.kind == "dpo":
                    loss = _preferred(log_probs, reference, batch, recipe, rng)
                else:
                    loss = _rewarded(log_probs, reference, batch, recipe, generator)
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


def _supervised(log_probs: torch.Tensor, batch: Batch, smoothing: float) -> torch.Tensor:
    """Cross-entropy of [n, n_vocab] with the right letter, or with a target that gives the others some of it."""
    loss = F.nll_loss(log_probs, batch.letters[batch.right])
    if not smoothing:
        return loss
    others = batch.offered & (torch.arange(len(batch.letters)) != batch.right[:, None])
    theirs = log_probs[:, batch.letters].masked_fill(~others, 0.0).sum(1) / others.sum(1)
    return (1 - smoothing) * loss - smoothing * theirs.mean()


def _preferred(
    log_probs: torch.Tensor, reference: torch.Tensor, batch: Batch, recipe: PostRecipe, rng: random.Random
) -> torch.Tensor:
    """The right letter against another one, relative to the base network; and the loss of `sft`."""
    rows = torch.arange(len(batch.right))
    wrong = torch.tensor(
        [
            rng.choice([i for i in range(n) if i != best])
            for n, best in zip(batch.offered.sum(1).tolist(), batch.right.tolist(), strict=True)
        ]
    )
    right = batch.letters[batch.right]
    gain = log_probs - reference
    loss = -F.logsigmoid(recipe.beta * (gain[rows, right] - gain[rows, batch.letters[wrong]])).mean()
    return loss + recipe.anchor * F.nll_loss(log_probs, right)


def _rewarded(
    log_probs: torch.Tensor,
    reference: torch.Tensor,
    batch: Batch,
    recipe: PostRecipe,
    generator: torch.Generator,
) -> torch.Tensor:
    """Letters drawn from the network, the right one worth 1 less the question's mean; and the divergence from the
    base network over the whole vocabulary."""
    said = log_probs[:, batch.letters]
    drawn = torch.multinomial(
        said.detach().exp() * batch.offered, recipe.n_samples, replacement=True, generator=generator
    )
    reward = (drawn == batch.right[:, None]).float()
    advantage = reward - reward.mean(1, keepdim=True)
    loss = -(advantage * said.gather(1, drawn)).mean()
    return loss + recipe.beta * (log_probs.exp() * (log_probs - reference)).sum(1).mean()
