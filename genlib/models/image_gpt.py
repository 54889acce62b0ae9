"""Image GPT: an image is a sentence of 64 tokens, written one after another.

The text comes first, as a few prefix tokens; then each token is drawn from what the transformer
makes of everything before it. The textbook way runs the whole sentence again for every token; the
fast way keeps keys and values, so a token costs a forward of one. Both draw the same images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops

from genlib import backend, ranges
from genlib.models import sampling
from genlib.models.letters import ALPHABET, LETTERS, Letters, unspell
from genlib.models.sampling import check_text
from genlib.models.transformer import Transformer, TransformerConfig, embedding, empty_cache, linear

LENGTH = 64  # tokens, of four codes each


@dataclass(frozen=True)
class ImageGPTConfig:
    """The shape of an image GPT."""

    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(6, 192, heads=6, kv_heads=2, hidden=384)
    )
    alphabet: int = ALPHABET  # of the letters that spell a token
    text_width: int = 128  # of a text embedding
    prefix: int = 4  # tokens that carry the text


class ImageGPT(keras.Model):
    """Text embeddings to codes, token by token.

    Args:
        config: shape.
        seed: of the initial weights.

    Reference: Chen et al., 2020, "Generative pretraining from pixels"; codes in place of pixels
    as in Esser et al., 2021, arXiv:2012.09841.
    """

    kind = "codes"

    def __init__(self, config: ImageGPTConfig | None = None, seed: int = 0) -> None:
        super().__init__(name="image_gpt")
        self.config = c = config or ImageGPTConfig()
        self.transformer = Transformer(c.transformer, seed)
        width = c.transformer.width
        self.read_text = linear(c.text_width, c.prefix * width, seed + 1)
        self.place = embedding(LENGTH, width, seed + 2)  # where the next token goes
        self.letters = Letters(c.alphabet, LETTERS, width, seed + 3)
        self.built = True
        self._chooser = lru_cache(backend.COMPILED)(self._compile_choice)
        self._writer = lru_cache(backend.COMPILED)(self._compile_loop)

    def call(self, inputs: dict[str, Any]) -> Any:
        """Tells how likely each token is after those before it, as training needs.

        Args:
            inputs: `"text"`, float `(b, text_width)`, and `"tokens"`, int `(b, 64, 8)`; a student
                also gets `"shares"`, its teacher's probabilities, float `(b, 64, 8, alphabet)`.

        Returns:
            Natural logarithms of the probabilities, `(b, 64)`; with shares, their means over what
            the teacher would write.
        """
        states = self.states(inputs["text"], inputs["tokens"])
        return self.letters.log_probability(states, inputs["tokens"], inputs.get("shares"))

    def states(self, text: Any, tokens: Any) -> Any:
        """Returns what the transformer says before each token, `(b, 64, width)`."""
        x = ops.concatenate([self.prefix(text), self.embed(tokens[:, :-1], 0)], axis=1)
        return self.transformer(x)[:, self.config.prefix - 1 :]

    def prefix(self, text: Any) -> Any:
        """Returns the tokens that carry the text, `(b, prefix, width)`."""
        width = self.config.transformer.width
        x = ops.reshape(self.read_text(text), (-1, self.config.prefix, width))
        # The last prefix token already asks for the token at place 0.
        return x + ops.pad(
            self.place(ops.zeros((1, 1), "int32")), ((0, 0), (x.shape[1] - 1, 0), (0, 0))
        )

    def embed(self, tokens: Any, start: Any) -> Any:
        """Embeds tokens at places from `start` on; each asks for the place after its own."""
        places = start + 1 + ops.arange(ops.shape(tokens)[1])
        return self.letters.embed(tokens) + self.place(ops.minimum(places, LENGTH - 1))[None]

    def sample(
        self,
        text: np.ndarray,
        seed: sampling.Seed = 0,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        guidance: float = 1.0,
        cached: bool = True,
        compiled: bool = True,
        xla: bool = False,
    ) -> np.ndarray:
        """Writes one image for each text.

        Args:
            text: embeddings, float32 `(n, text_width)`.
            seed: of the random numbers; image `i` depends on `(seed, i)` and its text alone.
            temperature: below 1 plays safe.
            top_k: draw from the `top_k` likeliest letters only.
            top_p: draw from the likeliest letters that hold this share together.
            min_p: draw from letters at least this share as likely as the likeliest.
            guidance: above 1, moves the logits away from those without text (Ho and Salimans,
                2022, arXiv:2207.12598); doubles the work.
            cached: keep keys and values in one loop; else run the whole sentence anew for every
                token.
            compiled: compile the loop, or each forward; else every operation starts by itself.
            xla: compile with XLA.

        Returns:
            Codes, int32 `(n, 16, 16)`.

        Raises:
            ValueError: if `text` has another shape, or an option is out of range.
        """
        text = check_text(text, self.config.text_width)
        uniform = sampling.uniforms(len(text), LENGTH * LETTERS, seed)
        uniform = uniform.reshape(-1, LENGTH, LETTERS)
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        ranges.check_all(guidance=guidance, **options)
        if guidance != 1.0:  # the second half of the batch has no text
            text = np.concatenate([text, np.zeros_like(text)])
        make = self._writer if cached else self._chooser
        run = make(compiled, xla, guidance=guidance, **options)
        tokens = run(text, uniform) if cached else self._write_anew(run, text, uniform)
        return unspell(backend.to_numpy(tokens), self.config.alphabet)

    def _write_anew(self, choose: Any, text: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """The textbook's way: 64 forwards of the whole sentence."""
        tokens = np.zeros((len(text), LENGTH, LETTERS), np.int32)
        copies = len(text) // len(uniform)
        for place in range(LENGTH):
            here = uniform[:, place : place + 1]
            chosen = backend.to_numpy(choose(text, tokens, np.int32(place), here))
            tokens[:, place] = np.tile(chosen[:, 0], (copies, 1))
        return tokens[: len(uniform)]

    def _compile_choice(self, compiled: bool, xla: bool, **options: Any) -> Any:
        def choose(text: Any, tokens: Any, place: Any, uniform: Any) -> Any:
            states = self.states(text, ops.convert_to_tensor(tokens))
            y = ops.take(states, ops.reshape(place, (1,)), axis=1)
            return self.letters.pick(y, uniform, **options)

        return backend.compile_step(choose, self.variables, xla=xla) if compiled else choose

    def _compile_loop(self, compiled: bool, xla: bool, **options: Any) -> Any:
        """The language model's way: forwards of one token, keys and values kept."""
        prefix, copies = self.config.prefix, 1 if options["guidance"] == 1.0 else 2

        def write(text: Any, uniform: Any) -> Any:
            n = ops.shape(uniform)[0]
            cache = empty_cache(self.config.transformer, copies * n, prefix + LENGTH - 1)
            y, cache = self.transformer(self.prefix(text), cache=cache)
            first = self.letters.pick(y[:, -1:], uniform[:, :1], **options)
            tokens = ops.zeros((n, LENGTH, LETTERS), "int32")
            tokens = ops.slice_update(tokens, (0, 0, 0), first)

            def step(place: Any, tokens: Any, cache: Any) -> Any:
                last = ops.slice(tokens, (0, place - 1, 0), (n, 1, LETTERS))
                x = self.embed(ops.tile(last, (copies, 1, 1)), place - 1)
                y, cache = self.transformer(x, start=prefix + place - 1, cache=cache)
                here = ops.slice(uniform, (0, place, 0), (n, 1, LETTERS))
                chosen = self.letters.pick(y, here, **options)
                return place + 1, ops.slice_update(tokens, (0, place, 0), chosen), cache

            start = (ops.convert_to_tensor(1, "int32"), tokens, cache)
            return ops.while_loop(lambda place, tokens, cache: place < LENGTH, step, start)[1]

        return backend.compile_step(write, self.variables, xla=xla) if compiled else write
