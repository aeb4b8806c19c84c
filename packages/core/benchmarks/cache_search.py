"""The search of (alpha, beta) in one pass over the keys, against evaluating every pair separately.

python packages/core/benchmarks/cache_search.py
python packages/core/benchmarks/cache_search.py --queries 256 --classes 100 --pairs 4000   # every pair, in minutes

The naive search computes affinities, their exponential and the product with one-hot labels for each pair, as the
code of Tip-Adapter does. Evaluating all its pairs would take hours, so that a few are timed and scaled up: some spread
over the grid, and the best ones of the one pass, among which the best pair must be. What each classifies rightly is
compared with what the one pass counted for it.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch.nn import functional

from weft.core.few_shot import TipAdapter, TipAdapterConfig
from weft.core.few_shot.grid import tally


def main() -> None:
    """Time both in CPU seconds, which other work on the machine does not change much, and print a line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument(
        "--pairs", type=int, default=6, help="pairs spread over the grid, evaluated separately"
    )
    parser.add_argument(
        "--best", type=int, default=4, help="best pairs of the one pass, evaluated separately too"
    )
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(options.classes, options.width, generator=generator)

    def draw(each: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(options.classes).repeat_interleave(each)
        noisy = means[labels] + noise * torch.randn(len(labels), options.width, generator=generator)
        return functional.normalize(noisy, dim=-1), labels

    weights = functional.normalize(means + 6 * torch.randn(means.shape, generator=generator), dim=-1)
    keys, labels = draw(options.shots, 3.0)
    queries, truth = draw(-(-options.queries // options.classes), 3.0)
    chosen = torch.randperm(len(queries), generator=generator)[: options.queries]
    queries, truth = queries[chosen], truth[chosen]
    head = TipAdapter(weights, TipAdapterConfig()).fit(keys, labels)
    betas, alphas = head.config.betas(), head.config.alphas()

    started = time.process_time()
    grid = head.grid(queries, head.config.axes())
    right, _ = tally(head.zero_shot(queries), truth, grid, with_losses=False)
    ours = time.process_time() - started

    one_hot = functional.one_hot(labels, options.classes).float()
    last = len(betas) * len(alphas) - 1
    pairs = [place * last // max(1, options.pairs - 1) for place in range(options.pairs)]
    ranked = right.flatten().argsort(descending=True, stable=True).tolist()
    pairs += ranked[: options.best]
    started = time.process_time()
    found = []
    for pair in pairs:
        beta, alpha = betas[pair // len(alphas)], alphas[pair % len(alphas)]
        affinity = queries @ keys.T
        cache = ((-1) * (beta - beta * affinity)).exp() @ one_hot
        logits = 100.0 * queries @ weights.T + alpha * cache
        found.append(int((logits.argmax(1) == truth).sum()))
    each = (time.process_time() - started) / len(pairs)
    naive = each * len(betas) * len(alphas)
    ours_at = [int(right.flatten()[pair]) for pair in pairs]
    spread, first = found[: options.pairs], found[options.pairs] if options.best else None
    differ = sum(one != other for one, other in zip(ours_at, found, strict=True))
    row = {
        "grid": [len(betas), len(alphas)],
        "queries": len(queries),
        "keys": len(keys),
        "classes": options.classes,
        "width": options.width,
        "threads": torch.get_num_threads(),
        "one_pass_seconds": round(ours, 2),
        "seconds_of_a_pair": round(each, 3),
        "all_pairs_seconds": round(naive, 1),
        "times_faster": round(naive / ours, 1),
        "pairs_evaluated_alone": len(pairs),
        "of_which_count_otherwise": differ,
        "right_at_best": {"one_pass": max(ours_at), "alone": first, "best_alone": max(found)},
    }
    if len(spread) == len(ranked):
        row["same_argmax"] = spread.index(max(spread)) == ranked[0]
    print(json.dumps(row))


if __name__ == "__main__":
    main()
