"""A search that learns from its trials: Ray Tune's OptunaSearch proposes settings (tree-structured Parzen estimator).

Only what proposes is Tune's. Trials are runs like any others, trained by whichever executor there is, so they resume:
with the same seed and the same scores, told in the same order, the same settings are proposed again.
"""

from collections.abc import Sequence
from typing import Any

from acn_cl.errors import UserError
from acn_cl.search import Range, SearchSection, Setting

SCORE = "score"


class Adaptive:
    """Proposes settings of a space, some at a time, and is told their scores.

    Args:
        section: what is searched, with how many trials, and how many of them at a time.

    Raises:
        UserError: Ray or Optuna is not installed.
    """

    def __init__(self, section: SearchSection) -> None:
        try:
            import optuna
            from ray import tune
            from ray.tune.search import create_searcher
        except ModuleNotFoundError as error:
            raise UserError(
                f"search.method adaptive needs the package {error.name}: pip install 'acn-cl[ray]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._section, self._asked = section, 0
        self._searcher = create_searcher("optuna", seed=section.seed)
        space = {key: _domain(tune, values) for key, values in section.space.items()}
        self._searcher.set_search_properties(SCORE, "max", space)

    def ask(self) -> dict[str, Setting]:
        """The next settings by the name that their scores are told under; none when all trials are made."""
        first, last = self._asked, min(self._asked + self._section.at_a_time, self._section.trials or 0)
        self._asked = last
        return {name: self._setting(name) for name in map(str, range(first, last))}

    def tell(self, name: str, score: float | None) -> None:
        """The score of a setting that was asked for; ``None``: its trial failed."""
        if score is None:
            self._searcher.on_trial_complete(name, error=True)
        else:
            self._searcher.on_trial_complete(name, {SCORE: score})

    def _setting(self, name: str) -> Setting:
        proposed = self._searcher.suggest(name)
        return {
            key: float(f"{proposed[key]:.4g}") if isinstance(values, Range) else proposed[key]
            for key, values in self._section.space.items()
        }


def _domain(tune: Any, values: "Sequence[Any] | Range") -> Any:
    """What Tune calls a list of values, or a range."""
    if not isinstance(values, Range):
        return tune.choice(list(values))
    return (tune.loguniform if values.loguniform else tune.uniform)(*values.bounds)
