"""A recurrent controller trained by PPO, as NAS-FPN was found: the reference for other strategies.

Zoph and Le, arXiv:1611.01578; Ghiasi, Lin, Pang and Le, "NAS-FPN", arXiv:1904.07392, section 3.2; Schulman et al.,
"Proximal policy optimization", arXiv:1707.06347. Deviations: an answer is scored by its own embedding, so that any
legal options can be offered; the reward is the place in the ranking, which has no scale; the rate is higher, for
hundreds of trials instead of thousands.
question, last answer -> LSTM -> score of each option -> answer; finished trials, a few at a time -> PPO
"""

import math
import random
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.base.errors import check_between, check_count
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Answer, Candidate, Chooser, Space
from pyrafuse.search.journal import Trial
from pyrafuse.search.ranking import rank
from pyrafuse.search.space import draw
from pyrafuse.search.strategies.coding import Asked, Coder
from pyrafuse.search.strategies.registry import STRATEGIES, Strategy

NUM_TOKENS = 4096
"""Rows of the table of embeddings, which texts share by their hash: no list of questions is needed."""

Episode = Sequence[tuple[int, list[int], int]]
"""Token of each question, tokens of its options, place of the answer among them."""


class Policy(nn.Module):
    """Scores the options of each question, given the questions and answers before."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(NUM_TOKENS, width)
        nn.init.normal_(self.tokens.weight, std=0.1)
        self.cell = nn.LSTM(width, width, batch_first=True)

    def forward(self, episodes: Sequence[Episode]) -> tuple[Tensor, Tensor, Tensor]:
        """What the policy makes of whole trials.

        Returns:
            Log-probability (E, T) of each answer, entropy (E, T) of each question, and which of them there are (E, T).
        """
        questions, options, chosen = _pad(episodes)
        answers = options.gather(2, chosen[..., None]).squeeze(2).clamp(min=0)
        before = F.pad(self.tokens(answers)[:, :-1], (0, 0, 1, 0))
        states, _ = self.cell(self.tokens(questions.clamp(min=0)) + before)
        is_there = questions >= 0
        is_open = (options >= 0) | ~is_there[..., None]
        logs = self.score(states, options.clamp(min=0)).masked_fill(~is_open, -math.inf).log_softmax(dim=2)
        entropy = -(logs.exp() * logs.masked_fill(~is_open, 0.0)).sum(dim=2)
        return logs.gather(2, chosen[..., None]).squeeze(2), entropy, is_there

    def score(self, states: Tensor, options: Tensor) -> Tensor:
        """Scores (..., N) of the tokens ``options`` (..., N) in states (..., W)."""
        return (self.tokens(options) * states[..., None, :]).sum(dim=-1)


@STRATEGIES.register("controller")
class Controller(Strategy):
    """A small recurrent policy; what it has learnt is learnt anew from the trials when a search goes on.

    Args:
        width: Width of embeddings and state.
        batch: Number of finished trials an update.
        epochs: Steps of the optimiser an update.
        lr: Rate of Adam.
        clip: How far an update may change the probability of an answer.
        entropy: Weight of the entropy in the objective, which keeps proposals varied.

    Raises:
        PyrafuseError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        width: int = 32,
        batch: int = 8,
        epochs: int = 4,
        lr: float = 0.01,
        clip: float = 0.2,
        entropy: float = 0.01,
    ) -> None:
        for name, value in {"width": width, "batch": batch, "epochs": epochs}.items():
            check_count(name, value, 1)
        for name, number in {"lr": lr, "clip": clip, "entropy": entropy}.items():
            check_between(name, number, 0)
        self._width, self._batch, self._epochs = width, batch, epochs
        self._lr, self._clip, self._entropy = lr, clip, entropy
        self._coder = Coder()
        self._begin()

    def _begin(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._policy = Policy(width=self._width)
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=self._lr)
        self._learnt: list[Trial] = []

    def propose(self, space: Space, inputs: PyramidSpec, trials: Sequence[Trial], rng: random.Random) -> Candidate:
        rated = {trial.number for trial in rank(trials)}
        finished = [trial for trial in trials if trial.number in rated]
        usable = finished[: len(finished) // self._batch * self._batch]
        if self._learnt != usable[: len(self._learnt)]:
            self._begin()
        while len(self._learnt) < len(usable):
            self._learn(space, inputs, usable[: len(self._learnt) + self._batch])
        return draw(space, inputs, self._create_chooser(rng))

    def _learn(self, space: Space, inputs: PyramidSpec, known: list[Trial]) -> None:
        """One update by the last ``batch`` of the trials that are known then."""
        latest = known[-self._batch :]
        places = {trial.number: place for place, trial in enumerate(rank(known))}
        rewards = torch.tensor([1 - 2 * places[trial.number] / max(1, len(known) - 1) for trial in latest])
        episodes = [_encode(self._coder.code(space, inputs, trial)) for trial in latest]
        with torch.enable_grad():
            with torch.no_grad():
                before, _, _ = self._policy(episodes)
            for _ in range(self._epochs):
                logs, entropy, is_there = self._policy(episodes)
                ratio = (logs - before).exp()
                gain = torch.minimum(
                    ratio * rewards[:, None], ratio.clamp(1 - self._clip, 1 + self._clip) * rewards[:, None]
                )
                loss = -((gain + self._entropy * entropy) * is_there).sum() / is_there.sum()
                self._optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self._policy.parameters(), 1.0)
                self._optimizer.step()
        self._learnt = known

    def _create_chooser(self, rng: random.Random) -> Chooser:
        policy = self._policy
        state: tuple[Tensor, Tensor] | None = None
        answer: Tensor | None = None

        @torch.no_grad()
        def choose(question: str, options: Sequence[Answer]) -> int:
            nonlocal state, answer
            if len(options) == 1:
                return 0
            (asked, tokens, _) = (torch.tensor(part) for part in _tokens(Asked(question, tuple(options), 0)))
            x = policy.tokens(asked) + (0.0 if answer is None else answer)
            out, state = policy.cell(x[None, None], state)
            chances = policy.score(out[0, 0], tokens).softmax(dim=0).tolist()
            place = rng.choices(range(len(options)), weights=chances)[0]
            answer = policy.tokens(tokens[place])
            return place

        return choose


def _encode(asked: Sequence[Asked]) -> Episode:
    return [_tokens(one) for one in asked]


def _tokens(asked: Asked) -> tuple[int, list[int], int]:
    """An option means the same whichever merge is asked: only the question's token tells the merge."""
    kind = asked.question.rpartition(".")[2]
    return _token(asked.question), [_token(f"{kind}={option}") for option in asked.options], asked.place


@cache
def _token(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest()) % NUM_TOKENS


def _pad(episodes: Sequence[Episode]) -> tuple[Tensor, Tensor, Tensor]:
    """Questions (E, T) and options (E, T, N), padded with -1, and chosen places (E, T)."""
    length = max(map(len, episodes))
    width = max(len(options) for episode in episodes for _, options, _ in episode)
    questions = torch.full((len(episodes), length), -1)
    options = torch.full((len(episodes), length, width), -1)
    chosen = torch.zeros(len(episodes), length, dtype=torch.long)
    for row, episode in enumerate(episodes):
        for step, (question, tokens, place) in enumerate(episode):
            questions[row, step], chosen[row, step] = question, place
            options[row, step, : len(tokens)] = torch.tensor(tokens)
    return questions, options, chosen
