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
    average,
    common,
    joint,
    joint_count,
    joint_mean,
    label_loss,
    labels_of,
    look,
    total,
    watch,
)

__all__ = [
    "SCHEMES", "Progress", "Scheme", "Terms", "Update", "average", "build", "check_settings", "common", "joint", "joint_count",
    "joint_mean", "kind_of", "label_loss", "labels_of", "look", "optional_roles_of", "roles_of", "scheme", "settings_of",
    "total", "watch",
]

discover(__name__)  # one file adds a scheme
