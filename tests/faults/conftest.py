"""What the harness of faults starts from, and the table that it ends with."""

from pathlib import Path

import pytest
from PIL import Image
from tests.faults.fault_cases import AUDIT, TINY, Given


@pytest.fixture(scope="session")
def given(command, tmp_path_factory) -> Given:
    """A run that was trained, one that was audited, too, an image, and an archive."""
    folder = tmp_path_factory.mktemp("given")
    trained, audited, image = folder / "run", folder / "audited", folder / "image.png"
    done = command("train", "digits/natural", *TINY, "--out", trained)
    assert done.status == 0, done.stderr
    done = command("audit", trained, *AUDIT, "--out", audited)
    assert done.status == 0, done.stderr
    Image.radial_gradient("L").resize((16, 16)).save(image)
    return Given(trained, audited, image, _archive(folder / "tiny-imagenet-200"))


def _archive(root: Path) -> Path:
    """Tiny ImageNet as it is published, but tinier."""
    (root / "val" / "images").mkdir(parents=True)
    names = ("n01443537", "n01629819")
    (root / "wnids.txt").write_text("\n".join(names))
    (root / "words.txt").write_text("\n".join(f"{name}\tanimal {name[-1]}" for name in names))
    rows = []
    for number, name in enumerate(names):
        (root / "train" / name / "images").mkdir(parents=True)
        boxes = []
        for place in range(200):
            file = f"{name}_{place}.JPEG"
            color = (place, 100 * number, 50)
            Image.new("RGB", (64, 64), color).save(root / "train" / name / "images" / file)
            boxes.append(f"{file}\t1\t2\t30\t40")
        (root / "train" / name / f"{name}_boxes.txt").write_text("\n".join(boxes))
        Image.new("RGB", (64, 64)).save(root / "val" / "images" / f"val_{number}.JPEG")
        rows.append(f"val_{number}.JPEG\t{name}\t1\t2\t30\t40")
    (root / "val" / "val_annotations.txt").write_text("\n".join(rows))
    return root


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what tests have recorded as the rows of a table, whatever process they ran in."""
    reports = [r for r in terminalreporter.getreports("passed") if r.when == "call"]
    reports += terminalreporter.getreports("failed")
    rows = [value for report in reports for name, value in report.user_properties if name == "row"]
    if rows:
        terminalreporter.write_line("")
        terminalreporter.write_line("| command | interrupted by | times | ended the same |")
        terminalreporter.write_line("|---|---|---|---|")
        for row in sorted(rows):
            terminalreporter.write_line("| {} | {} | {} | {} |".format(*row[1:]))
