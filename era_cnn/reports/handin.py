"""`report.md`: a run in the form in which the exercise is handed in: target, result, analysis, layer table and log.

Target, result, table and log are generated; the analysis belongs to a person. It begins as a draft of what the numbers
say, and stays as it was written when the rest is generated anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from era_cnn.errors import amount
from era_cnn.folders.description import Description
from era_cnn.reports.content import RunContent
from era_cnn.reports.formats import Table, markdown, markdown_table
from era_cnn.reports.page import notes
from era_cnn.reports.run_report import percent

BEGIN = "<!-- analysis: yours to edit; generating the report again keeps it -->"
END = "<!-- end of the analysis -->"

OVERFITTING = 0.005
"""By how much more of the training images are right than of the test images before that counts as overfitting."""


def as_markdown(content: RunContent, before: str | None = None) -> str:
    """The page of a run.

    Args:
        content: The run.
        before: The page that is there already, whose analysis is kept.
    """
    kept = analysis_in(before) if before is not None else None
    analysis = kept if kept is not None else "\n".join(f"- {line}" for line in draft(content))
    sections = [
        f"# {markdown(content.name)}",
        *_notes(content),
        "## Target\n\n" + "\n".join(f"- {line}" for line in target_lines(content.config.get("target", {}))),
        "## Result\n\n" + "\n".join(f"- {line}" for line in _result(content)),
        f"## Analysis\n\n{BEGIN}\n{analysis}\n{END}",
    ]
    if content.description is not None:
        sections.append("## Layers\n\n" + markdown_table(layers_table(content.description)))
    if content.metrics:
        sections.append("## Log\n\n" + markdown_table(log_table(content.metrics)))
    return "\n\n".join(sections) + "\n"


def _notes(content: RunContent) -> Iterator[str]:
    """The tags, and the notes as a list; nothing without any."""
    if (found := notes(content.notes)) is None:
        return
    if found.tags:
        yield markdown(f"Tags: {', '.join(found.tags)}")
    if found.lines:
        yield "\n".join(f"- {markdown(line)}" for line in found.lines)
    yield from (markdown(each) for each in (found.more, found.damage) if each)


def analysis_in(page: str) -> str | None:
    """The analysis in a page: between its marks or, if these were removed, under its title; None without either."""
    between = re.search(f"{re.escape(BEGIN)}\n(.*?)\n?{re.escape(END)}", page, flags=re.DOTALL)
    below = re.search(r"^## Analysis\n+(.*?)\n*(?:^## (?:Layers|Log)$|\Z)", page, flags=re.DOTALL | re.MULTILINE)
    found = between or below
    return found[1] if found else None


def target_lines(target: Mapping[str, Any]) -> Iterator[str]:
    """What the section `target` of a config asks for, a line for each part of it."""
    if target.get("test_accuracy") is not None:
        yield f"{percent(target['test_accuracy'])} test accuracy"
    if target.get("max_params") is not None:
        yield f"at most {amount(target['max_params'], 'parameter')}"
    if target.get("max_epochs") is not None:
        yield f"at most {amount(target['max_epochs'], 'epoch')}"
    if not any(target.get(key) is not None for key in ("test_accuracy", "max_params", "max_epochs")):
        yield "none set"


def _result(content: RunContent) -> Iterator[str]:
    result = content.result
    if result is None:
        state = markdown(str(content.state.get("state")))
        yield f"The run is not complete: {state} after {amount(len(content.metrics), 'epoch')}."
        return
    yield f"Parameters: {result['params']:,}"
    if result["best_val_accuracy"] is not None:
        yield f"Best validation accuracy: {percent(result['best_val_accuracy'])} (epoch {result['best_val_epoch']})"
    else:
        chosen = f"epoch {result['best_test_epoch']}, chosen on the test set"
        yield f"Best test accuracy: {percent(result['best_test_accuracy'])} ({chosen})"
    yield f"Final test accuracy: {percent(result['final_test_accuracy'])} (epoch {result['epochs']})"
    yield f"Best training accuracy: {percent(result['best_train_accuracy'])}"
    if (is_met := result["target"].get("met")) is not None:
        yield f"Target: {'met' if is_met else 'not met'}"


def draft(content: RunContent) -> Iterator[str]:
    """Sentences about what the numbers say; none is an explanation, which only a person can give."""
    rows = [
        row for row in content.metrics if row.get("test_accuracy") is not None or row.get("val_accuracy") is not None
    ]
    if not rows:
        yield "No epoch was evaluated."
        return
    split = "val" if any(row.get("val_accuracy") is not None for row in rows) else "test"
    rows = [row for row in rows if row.get(f"{split}_accuracy") is not None]
    scores = [_number(row, f"{split}_accuracy") for row in rows]
    epochs = [int(_number(row, "epoch")) for row in rows]
    gaps = [_number(row, "train_accuracy") - score for row, score in zip(rows, scores, strict=True)]
    name = {"val": "validation", "test": "test"}[split]
    yield _gap(gaps[-1], name, is_harder=_makes_training_harder(content, epochs[-1]))
    yield from _overfitting(epochs, gaps, name)
    best = scores.index(max(scores))
    if best == len(scores) - 1:
        yield f"The last epoch is the best on the {name} images: a longer training may still improve it."
    else:
        rest = epochs[-1] - epochs[best]
        more = "the epoch after that did" if rest == 1 else f"the {rest} epochs after that did"
        yield f"The best epoch on the {name} images is {epochs[best]}; {more} not improve it."
    if split == "test":
        yield "The best epoch was chosen on the test set, so its accuracy is optimistic; the final one is not."


def _gap(gap: float, name: str, *, is_harder: bool) -> str:
    points = f"{100 * abs(gap):.2f} points"
    hint = " Dropout, augmentation or label smoothing lower the training accuracy itself." if is_harder else ""
    if gap > 0:
        return f"After the last epoch the training accuracy is {points} above that on the {name} images.{hint}"
    return f"After the last epoch the training accuracy is {points} below that on the {name} images.{hint}"


def _overfitting(epochs: Sequence[int], gaps: Sequence[float], name: str) -> Iterator[str]:
    beyond = [epoch for epoch, gap in zip(epochs, gaps, strict=True) if gap > OVERFITTING]
    limit = f"{100 * OVERFITTING:.1f} points"
    if beyond and beyond == epochs[-len(beyond) :]:
        yield f"It overfits from epoch {beyond[0]} on: there, the training accuracy is more than {limit} higher."
    elif beyond:
        count = f"{len(beyond)} of {amount(len(epochs), 'epoch')}"
        yield f"In {count}, the first of them epoch {beyond[0]}, the training accuracy is more than {limit} higher."
    else:
        yield f"It does not overfit: in no epoch is the training accuracy more than {limit} above the {name} accuracy."


def _makes_training_harder(content: RunContent, epoch: int) -> bool:
    """Whether the recipe lowers the training accuracy of this epoch."""
    config, trainer = content.config, content.config.get("trainer", {})
    unaugmented = trainer.get("unaugmented_epochs", 0)
    is_augmented = config.get("augmentation") and not (unaugmented and epoch > trainer["epochs"] - unaugmented)
    layers = config.get("model", {}).get("layers", {})
    has_dropout = bool(config.get("model", {}).get("dropout")) or any(each.get("dropout") for each in layers.values())
    return bool(has_dropout or is_augmented or trainer.get("label_smoothing"))


def _number(row: Mapping[str, float | None], key: str) -> float:
    value = row.get(key)
    return 0.0 if value is None else value


def layers_table(description: Description) -> Table:
    """A row for each layer, and one for the whole network."""
    rows = [
        [row.name, row.type, " × ".join(map(str, row.output_shape)), f"{row.params:,}", str(row.receptive_field)]
        for row in description.layers
    ]
    field = str(description.receptive_field)
    if rows and rows[-1][-1] != field:
        field += " before the global pooling"
    total = ["total", "", "", f"{description.params:,}", field]
    return ["layer", "type", "output", "parameters", "receptive field"], [*rows, total]


def log_table(metrics: Sequence[Mapping[str, float | None]]) -> Table:
    """A row for each epoch."""
    keys = [key for key in metrics[0] if key not in ("epoch", "seconds")]
    rows = [[f"{_number(row, 'epoch'):.0f}", *(_shown(key, row.get(key)) for key in keys)] for row in metrics]
    return ["epoch", *(key.replace("_", " ") for key in keys)], rows


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return ""
    return percent(value) if key.endswith("_accuracy") else f"{value:.6g}" if key == "lr" else f"{value:.4f}"
