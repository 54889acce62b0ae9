"""Several servers behind a balancer, simulated: who gets the next request, and who waits for whom.

Each server works on one request at a time, in the order in which they come. The balancer sends a
request on at once, by one of four rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from genlib.serve.cache import ExactCache

Rule = Literal["random", "round robin", "better of two", "least work"]
RULES: tuple[Rule, ...] = get_args(Rule)


def latencies(
    arrivals: np.ndarray, service: np.ndarray, servers: int, rule: Rule, seed: int = 0
) -> np.ndarray:
    """Returns how long each request takes, from its arrival to its answer.

    Args:
        arrivals: times, rising, s, `(n,)`.
        service: how long a server works on each request, s, `(n,)`.
        servers: how many.
        rule: who gets a request: any server; one after the other; of any two the one with less
            work before it; or the one with least of all, which is as if all had one queue.
        seed: of the balancer's draws.

    Raises:
        ValueError: if there is no server, no such rule, or the arrays differ in length.

    Reference: Mitzenmacher, 2001, The power of two choices in randomized load balancing.

    Example:
        >>> latencies(np.zeros(3), np.ones(3), 2, "least work")
        array([1., 1., 2.])
    """
    if servers < 1 or rule not in RULES or len(arrivals) != len(service):
        raise ValueError(
            f"{len(arrivals)} arrivals, {len(service)} times of service, servers = {servers}, rule "
            f"= {rule!r}; give as many of both, at least 1 server, and one of {RULES}."
        )
    rng = np.random.default_rng(seed)
    pairs = rng.integers(servers, size=(len(arrivals), 2)).tolist()
    free = [0.0] * servers  # when each of them has done what it has
    found = np.empty(len(arrivals))
    for i, (now, takes) in enumerate(zip(arrivals.tolist(), service.tolist(), strict=True)):
        if rule == "random":
            chosen = pairs[i][0]
        elif rule == "round robin":
            chosen = i % servers
        else:
            among = pairs[i] if rule == "better of two" else range(servers)
            chosen = min(among, key=free.__getitem__)
        free[chosen] = max(free[chosen], now) + takes
        found[i] = free[chosen] - now
    return found


def hit_rate(prompts: Sequence[str], servers: int, entries: int, rule: str, seed: int = 0) -> float:
    """Returns the share of requests that a cache answers, of those that servers keep.

    Args:
        prompts: the stream of requests.
        servers: how many.
        entries: images that the memory of one server keeps; what was used last stays.
        rule: `"own"`: each server keeps its own, and gets any request; `"by prompt"`: the same, but
            a prompt always goes to the same server; `"shared"`: all keep one cache together, of the
            memory of all.
        seed: of the choice of servers.

    Raises:
        ValueError: if there is no such rule.
    """
    if rule not in ("own", "by prompt", "shared"):
        raise ValueError(f"rule = {rule!r}; choose 'own', 'by prompt' or 'shared'.")
    rng = np.random.default_rng(seed)
    alike = {prompt: int(rng.integers(servers)) for prompt in dict.fromkeys(prompts)}
    anyone = rng.integers(servers, size=len(prompts))
    size = entries * servers if rule == "shared" else entries
    caches = [ExactCache[str, bool](entries=size) for _ in range(servers)]
    hits = 0
    for prompt, server in zip(prompts, anyone, strict=True):
        where = {"own": int(server), "by prompt": alike[prompt], "shared": 0}[rule]
        if caches[where].find(prompt) is None:
            caches[where].put(prompt, True)
        else:
            hits += 1
    return hits / len(prompts)
