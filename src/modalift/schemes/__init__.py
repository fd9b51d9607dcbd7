"""How sensors teach: one paper, one file. Start reading here."""

from modalift.registry import discover
from modalift.schemes.registry import (
    SCHEMES,
    build,
    check_settings,
    kind_of,
    optional_roles_of,
    roles_of,
    scheme,
    settings_of,
)
from modalift.schemes.scheme import (
    Progress,
    Scheme,
    Terms,
    Update,
    count_across_ranks,
    gather_across_ranks,
    label_loss,
    labels_of,
    masked_mean,
    mean_across_ranks,
    observe,
    observe_frozen,
    on_common_clips,
    total,
)

__all__ = [
    "SCHEMES", "Progress", "Scheme", "Terms", "Update", "build", "check_settings", "count_across_ranks", "gather_across_ranks",
    "kind_of", "label_loss", "labels_of", "masked_mean", "mean_across_ranks", "observe", "observe_frozen", "on_common_clips",
    "optional_roles_of", "roles_of", "scheme", "settings_of", "total",
]

discover(__name__)  # one file adds a scheme
