"""All teaching methods compared on real recordings (UTD-MHAD): depth is deployed, pose teaches.

    python benchmarks/survey.py [--data FOLDER] [--runs runs/survey] [--jobs 1] [--only ROW ...] [--epochs 40]

One seed, 40 epochs, with all labels and with a tenth of them (the other clips stay, without a label). Each cell is a
`modalift train` command of its own; finished cells are reused, so the command can be stopped and repeated. Results
so far are in benchmarks/results/survey.md. This is a preliminary comparison: methods run with their own default settings, and
one seed supports no claim.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from modalift import datasets
from modalift.derive import derive
from modalift.engine.processor import hardware
from modalift.engine.study import Cell, run_cells
from modalift.errors import ModaliftError
from modalift.loading.cache import build_cache
from modalift.models import Predictions
from modalift.recipe import load_recipe
from modalift.report.console import ConsoleMonitor

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Row:
    """One method: its recipe, the cell that trains its teacher, its deployed network, and its training length as a multiple."""

    name: str
    title: str
    recipe: str
    teacher: str = ""
    ships: str = "student"
    match: str = ""
    longer: int = 1


ROWS = (
    Row("single_depth", "labels only", "single_depth"),
    Row("matched_depth", "labels only, compute-matched to soft targets", "single_depth", match="distill_pose"),
    Row("smoothing_depth", "labels only, label smoothing", "smoothing_depth"),
    Row("self_depth", "taught by itself", "self_depth", "single_depth"),
    Row("distill_pose", "soft targets (weight 2, chosen before on a training subject)", "distill_pose", "single_pose"),
    Row("distill_long_pose", "soft targets of a teacher that trained ten times as long", "distill_pose", "single_pose_long"),
    Row("dkd_pose", "decoupled (DKD)", "dkd_pose", "single_pose"),
    Row("at_pose", "attention transfer (AT)", "at_pose", "single_pose"),
    Row("sp_pose", "similarity preserving (SP)", "sp_pose", "single_pose"),
    Row("cc_pose", "correlation congruence (CC)", "cc_pose", "single_pose"),
    Row("rkd_pose", "relational (RKD)", "rkd_pose", "single_pose"),
    Row("ccskd_pose", "channel correlation (CCSKD)", "ccskd_pose", "single_pose"),
    Row("crd_pose", "contrastive (CRD)", "crd_pose", "single_pose"),
    Row("prokt_pose", "ProKT, teacher trained jointly", "prokt_pose"),
    Row("assistant_pose", "teacher's assistant (soft targets twice)", "assistant_pose", "distill_pose"),
    Row("mtut_pose", "MTUT", "mtut_pose", ships="depth"),
    Row("mtut_without_focal_pose", "MTUT without its focal weight", "mtut_without_focal_pose", ships="depth"),
    Row("mgcam_dkd_pose", "MGCAM+DKD, as printed", "mgcam_dkd_pose", "single_pose"),
    Row("mgcam_dkd_sharp_pose", "MGCAM+DKD, attention that tells clips apart", "mgcam_dkd_sharp_pose", "single_pose"),
    Row("mtcd_pose", "MTCD, its teacher alone", "mtcd_pose", "single_pose"),
    Row("msd_pose", "MSD, reconstructing joint images", "msd_pose"),
    Row("single_lstm_depth", "labels only, with the recurrent network of the next row", "single_lstm_depth"),
    Row("segmentation_lstm_pose", "segmentation + LSTM, reconstructing joint images", "segmentation_lstm_pose"),
    Row("route_pose", "route-constrained (RCO)", "route_pose"),
    Row("finetune_depth", "pre-trained on joint images, fine-tuned", "finetune_depth", "single_pose_map"),
    Row("hallucination_pose", "hallucination", "hallucination_pose", "single_pose"),
    Row("dmcl_pose", "DMCL", "dmcl_pose", ships="depth"),
    Row("fusion_drop_pose", "late fusion with modality dropout, its depth branch", "fusion_drop_pose", ships="depth"),
    Row("fusion_late_pose", "*upper bound: depth and pose at once, late fusion*", "fusion_late_pose", ships="fusion"),
    Row("fusion_mid_pose", "*upper bound: depth and pose at once, mid fusion*", "fusion_mid_pose", ships="fusion"),
    Row("fusion_mid_drop_pose", "*the same with modality dropout*", "fusion_mid_drop_pose", ships="fusion"),
)
#: Networks that are used as teachers or for initialization only.
TRAINING_ONLY = (Row("single_pose", "*the pose teacher (training only)*", "single_pose"),
        Row("single_pose_long", "*the pose teacher, ten times as long (training only)*", "single_pose", longer=10),
        Row("single_pose_map", "*joint images (training only)*", "single_pose_map"))
SHARES = {"all": 1.0, "tenth": 0.1}
READING = "\n## Reading it\n"


def cell(row: Row, share: str, folder: Path, data: Path, epochs: int) -> Cell:
    own = [f"data.root={data}", f"data.cache={folder / 'cache'}", f"data.labeled={SHARES[share]}",
           f"optim.epochs={epochs * row.longer}"]
    if row.teacher:
        role = "student" if row.name == "finetune_depth" else "teacher"
        own.append(f"networks.{role}.init={folder / share / row.teacher / 'seed0'}")
    match = str(folder / share / row.match / "seed0") if row.match else ""
    return Cell(row.name, f"utd_mhad/{row.recipe}", 0, 0, 0, tuple(own), match)


def rounds(rows: Sequence[Row]) -> list[list[Row]]:
    """Rounds of training: teachers first, then their students, then students of these and compute-matched baselines."""
    known = {r.name: r for r in (*TRAINING_ONLY, *ROWS)}

    def depth(row: Row) -> int:
        return max((1 + depth(known[n]) for n in (row.teacher, row.match) if n), default=0)

    wanted = {r.name: r for r in rows}
    for row in list(wanted.values()):
        for name in (row.teacher, row.match, known[row.teacher].teacher if row.teacher else ""):
            if name:
                wanted.setdefault(name, known[name])
                if known[name].teacher:
                    wanted.setdefault(known[name].teacher, known[known[name].teacher])
    return [[r for r in wanted.values() if depth(r) == level] for level in range(4)]


def figure(row: Row, share: str, folder: Path, data: Path, epochs: int) -> tuple[str, str, str]:
    """Accuracy, tera multiply-accumulates and seconds of a cell; dashes if it was not trained yet."""
    run = cell(row, share, folder, data, epochs).run(folder / share)
    try:
        found = Predictions.load(run.predictions_path(row.ships, "test"))
    except (ModaliftError, OSError):
        return "-", "-", "-"
    spent = run.compute()
    return f"{100 * float(found.correct.mean()):.1f}", f"{spent['training_macs'] / 1e12:.1f}", f"{spent['seconds']:.0f}"


def write(folder: Path, data: Path, epochs: int, clips: int) -> None:
    figures = {row.title: [x for share in SHARES for x in figure(row, share, folder, data, epochs)]
               for row in (*TRAINING_ONLY, *ROWS)}
    lacking = any("-" in cells for cells in figures.values())
    lines = ["# A survey of teaching methods", "",
             "Made by `python benchmarks/survey.py`: UTD-MHAD, official cross-subject split, a depth network of 116 thousand"
             f" parameters is deployed, a pose network teaches. One seed, {epochs} epochs (the pose teacher too), {clips} test"
             " clips, so differences of less than about four points are not significant. Methods use their"
             " published or usual weights; only the weight of soft targets and the phases of segmentation + LSTM"
             " were chosen, on a training subject. One seed supports no claim.", "",
             f"{hardware(environment_paths=sorted(folder.rglob('environment.json')))} Cost: multiply-accumulates of"
             " the training, including that of the teachers; seconds on a machine with other load.", "",
             *(["Unfinished: a dash is a cell that is not trained yet; repeat the command to continue.", ""]
               if lacking else []),
             "| method | all labels: top-1 % | tera MACs | s | a tenth: top-1 % | tera MACs | s |",
             "|---|---|---|---|---|---|---|"]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in figures.items()]
    page = HERE / "results" / "survey.md"
    read = page.read_text().partition(READING)[2] if page.is_file() else ""  # keep text that was written by hand
    page.write_text("\n".join(lines) + "\n" + (READING + read if read else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parent / "../shared/data/utd_mhad_depth")
    parser.add_argument("--runs", type=Path, default=Path("runs/survey"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=[], choices=[r.name for r in (*TRAINING_ONLY, *ROWS)], metavar="ROW")
    parser.add_argument("--share", nargs="*", default=list(SHARES), choices=list(SHARES))
    given = parser.parse_args()
    console, folder = Console(stderr=True), given.runs.resolve()
    data = folder / "data"
    if not (data / "manifest.csv").is_file():
        derive("pose_map", datasets.open("csv", given.data), data)
    table = datasets.open("csv", data)
    if not (folder / "cache").is_dir():
        build_cache(table, folder / "cache", ["depth", "pose", "pose_map"])
    clips = len(table.split("test"))
    rows = [r for r in (*TRAINING_ONLY, *ROWS) if not given.only or r.name in given.only]
    for share in given.share:
        for level in rounds(rows):
            for row in level:  # write the table after every cell
                made = cell(row, share, folder, data, given.epochs)
                load_recipe(made.recipe, made.overrides)
                run_cells([made], folder / share, jobs=given.jobs, monitor=ConsoleMonitor(console))
                write(folder, data, given.epochs, clips)


if __name__ == "__main__":
    main()
