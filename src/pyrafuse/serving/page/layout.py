"""The page's layout, in Gradio: components, and which function of this folder answers which event.

Gradio is imported when the page is made, after it was told to report nothing to anybody.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.printable import counted, printable
from pyrafuse.data.checks.report import SEVERITIES
from pyrafuse.serving.page import detecting, trainings
from pyrafuse.serving.page.browsing import ALL, PAGE, DataBrowser
from pyrafuse.serving.page.detecting import LEAST_SCORE, Seen
from pyrafuse.serving.service import Service

NO_OTHER = "none"
COLUMNS = ("class", "score", "level", "x1", "y1", "x2", "y2")
FAULTS = ("severity", "fault", "file", "found", "remedy")
RUNS = ("training", "state", "epochs", "AP, %", "AP50, %", "data")
TABS = 200
"""So many tabs are remembered, the latest used; an older one begins anew. Each takes two or three megabytes."""

EVENTS_OF_TAB = 8
"""So many events of each tab may wait: a tab that opens asks for all of its parts at once."""

BUTTONS = ["download", "fullscreen"]
"""What a picture offers: nothing that would send it away."""

STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; padding: 1rem !important }
#title h1 { margin: 0; font-size: 1.35rem } #title p { margin: 0; color: var(--body-text-color-subdued) }
footer { display: none !important } #picture img, #picture-2 img { cursor: crosshair }
#gallery .grid-wrap, #samples .grid-wrap { max-height: none !important }
.gradio-container > .main { padding: .5rem 0 !important }
.rows { overflow: auto; max-height: 26rem; max-width: calc(100vw - 4rem); border-radius: 6px;
  border: 1px solid var(--border-color-primary) }
.rows table { border-collapse: collapse; border: 0 !important; width: 100%; margin: 0; font-size: .9rem;
  font-variant-numeric: tabular-nums }
.rows thead, .rows tbody, .rows tr { border: 0 !important }
.rows th, .rows td { text-align: left; vertical-align: top; padding: .35rem .6rem; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important }
.rows th, .rows td:nth-child(-n+3) { white-space: nowrap } #faults td:nth-child(n+4) { min-width: 14rem }
.rows th { position: sticky; top: 0; font-weight: 500; color: var(--body-text-color-subdued);
  background: var(--background-fill-secondary) }
@media (max-width: 640px) { #gallery .grid-container { grid-template-columns: 1fr 1fr !important }
  #samples .grid-container { grid-template-columns: 1fr !important } }
"""


