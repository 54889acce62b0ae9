"""Decoding: ways to draw a sentence of tokens other than one forward for each token.

*Speculative* decoding lets a small model, the draft, propose a few tokens; the large model, the
target, looks at all of them in one forward and keeps those that it could have written itself. What
is written has exactly the target's distribution. *Parallel* decoding draws many tokens in one
forward as if they were independent, and fixes those first that it is surest of: another
distribution, which comes near with many passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from genlib import backend, ranges
from genlib.models import sampling
from genlib.models.image_gpt import LENGTH, ImageGPT
from genlib.models.letters import LETTERS, unspell
from genlib.models.sampling import check_text, guided
from genlib.models.transformer import empty_cache


@dataclass(frozen=True)
class Speculation:
    """What speculative decoding wrote, and how well the draft guessed.

    Attributes:
        codes: int32 `(n, 16, 16)`.
        rounds: int `(n,)`: forwards of the target for each image, its first one not counted.
        ahead: tokens that the draft proposed in each round.
    """

    codes: np.ndarray
    rounds: np.ndarray
    ahead: int

    @property
    def tokens_per_round(self) -> float:
        """Tokens that one forward of the target yields, on average; 1 without a draft."""
        return float((LENGTH - 1) / self.rounds.mean())


class Speculator:
    """Draws what an image GPT draws, with fewer forwards of it.

    A round: the draft writes `ahead` tokens, letter by letter, from its distributions `q`. The
    target reads them in one forward and has its own distributions `p`. A letter `x` is kept with
    probability `min(1, p(x) / q(x))`. The first one that is not is drawn again from what `p` has in
    excess of `q`, and the rest of its token by the target, whose forward of it is done already. If
    all are kept, the target adds one more token. Every letter then follows `p`.

    Args:
        target: the model to draw from.
        draft: a cheaper one with the same alphabet.
        ahead: tokens to propose in a round, at least 1.
        guidance: of the target. The draft is asked without: a student has learnt its guidance.
        xla: compile with XLA.
        **options: of `sampling.restrict`, for both: temperature, top_k, top_p, min_p.

    Raises:
        ValueError: if the two do not spell alike, or `ahead` is below 1.

    Reference: Leviathan et al., 2023, arXiv:2211.17192, algorithm 1 and appendix A.1.
    """

    def __init__(
        self,
        target: ImageGPT,
        draft: ImageGPT,
        ahead: int = 4,
        *,
        guidance: float = 1.0,
        xla: bool = False,
        **options: Any,
    ) -> None:
        for name in ("alphabet", "text_width", "prefix"):
            one, other = getattr(target.config, name), getattr(draft.config, name)
            if one != other:
                raise ValueError(
                    f"The draft's {name} is {other}, its target's {one}. They must be the same."
                )
        if ahead < 1:
            raise ValueError(f"ahead = {ahead}; give at least 1 token.")
        self.target, self.draft, self.ahead = target, draft, ahead
        ranges.check_all(guidance=guidance, **options)
        self.guidance, self.options = guidance, options
        variables = [*target.variables, *draft.variables]
        self._run = backend.compile_step(self._write, variables, xla=xla)

    def sample(self, text: np.ndarray, seed: int = 0) -> Speculation:
        """Writes one image for each text, one after the other.

        Args:
            text: embeddings, float32 `(n, text_width)`.
            seed: of the random numbers; image `i` depends on `(seed, i)` and its text alone.

        Returns:
            Codes of the images, and the rounds that each took.

        Raises:
            ValueError: if `text` has another shape.
        """
        text = check_text(text, self.target.config.text_width)
        each = 2 * self.ahead * LETTERS + LETTERS  # random numbers of a round
        uniform = sampling.uniforms(len(text), LETTERS + (LENGTH - 1) * each, seed)
        tokens, rounds = [], []
        for one, numbers in zip(text, uniform, strict=True):
            found = self._run(one[None], numbers[:LETTERS], numbers[LETTERS:].reshape(-1, each))
            written, count = backend.to_numpy(found)
            tokens.append(written[0, :LENGTH])
            rounds.append(int(count))
        codes = unspell(np.stack(tokens), self.target.config.alphabet)
        return Speculation(codes, np.array(rounds), self.ahead)

    def _shares(self, logits: Any) -> Any:
        """Returns the distribution that a letter is drawn from, of the shape of its logits."""
        return ops.softmax(sampling.restrict(logits, **self.options))

    def _write(self, text: Any, first: Any, uniform: Any) -> Any:
        """Writes one image; compiled as a whole.

        Args:
            text: `(1, text_width)`.
            first: random numbers of the first token, `(letters,)`, which the target draws alone.
            uniform: random numbers of all rounds that there can be, `(63, 2·ahead·letters +
                letters)`: the draft's choices, whether they are kept, and the token at the end.

        Returns:
            Tokens, int32 `(1, 64 + ahead, letters)`, of which the last ones are too many, and how
            many rounds they took.
        """
        target, draft, ahead = self.target, self.draft, self.ahead
        text, uniform = ops.convert_to_tensor(text), ops.convert_to_tensor(uniform)
        prefix, room = target.config.prefix, LENGTH + ahead
        copies = 1 if self.guidance == 1.0 else 2
        texts = text if copies == 1 else ops.concatenate([text, ops.zeros_like(text)])
        slots = prefix + room
        cache_t = empty_cache(target.config.transformer, copies, slots)
        cache_d = empty_cache(draft.config.transformer, 1, slots)
        y, cache_t = target.transformer(target.prefix(texts), cache=cache_t)
        _, cache_d = draft.transformer(draft.prefix(text), cache=cache_d)
        start = target.letters.pick(
            y[:, -1:], ops.reshape(first, (1, 1, LETTERS)), self.guidance, **self.options
        )
        tokens = ops.slice_update(ops.zeros((1, room, LETTERS), "int32"), (0, 0, 0), start)

        def round_(n: Any, count: Any, tokens: Any, cache_t: Any, cache_d: Any) -> Any:
            numbers = ops.take(uniform, ops.reshape(count, (1,)), axis=0)
            guess, accept, rest = ops.split(numbers[0], (ahead * LETTERS, 2 * ahead * LETTERS))
            guess = ops.reshape(guess, (1, ahead, LETTERS))
            # The draft writes; its last forward only reads what it wrote last, for its cache.
            last, proposed, q = ops.slice(tokens, (0, n - 1, 0), (1, 1, LETTERS)), [], []
            for j in range(ahead + 1):
                x = draft.embed(last, n - 1 + j)
                y, cache_d = draft.transformer(x, start=prefix + n - 1 + j, cache=cache_d)
                if j < ahead:
                    last = draft.letters.pick(y, guess[:, j : j + 1], **self.options)
                    proposed.append(last)
                    q.append(self._shares(draft.letters.logits(y, last))[0, 0])
            q = ops.stack(q)  # (ahead, letters, alphabet)
            written = ops.concatenate(proposed, axis=1)  # (1, ahead, letters)
            # The target reads the token before and all proposals in one forward.
            before = ops.slice(tokens, (0, n - 1, 0), (1, 1, LETTERS))
            read = ops.tile(ops.concatenate([before, written], axis=1), (copies, 1, 1))
            y, cache_t = target.transformer(
                target.embed(read, n - 1), start=prefix + n - 1, cache=cache_t
            )
            logits = target.letters.logits(y[:, :ahead], ops.tile(written, (copies, 1, 1)))
            p = self._shares(guided(logits, self.guidance))[0]  # (ahead, letters, alphabet)
            kept = self._kept(written[0], p, q, ops.reshape(accept, (ahead, LETTERS)))
            at, letter = kept // LETTERS, kept % LETTERS  # of the first letter to draw again
            finished = self._finish(y, written, q, at, letter, rest)
            tokens = ops.slice_update(tokens, (0, n, 0), written)
            tokens = ops.slice_update(tokens, (0, n + at, 0), finished)
            return n + at + 1, count + 1, tokens, cache_t, cache_d

        one, none = ops.convert_to_tensor(1, "int32"), ops.convert_to_tensor(0, "int32")
        state = (one, none, tokens, cache_t, cache_d)
        _, count, tokens, *_ = ops.while_loop(lambda n, *_: n < LENGTH, round_, state)
        return tokens, count

    def _kept(self, written: Any, p: Any, q: Any, uniform: Any) -> Any:
        """Returns how many letters are kept before the first that is not, an int32 scalar."""
        index = written[..., None]
        p_x = ops.take_along_axis(p, index, axis=-1)[..., 0]
        q_x = ops.take_along_axis(q, index, axis=-1)[..., 0]
        good = ops.reshape(ops.cast(uniform * q_x < p_x, "int32"), (-1,))
        return ops.sum(ops.cumprod(good))

    def _finish(self, y: Any, written: Any, q: Any, at: Any, letter: Any, uniform: Any) -> Any:
        """Draws the token at which the proposals end: kept letters, one from the excess, new ones.

        After the last proposal (`at == ahead`) there is no `q` to exceed: all of it is new.
        """
        y_at = ops.take(y, ops.reshape(at, (1,)), axis=1)
        none = ops.zeros_like(q[:1])
        q_at = ops.take(ops.concatenate([q, none]), ops.reshape(at, (1,)), axis=0)
        padded = ops.concatenate([written[0], ops.zeros_like(written[0, :1])])
        old = ops.take(padded, ops.reshape(at, (1,)), axis=0)  # (1, letters)

        def choose(i: int, logits: Any) -> Any:
            p = self._shares(logits)
            excess = ops.maximum(p - q_at[:, i], 0)  # (1, 1, alphabet)
            shares = ops.where(letter == i, excess, p)
            new = sampling.invert(shares, ops.reshape(uniform[i], (1, 1)))
            return ops.where(i < letter, old[:, i : i + 1], new)

        return self.target.letters.draw(y_at, choose, self.guidance)


def unmask(
    shares: Callable[[np.ndarray], np.ndarray],
    n: int,
    length: int,
    passes: int,
    seed: int = 0,
    *,
    randomness: float = 1.0,
) -> np.ndarray:
    """Draws sentences in parallel: all unknown tokens at once, the surest ones are fixed.

    Args:
        shares: sentences, int32 `(n, length)`, -1 where unknown, → probabilities of each token
            given the known ones, float `(n, length, codes)`.
        n: sentences.
        length: tokens of each.
        passes: forwards; with `length` of them, one token is fixed in each.
        seed: of the draws.
        randomness: of the choice of places; 0 fixes the surest ones.

    Returns:
        int32 `(n, length)`.

    Raises:
        ValueError: if `passes` is not from 1 to `length`, or `randomness` is negative.

    Reference: Chang et al., 2022, arXiv:2202.04200, section 3.2 and its cosine schedule.

    Example:
        >>> fair = lambda known: np.full((*known.shape, 2), 0.5)
        >>> unmask(fair, n=3, length=4, passes=2).shape
        (3, 4)
    """
    if not 1 <= passes <= length or randomness < 0:
        raise ValueError(
            f"passes = {passes}, randomness = {randomness}: give 1 to {length} passes, and a "
            "randomness from 0."
        )
    rng = np.random.default_rng(seed)
    sentence = np.full((n, length), -1, np.int32)
    left = length
    for turn in range(1, passes + 1):
        p = np.asarray(shares(sentence))
        total = p.cumsum(-1)
        drawn = (total > rng.random((n, length, 1)) * total[..., -1:]).argmax(-1)
        chosen = np.take_along_axis(p, drawn[..., None], axis=-1)[..., 0]
        noise = rng.gumbel(size=(n, length)) * randomness * (1 - turn / passes)
        sure = np.where(sentence < 0, np.log(np.maximum(chosen, 1e-30)) + noise, -np.inf)
        # The cosine keeps most for the end, when much is known; each pass fixes at least one.
        stay = min(int(length * np.cos(np.pi / 2 * turn / passes)), left - 1)
        stay = max(stay, 0) if turn == passes else max(stay, passes - turn)
        places = np.argsort(-sure, axis=1)[:, : left - stay]
        np.put_along_axis(sentence, places, np.take_along_axis(drawn, places, 1), axis=1)
        left = stay
    return sentence
