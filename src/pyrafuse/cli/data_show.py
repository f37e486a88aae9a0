"""`pyrafuse data show`."""

from pathlib import Path

from pyrafuse.base.errors import check_count, unknown_name
from pyrafuse.base.paths import check_data, check_page


def show(
    source: str,
    /,
    *,
    output: Path = Path("data.html"),
    split: str | None = None,
    limit: int = 40,
    seed: int = 0,
    only: str | None = None,
    boxes: str = "auto",
) -> int:
    """Write one HTML page of a data set: objects of each class, and pictures with their boxes.

    Args:
        source: A folder or a file of any format that is read, or shapes (generated images).
        output: File of the page.
        split: Split that is shown; by default all are.
        limit: Pictures of each split; where it has more, they are drawn at random.
        seed: Seed of that draw.
        only: Class whose images are shown; by default those of all classes.
        boxes: What the numbers of a box are, as in `data check`.
    """
    check_data(source)
    check_count("limit", limit, 1)
    check_count("seed", seed)
    check_page(output, "--output")
    from pyrafuse.base.progress import create_bar
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.cli.data_writing import read_sources
    from pyrafuse.data.reading.folders import SPLIT_WORDS
    from pyrafuse.data.reading.rules import ReadingRules
    from pyrafuse.reports.data_page import describe_data

    (readings,) = read_sources([source], ReadingRules(boxes=boxes))
    data = [reading.data for reading in readings]
    if split is not None:
        wanted = SPLIT_WORDS.get(split, split)
        if wanted not in [each.split for each in data]:
            raise unknown_name("split", split, (each.split for each in data))
        data = [each for each in data if each.split == wanted]
    if only is not None and only not in data[0].names:
        raise unknown_name("class", only, data[0].names)
    with create_bar(Terminal()) as bar:
        task = bar.add_task("drawing", total=None)
        page = describe_data(
            f"Data set {source}", data, limit=limit, seed=seed, name=only,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    page.save(output)
    print(
        f"{output}: {sum(len(each) for each in data)} images, {min(limit, max(map(len, data)))} of each split at most"
    )
    return 0