def import_gradio() -> Any:
    """Gradio, which then neither counts its users nor looks for a later version of itself."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return import_module("gradio")


def mount_page(app: FastAPI, service: Service, *, data: str | None, runs: Path, score: float) -> FastAPI:
    """Put the page at ``/`` of ``app``, behind its own routes.

    Args:
        app: Routes of ``service``.
        service: The detectors.
        data: A data set to look through; None for none.
        runs: Folder of trainings.
        score: First value of the score threshold's slider, 0..1.
    """
    gr = import_gradio()
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # of the reader's system
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", **fonts)
    with gr.Blocks(title="pyrafuse", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown("# pyrafuse\nEverything stays on this machine.", elem_id="title")
        if service.batchers:
            with gr.Tab("Detect"):
                _add_detecting(gr, service, score)
        if data is not None:
            with gr.Tab("Data"):
                _add_data(gr, page, DataBrowser(data))
        with gr.Tab("Trainings"):
            _add_trainings(gr, page, runs)
    page.state_session_capacity = TABS
    page.queue(default_concurrency_limit=2, max_size=EVENTS_OF_TAB * service.limits.concurrency)
    return gr.mount_gradio_app(
        app, page, path="/", theme=theme, css=STYLE, max_file_size=service.limits.max_bytes, ssr_mode=False, pwa=False,
        footer_links=[], enable_monitoring=False,
    )  # fmt: skip


def _add_detecting(gr: Any, service: Service, score: float) -> None:
    names = list(service.batchers)
    first_seen, second_seen = gr.State(time_to_live=3600), gr.State(time_to_live=3600)
    with gr.Row():
        with gr.Column(scale=1, min_width=240):
            files = gr.File(label="Images", file_count="multiple", elem_id="files", height=140)
            image = gr.Dropdown([], label="Image", visible=False, elem_id="image")
            slider = gr.Slider(LEAST_SCORE, 1, max(score, LEAST_SCORE), step=0.01, label="Least score", elem_id="score")
            model = gr.Dropdown(names, value=names[0], label="Model", elem_id="model", visible=len(names) > 1)
            other = gr.Dropdown(
                [NO_OTHER, *names], value=NO_OTHER, label="Side by side with", elem_id="other", visible=len(names) > 1
            )
        with gr.Column(scale=3, min_width=240):
            message = gr.Markdown("Drop images at the left.", elem_id="message")
            with gr.Row():
                with gr.Column(min_width=240):
                    picture = gr.Image(
                        show_label=False, interactive=False, elem_id="picture", buttons=BUTTONS, visible=False
                    )
                    told = gr.HTML(elem_id="told", padding=False)
                with gr.Column(min_width=240, visible=False) as beside:
                    second_picture = gr.Image(show_label=False, interactive=False, elem_id="picture-2", buttons=BUTTONS)
                    second_told = gr.HTML(elem_id="told-2", padding=False)
            table = gr.HTML(elem_id="table", padding=False)
    fusion = gr.Image(show_label=False, interactive=False, visible=False, elem_id="fusion", buttons=BUTTONS)
    cams = gr.Image(show_label=False, interactive=False, visible=False, elem_id="cams", buttons=BUTTONS)
    shown = [picture, told, beside, second_picture, second_told, table, message]

    def read(path: str) -> NDArray[np.uint8]:
        return detecting.read_upload(path, max_bytes=service.limits.max_bytes, max_pixels=service.limits.max_pixels)

    def hide(reason: str) -> list[Any]:
        return [gr.update(visible=False), "", gr.update(visible=False), None, "", "", reason]

    def show(first: Seen, second: Seen | None, least: float, pixels: NDArray[np.uint8]) -> list[Any]:
        head = f"**{printable(first.name, limit=80)}**"
        hint = "" if not len(first.above(least)) else ": click an object to see what was fused for it"
        pair = (None, "") if second is None else (detecting.draw(second, pixels, least), _tell(second, least, True))
        return [
            gr.update(value=detecting.draw(first, pixels, least), visible=True),
            _tell(first, least, second is not None),
            gr.update(visible=second is not None),
            *pair,
            write_table(COLUMNS, detecting.table(first, least)),
            head + hint,
        ]

    def choose(paths: list[str] | None) -> Any:
        choices = [(Path(path).name, path) for path in paths or ()]
        return gr.update(choices=choices, value=choices[0][1] if choices else None, visible=len(choices) > 1)

    def look(path: str | None, name: str, second: str, least: float) -> list[Any]:
        hidden = [gr.update(visible=False)] * 2
        if not path:
            return [None, None, *hide(""), *hidden]
        try:
            pixels = read(path)
            seen = [detecting.look(service, each, path, pixels) for each in (name, second) if each != NO_OTHER]
            both = [*seen, None][:2]
            return [*both, *show(seen[0], both[1], least, pixels), *hidden]
        except (PyrafuseError, TimeoutError, MemoryError) as error:
            return [None, None, *hide(_complain(error)), *hidden]

    def slide(first: Seen | None, second: Seen | None, least: float) -> list[Any]:
        try:
            return hide("") if first is None else show(first, second, least, read(first.path))
        except (PyrafuseError, MemoryError) as error:
            return hide(_complain(error))

    def explain_first(seen: Seen | None, least: float, event: Any) -> list[Any]:
        hidden = [gr.update(visible=False)] * 2
        row = None if seen is None else detecting.find_at(seen.above(least), *event.index[:2])
        if seen is None or row is None:
            return [*hidden, "No object is there: click inside a box."]
        try:
            made = detecting.explain(service, seen, read(seen.path), row)
        except (PyrafuseError, TimeoutError) as error:
            return [*hidden, _complain(error)]
        pictures = [gr.update(value=png and _decode(png), visible=png is not None) for png in made]
        name, level = seen.found.class_names[row], seen.level_of(seen.found.levels.tolist()[row])
        return [*pictures, f"**{printable(name, limit=60)}**, found at {level}: see below what was fused for it"]

    explain_first.__annotations__["event"] = gr.SelectData
    inputs = [image, model, other, slider]
    outputs = [first_seen, second_seen, *shown, fusion, cams]
    files.change(choose, files, image).then(look, inputs, outputs)
    for component in (image, model, other):
        component.input(look, inputs, outputs)
    slider.change(slide, [first_seen, second_seen, slider], shown, trigger_mode="always_last", show_progress="hidden")
    picture.select(explain_first, [first_seen, slider], [fusion, cams, message])
    second_picture.select(explain_first, [second_seen, slider], [fusion, cams, message])


def _add_data(gr: Any, page: Any, browser: DataBrowser) -> None:
    with gr.Row():
        split = gr.Radio(["train", "val"], value="train", label="Split", elem_id="split")
        name = gr.Dropdown([ALL], value=ALL, label="Class", elem_id="class")
        kind = gr.Dropdown([ALL], value=ALL, label="Fault", elem_id="kind")
        number = gr.Number(1, label="Page", precision=0, minimum=1, elem_id="page")
    message = gr.Markdown(elem_id="data-message")
    gallery = gr.Gallery(
        columns=3, height="auto", object_fit="contain", show_label=False, elem_id="gallery", buttons=BUTTONS
    )
    button = gr.Button("Check the data set for faults", elem_id="check", size="md")
    faults = gr.HTML(elem_id="faults", padding=False)

    def show(which: str, label: str, fault: str, at: float | None) -> list[Any]:
        try:
            records = browser.choose(which, label, fault)
            pages = max(1, -(-len(records) // PAGE))
            at = min(max(int(at or 1), 1), pages)
            told = f"{counted(len(records), 'image')}, page {at} of {pages}"
            return [browser.page(records, at), told, list_faults(fault)]
        except PyrafuseError as error:
            return [[], _complain(error), ""]

    def begin() -> Any:
        try:
            return gr.update(choices=browser.classes)
        except PyrafuseError:
            return gr.update(choices=[ALL])

    def check(progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008  # Gradio looks for it among the defaults
        try:
            report = browser.check(lambda done, total: progress((done, total), desc="decoding images"))
        except PyrafuseError as error:
            return [gr.update(), gr.update(), _complain(error)]
        found = Counter(problem.severity for problem in report.problems)
        told = ", ".join(counted(found[severity], severity) for severity in SEVERITIES)
        return [gr.update(choices=browser.kinds()), list_faults(ALL), f"{report.finding}: {told}"]

    def list_faults(fault: str) -> str:
        return write_table(FAULTS, browser.faults(fault)) if browser.is_checked else ""

    inputs, outputs = [split, name, kind, number], [gallery, message, faults]
    for component in (split, name, kind):
        component.input(lambda: 1, None, number).then(show, inputs, outputs)
    number.input(show, inputs, outputs)
    page.load(begin, None, name).then(show, inputs, outputs)
    button.click(check, None, [kind, faults, message])


def _add_trainings(gr: Any, page: Any, folder: Path) -> None:
    message = gr.Markdown(elem_id="runs-message")
    table = gr.HTML(elem_id="runs", padding=False)
    run = gr.Dropdown([], label="Training", elem_id="run")
    curves = gr.Image(show_label=False, interactive=False, elem_id="curves", buttons=BUTTONS)
    button = gr.Button("Show what its best checkpoint finds in validation images", elem_id="sample", size="md")
    samples = gr.Gallery(
        columns=2,
        height="auto",
        object_fit="contain",
        show_label=False,
        visible=False,
        elem_id="samples",
        buttons=BUTTONS,
    )
    timer = gr.Timer(10)

    def refresh(chosen: str | None) -> list[Any]:
        runs = trainings.list_runs(folder)
        names = [str(each.relative_to(folder)) for each in runs]
        chosen = chosen if chosen in names else next(iter(names), None)
        told = "" if names else f"There is no training in {printable(folder)} yet; give its folder as --runs"
        return [
            write_table(RUNS, trainings.summarize(runs, folder)),
            gr.update(choices=names, value=chosen),
            told,
            *draw(chosen),
        ]

    def draw(chosen: str | None) -> list[Any]:
        return [_attempt(lambda: _decode(trainings.draw_curves(_inside(folder, chosen)))) if chosen else None]

    def sample(chosen: str | None) -> list[Any]:
        try:
            made = trainings.sample_predictions(_inside(folder, chosen or ""))
            return [gr.update(value=made, visible=True), ""]
        except PyrafuseError as error:
            return [gr.update(visible=False), _complain(error)]

    outputs = [table, run, message, curves]
    page.load(refresh, run, outputs)
    timer.tick(refresh, run, outputs, show_progress="hidden")
    run.input(draw, run, curves).then(lambda: gr.update(visible=False), None, samples)
    button.click(sample, run, [samples, message])


def write_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as HTML that scrolls where it is too wide or too long."""
    top = "".join(f"<th>{escape(word)}</th>" for word in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="rows"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _inside(folder: Path, name: str) -> Path:
    """The training called ``name`` in ``folder``.

    Raises:
        PyrafuseError: If there is none: nothing else on this machine is read.
    """
    run = next((run for run in trainings.list_runs(folder) if str(run.relative_to(folder)) == name), None)
    if run is None:
        raise PyrafuseError(f"there is no training {printable(name, limit=80)!r}: choose one of the table")
    return run


def _attempt(make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8] | None:
    try:
        return make()
    except PyrafuseError:
        return None


def _tell(seen: Seen, least: float, is_pair: bool) -> str:
    text = detecting.tell(seen, least)
    return f"<b>{printable(seen.model, limit=60)}</b>: {text}" if is_pair else text


def _complain(error: BaseException) -> str:
    slow = "it takes too long: try a smaller image" if isinstance(error, TimeoutError) else "there is no memory left"
    return f"⚠ {printable(str(error) or slow, limit=400)}"


def _decode(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))
