"""NTU RGB+D and NTU RGB+D 120: actions recorded by three Kinect v2 as color, infrared, depth and joints."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from modalift.datasets import download, scanning
from modalift.datasets.naming import assign_subjects
from modalift.datasets.registry import dataset
from modalift.datasets.release import Release
from modalift.errors import ModaliftError, nearest
from modalift.files import entries
from modalift.modalities import Row, Table, Track, build_table, modality

Split = Literal["cross_subject", "cross_view", "cross_setup"]
Classes = Literal["all", "mgcam"]

#: The performers whose clips train, in the cross-subject protocol; those above 40 are of NTU RGB+D 120.
TRAINING_PERFORMERS = frozenset((
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58,
    59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103))
TRAINING_CAMERAS = (2, 3)
#: The setups and the classes of each release, and the classes of the MGCAM paper (drink .. clap).
SETUPS, ACTIONS = {60: 17, 120: 32}, {60: 60, 120: 120}
MGCAM = 10
#: View -> modality and number of channels. Joints are 25 of each of two bodies.
VIEWS = {"rgb": ("rgb", 3), "ir": ("nir", 1), "depth": ("depth", 1), "depth_full": ("depth", 1), "pose": ("pose", 150)}
RATE = 30.0

CLASSES = tuple(name for line in """
drink water|eat meal/snack|brushing teeth|brushing hair|drop|pickup|throw|sitting down|standing up|clapping|reading|writing
tear up paper|wear jacket|take off jacket|wear a shoe|take off a shoe|wear on glasses|take off glasses|put on a hat/cap
take off a hat/cap|cheer up|hand waving|kicking something|reach into pocket|hopping|jump up|make a phone call
playing with phone/tablet|typing on a keyboard|pointing to something with finger|taking a selfie|check time (from watch)
rub two hands together|nod head/bow|shake head|wipe face|salute|put the palms together|cross hands in front|sneeze/cough
staggering|falling|touch head|touch chest|touch back|touch neck|nausea or vomiting|use a fan|punching/slapping other person
kicking other person|pushing other person|pat on back of other person|point finger at the other person|hugging other person
giving something to other person|touch other person's pocket|handshaking|walking towards each other
walking apart from each other|put on headphone|take off headphone|shoot at the basket|bounce ball|tennis bat swing
juggling table tennis balls|hush|flick hair|thumb up|thumb down|make ok sign|make victory sign|staple book|counting money
cutting nails|cutting paper|snapping fingers|open bottle|sniff|squat down|toss a coin|fold paper|ball up paper
play magic cube|apply cream on face|apply cream on hand back|put on bag|take off bag|put something into a bag
take something out of a bag|open a box|move heavy objects|shake fist|throw up cap/hat|hands up|cross arms|arm circles
arm swings|running on the spot|butt kicks|cross toe touch|side kick|yawn|stretch oneself|blow nose
hit other person with something|wield knife towards other person|knock over other person|grab other person's stuff
shoot at other person with a gun|step on foot|high-five|cheers and drink|carry something with other person
take a photo of other person|follow other person|whisper in other person's ear|exchange things with other person
support somebody with hand|finger-guessing game""".strip().split("\n") for name in line.split("|"))

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
_FILE = re.compile(rf"({_NAME.pattern})(?:_(rgb|ir)\.(?:avi|mp4)|\.(skeleton))", re.ASCII)
_MISSING = re.compile(r".*missing_skeletons?.*\.txt", re.IGNORECASE)
_DEPTH = 3  # folders: of the archive, of the view, and of a clip's depth images


class Clip(NamedTuple):
    """What the name of a clip says; all numbers count from 1."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    @classmethod
    def of(cls, name: str) -> Clip | None:
        """The clip of a name such as ``S001C002P003R002A013``; None if it is another name.

        Example:
            >>> Clip.of("S001C002P003R002A013")
            Clip(setup=1, camera=2, performer=3, replication=2, action=13)
        """
        found = _NAME.fullmatch(name)
        return cls(*map(int, found.groups())) if found and all(int(n) for n in found.groups()) else None

    def split(self, protocol: Split) -> str:
        """``train`` or ``test``: by performer, by camera (2 and 3 train), or by setup (even ones train)."""
        trains = (self.performer in TRAINING_PERFORMERS if protocol == "cross_subject" else
                  self.camera in TRAINING_CAMERAS if protocol == "cross_view" else self.setup % 2 == 0)
        return "train" if trains else "test"


