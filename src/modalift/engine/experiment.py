"""An experiment: the table, networks and scheme of a recipe, ready to train or to evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modalift.engine.monitor import Monitor
from modalift.engine.provenance import fingerprint
from modalift.engine.store import open_store, training_store
from modalift.engine.tables import hide_labels
from modalift.errors import ModaliftError
from modalift.loading.clips import ClipSet
from modalift.loading.framing import Framing, Protocol
from modalift.loading.stores import Store
from modalift.modalities import Table
from modalift.models import Model, model_of
from modalift.networks.weights import Loaded
from modalift.recipe import Recipe
from modalift.schemes import Scheme


@dataclass
class Experiment:
    """The table, networks and scheme of a recipe.

    Attributes:
        recipe: the recipe.
        table: all its clips.
        scheme: the scheme, which holds the networks.
        framings: view -> how recordings become clips, for every view that the scheme reads.
        corrupt: clip -> what is wrong with it; these clips are left out.
        initialized_from: role -> which of the weights of the file ``init`` were loaded.
    """

    recipe: Recipe
    table: Table
    scheme: Scheme
    framings: Mapping[str, Framing]
    corrupt: dict[str, str] = field(default_factory=dict)
    initialized_from: Mapping[str, Loaded] = field(default_factory=dict)
    _store: Store | None = None

    @property
    def train(self) -> Table:
        """The training clips, with the labels that the scheme may use, in a fixed order.

        Raises:
            ModaliftError: there is none.
        """
        scheme, views = self.scheme, self.scheme.required_views()
        shown = hide_labels(self.table.split("train"), self.recipe.data.labeled, self.recipe.data.label_seed)
        kept = shown.where(lambda r: r.id not in self.corrupt and bool(views & set(r.tracks))
                           and (scheme.uses_unlabeled or r.label is not None))
        if not len(kept):
            raise ModaliftError(f"{self.table.name}: no training clip has any of the views {', '.join(sorted(views))}"
                                " and, where the scheme needs it, a label - see `modalift check`")
        return kept

    def steps(self, ranks: int = 1) -> tuple[int, int]:
        """Steps per epoch, and clips per step over all processes; clips that do not fill a step are left out of the epoch.

        Raises:
            ModaliftError: gradient accumulation over more clips than there are.
        """
        optim, clips = self.recipe.optim, len(self.train)
        per_step = optim.batch * optim.accumulate * ranks
        if clips < per_step and optim.accumulate > 1:
            raise ModaliftError(f"optim.batch x accumulate x processes = {per_step}, but there are {clips} training clips"
                                " - lower one of them")
        return max(1, clips // per_step), per_step

    def fingerprint(self, precision: str) -> str:
        """See :func:`modalift.engine.provenance.fingerprint`."""
        return fingerprint(self.recipe, self.table, precision)

    def clips(self, table: Table, views: set[str], *, augment: bool, tolerant: bool = False) -> ClipSet:
        """The clips of a table as networks receive them: augmented for training, or cropped by the protocol for evaluation.

        Args:
            table: the clips.
            views: the views that are read.
            augment: whether for training.
            tolerant: see :class:`~modalift.loading.clips.ClipSet`.
        """
        data = self.recipe.data
        return ClipSet(table, {v: self.framings[v] for v in sorted(views)}, augment=data.augment if augment else None,
                       seed=self.recipe.run.seed, store=self.store(table), skip=set(self.corrupt),
                       protocol=Protocol() if augment else self.recipe.protocol, tolerant=tolerant)

    def store(self, table: Table | None = None) -> Store | None:
        """The store of decoded frames: that of :meth:`decode`, or the cache folder of the recipe; None: the recordings.

        Args:
            table: the clips that are read; by default all.

        Raises:
            ModaliftError: a cache folder of other clips.
        """
        return self._store or open_store(self.recipe, table or self.table, self.scheme.required_views())

    def decode(self, monitor: Monitor) -> None:
        """Decodes the clips that a training reads into memory or a cache, by ``data.cache``.

        Raises:
            ModaliftError: see :func:`~modalift.engine.store.training_store`.
        """
        framings = {view: self.framings[view] for view in sorted(self.scheme.required_views())}
        self._store = training_store(self.recipe, self.table, self.train, framings, monitor)

    def models(self) -> dict[str, Model]:
        """Role -> model, for all that the training saves: models that can be deployed, and those that are only evaluated."""
        return {role: model_of(network, {v: self.framings[v] for v in self.scheme.evaluation_views(role)}, self.table.classes,
                               self.recipe.protocol.crops_only())
                for role, network in self.scheme.models().items()}
