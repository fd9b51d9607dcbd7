"""The documented manifest of recordings as MGR-Dark's, with made-up ones: two gestures by subjects 1 and 2, in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import recordings

HEAD = "sample_id,subject,class,condition,split,rgb,depth,ir\n"


def write(root: Path) -> dict[str, Any]:
    """Writes the sample into a folder; the options that it is opened with. One clip in the dark has no infrared."""
    root.mkdir(parents=True)
    lines = []
    for subject in (1, 2):
        for gesture in ("stop", "forward"):
            for condition in ("dark", "daylight"):
                paths = {view: f"{condition}/{view}/s{subject}_{gesture}.mp4" for view in ("rgb", "depth", "ir")}
                if (subject, gesture, condition) == (2, "stop", "dark"):
                    paths["ir"] = ""
                for path in filter(None, paths.values()):
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    recordings.write(root / path, "mpeg4", "yuv420p", frames=5, size=16)
                lines.append(f"s{subject}_{gesture},s{subject},{gesture},{condition},{'train' if subject == 1 else 'test'},"
                             f"{paths['rgb']},{paths['depth']},{paths['ir']}\n")
    (root / "manifest.csv").write_text(HEAD + "".join(lines))
    return {}