#: (release, protocol, classes) -> clips of train and test in the whole release.
COUNTS = {(60, "cross_subject", "all"): (40320, 16560), (60, "cross_view", "all"): (37920, 18960),
          (60, "cross_subject", "mgcam"): (6720, 2760), (60, "cross_view", "mgcam"): (6320, 3160),
          (120, "cross_subject", "all"): (63360, 51120), (120, "cross_setup", "all"): (54720, 59760),
          (120, "cross_subject", "mgcam"): (6720, 2760), (120, "cross_setup", "mgcam"): (4440, 5040)}


def _release(options: Mapping[str, Any]) -> Release:
    _check(options["release"], options["split"])
    train, test = COUNTS[options["release"], options["split"], options["classes"]]
    return Release({view: kind for view, (kind, _) in VIEWS.items() if view != "depth_full"},
                   _classes(options["release"], options["classes"]), {"train": train, "test": test},
                   "Shahroudy et al., NTU RGB+D, CVPR 2016; Liu et al., NTU RGB+D 120, TPAMI 2020",
                   "on request from the ROSE Lab of NTU, Singapore")


def _is_ntu(root: Path) -> bool:
    """Whether some clip is named as NTU's."""
    return any(_FILE.fullmatch(path.name) or Clip.of(path.name) for path in scanning.some(root, _DEPTH))


@dataset("ntu_rgbd", recognize=_is_ntu, release=_release)
def read_ntu_rgbd(root: Path, *, release: Literal[60, 120] = 60, split: Split = "cross_subject", classes: Classes = "all",
                  views: Sequence[str] | None = None, missing_skeletons: str | None = None,
                  val_subjects: Sequence[str] | None = None) -> Table:
    """NTU RGB+D (60 classes, setups 1 to 17) or NTU RGB+D 120 (setups 1 to 32), as downloaded, whole or in part.

    Layout, each folder optional, and below the root or one folder deeper::

        nturgb+d_rgb/S001C001P001R001A001_rgb.avi            view rgb, 1920 x 1080, 30 frames per second
        nturgb+d_ir/S001C001P001R001A001_ir.avi              view ir, near infrared, 512 x 424
        nturgb+d_depth_masked/S001C001P001R001A001/MDepth-00000001.png    view depth, mm, black but for the people
        nturgb+d_depth/S001C001P001R001A001/Depth-00000001.png            view depth_full, mm
        nturgb+d_skeletons/S001C001P001R001A001.skeleton     view pose, (T, 50, 3) in m

    A name says setup (S), camera (C), performer (P), replication (R) and action (A). The protocols need no lists. Infrared
    and depth are of one lens and share a space; color has another field of view. The sensors are synchronous, but a clip's
    videos may differ by some frames.

    Joints are those of the two bodies that move most, 25 each, the one that moves more first; a body that a frame lacks is
    zeros (see :func:`modalift.loading.skeletons.kinect`). The clips that the file of samples with missing skeletons names
    (302, and 535 of the 120 classes) have no view ``pose`` and keep the others. It is found below the root by its name,
    ``*missing_skeletons*.txt``. Papers on joints count the other clips only: 40091 + 16487 and 37646 + 18932 of the 60 classes,
    63026 + 50919 and 54468 + 59477 of the 120.

    The MGCAM paper says "wash hair"; its Fig. 4 lists the classes A001 to A010 in their order, so that is "brushing hair". It
    does not say whether its split is cross-subject or cross-view.

    Source: Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2020.

    Args:
        root: the folder with the folders above.
        release: 60, or 120 (which includes the clips of the 60).
        split: ``cross_subject``; ``cross_view`` (release 60: camera 1 tests); ``cross_setup`` (release 120: odd setups test).
        classes: ``all``, or ``mgcam``: the first ten, as in the MGCAM+DKD paper.
        views: the views to read, of rgb, ir, depth, depth_full and pose; by default all that are there.
        missing_skeletons: the file with the samples of missing skeletons, relative to the root, if it has another name.
        val_subjects: performers (``P001``) whose training clips form a validation split.

    Raises:
        ModaliftError: no clip of the release is there, a recording is there twice, or options contradict each other.
    """
    _check(release, split)
    for view in views or ():
        if view not in VIEWS:
            raise ModaliftError(f"data.options.views: there is no view '{view}' - {nearest(view, VIEWS)}")
    found, lists, others = _find(root, release, MGCAM if classes == "mgcam" else ACTIONS[release], views)
    if not found and not others:
        raise ModaliftError(f"{root}: holds no recording named as S001C001P001R001A001_rgb.avi, _ir.avi, .skeleton, or a folder"
                            " of depth images - give the folder that holds nturgb+d_rgb, nturgb+d_ir, ...")
    if not found:
        raise ModaliftError(f"{root}: none of the clips is in NTU RGB+D {release} with these classes and views ('{others[0]}'"
                            " is not, ...) - set data.options.release=120, or change data.options")
    file = [root / missing_skeletons] if missing_skeletons else lists
    no_pose = {line.strip() for path in file for _, line in download.lines(path) if _NAME.fullmatch(line.strip())}
    rows = []
    for name in sorted(found):
        clip = Clip.of(name)
        assert clip is not None
        tracks = {view: Track(found[name][view], rate=RATE, space="kinect" if view in ("ir", "depth", "depth_full") else "")
                  for view in VIEWS if view in found[name] and not (view == "pose" and name in no_pose)}
        if tracks:
            rows.append(Row(name, clip.action - 1, f"P{clip.performer:03d}", clip.split(split), tracks,
                            {"setup": float(clip.setup), "camera": float(clip.camera), "replication": float(clip.replication)}))
    rows = assign_subjects(str(root), rows, None, val_subjects)
    names = _classes(release, classes)
    notes = []
    if dropped := sum("pose" in views_of and name in no_pose for name, views_of in found.items()):
        notes.append(f"{dropped} clips are read without pose, as the list of samples with missing skeletons names them")
    if any("pose" in row.tracks for row in rows) and not no_pose:
        notes.append("the list of samples with missing skeletons is not here: clips on it are read with what joints they have")
    kinds = {view: modality(kind, channels) for view, (kind, channels) in VIEWS.items() if any(view in r.tracks for r in rows)}
    return build_table("ntu_rgbd", names, kinds, rows, {k: k for k in range(len(names))}, notes=notes)


def _check(release: int, split: str) -> None:
    only = {"cross_view": 60, "cross_setup": 120}.get(split, release)
    if release != only:
        other = "cross_setup" if release == 120 else "cross_view"
        raise ModaliftError(f"data.options.split: {split} is of NTU RGB+D {only} - give cross_subject or {other}, or"
                            f" release={only}")


def _classes(release: int, classes: str) -> tuple[str, ...]:
    return CLASSES[:MGCAM if classes == "mgcam" else ACTIONS[release]]


def _find(root: Path, release: int, actions: int, views: Sequence[str] | None
          ) -> tuple[dict[str, dict[str, Path]], list[Path], list[str]]:
    """Clip -> view -> recording; the lists of missing skeletons; and recordings that are not of the release."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    lists: list[Path] = []
    others: list[str] = []
    masked: dict[Path, str] = {}
    for path in scanning.below(root, _DEPTH, lambda name: not _NAME.fullmatch(name)):
        if file := _FILE.fullmatch(path.name):
            name, view = file[1], "pose" if file[8] else file[7]
        elif _NAME.fullmatch(path.name):
            if path.parent not in masked:
                masked[path.parent] = _depth_view(path)
            name, view = path.name, masked[path.parent]
        else:
            if _MISSING.fullmatch(path.name):
                lists.append(path)
            continue
        clip = Clip.of(name)
        if clip is None or clip.setup > SETUPS[release] or clip.action > actions or (views is not None and view not in views):
            others.append(path.name)
        elif view:
            scanning.add(found[name], view, path)
    return found, lists, others


def _depth_view(folder: Path) -> str:
    """The view of a folder of depth images: of people only, or of the whole scene; empty for other images."""
    if "depth" in folder.parent.name.lower():
        return "depth" if "mask" in folder.parent.name.lower() else "depth_full"
    first = next((path.name for path in entries(folder)), "") if folder.is_dir() else ""
    return "depth" if first.startswith("MDepth-") else "depth_full" if first.startswith("Depth-") else ""
