"""The page of a record: target, result, analysis, layer table and log. Target and analysis are a person's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

from era_cnn.errors import amount, harmless
from era_cnn.folders.record import COMPUTED_BY, Part, Record, RecordedRun
from era_cnn.reports.formats import Table, markdown, markdown_table
from era_cnn.reports.handin import layers_table, log_table, target_lines
from era_cnn.reports.marked import block, check_blocks, replaced
from era_cnn.reports.recorded import (
    counted,
    first_epoch_band,
    gained_by_choosing,
    is_met,
    of_mean,
    one_more_run,
    percents,
    place_of,
    points,
    reference_of,
    spread,
)
from era_cnn.reports.run_report import percent

NOT_WRITTEN = "Not written yet."
"""The analysis of a page on which nobody has written one."""

PARTS = ("result", "layers", "log")
"""The generated parts of a page, in their order."""

LONG = 6
"""The fewest seeds in a row that a command gives as a range."""

ACCURACIES = {
    "best test": "best_test_accuracy",
    "final test": "final_test_accuracy",
    "averaged weights": "ema_test_accuracy",
    "best training": "best_train_accuracy",
    "final training": "final_train_accuracy",
}


def record_page(record: Record, path: Path, before: str | None = None) -> str:
    """The page of a record; what a person wrote on the page `before` is kept.

    Raises:
        RunFolderError: If the marks of that page are missing or out of order.
    """
    result = "\n\n".join(_result(record))
    log = f"Seed {record.runs[0].seed}.\n\n{markdown_table(log_table(record.runs[0].log))}"
    texts = dict(zip(PARTS, (result, markdown_table(layers_table(record.network)), log), strict=True))
    page = _template(path.parent.name, record) if before is None else before
    check_blocks(path, page, texts, are_needed=True)
    return replaced(page, texts)


def commands_of(record: Record) -> list[str]:
    """The commands that train all seeds of a record again, one for each device.

    Each names its device, unless the runs are portable: `auto`, the default, takes a GPU where there is one.
    """
    runs = counted(record)
    overrides = [re.sub("=(True|False)$", lambda word: word[0].lower(), each) for each in record.overrides]  # of a job
    devices = list(dict.fromkeys(run.device for run in runs))
    if record.portable and len(devices) == 1:
        return [_command(record, overrides, runs)]
    return [
        _command(record, _on(device, overrides, record), [run for run in runs if run.device == device])
        for device in devices
    ]


def _on(device: str, overrides: Sequence[str], record: Record) -> list[str]:
    """Overrides that train on a device; CUDA graphs, where the recipe has them, are for GPUs alone."""
    alike = [each for each in overrides if _key(each) not in COMPUTED_BY]
    graphs = record.parsed.trainer.cuda_graphs
    if not graphs and "trainer.cuda_graphs" not in map(_key, overrides):
        return [*alike, f"device={device}"]
    return [*alike, f"device={device}", f"trainer.cuda_graphs={'true' if graphs and device == 'cuda' else 'false'}"]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _command(record: Record, overrides: Sequence[str], runs: Sequence[RecordedRun]) -> str:
    seeds = [run.seed for run in runs]
    words = [*record.own_files, *overrides, f"seed={_sweep_of(seeds)}"]
    if len(seeds) == 1:
        return harmless(shlex.join(["era-cnn", *words]))
    return harmless(shlex.join(["era-cnn", "-m", *words, "hydra/launcher=local"]))


def _sweep_of(seeds: Sequence[int]) -> str:
    """Seeds as a sweep over them is typed."""
    if len(seeds) >= LONG and [*seeds] == [*range(seeds[0], seeds[-1] + 1)]:
        return f"range({seeds[0]},{seeds[-1] + 1})"
    return ",".join(map(str, seeds))


def _template(name: str, record: Record) -> str:
    target = "\n".join(f"- {line}" for line in target_lines(record.parsed.target.model_dump()))
    parts = {"Target": target, "Result": block("result"), "Analysis": NOT_WRITTEN}
    parts |= {"Layers": block("layers"), "Log": block("log")}
    return "\n\n".join([f"# {markdown(name)}", *(f"## {title}\n\n{text}" for title, text in parts.items())]) + "\n"


def _result(record: Record) -> Iterator[str]:
    if record.superseded:
        yield f"**Superseded**: the command no longer trains these runs, since {markdown(record.superseded)}."
    yield markdown_table(_runs_table(record))
    yield "\n".join(f"- {line}" for line in _sentences(record))
    commands = "\n".join(commands_of(record))
    yield f"```bash\n{commands}\n```"
    yield "![Accuracy by epoch](curves.svg)"


def _runs_table(record: Record) -> Table:
    """A row for each run, then what all seeds say together, and the reference."""
    shown = {title: name for title, name in ACCURACIES.items() if getattr(record.runs[0], name) is not None}
    machines = _machines(record)
    rows = [
        [
            str(run.seed),
            *(_accuracy(run, name) for name in shown.values()),
            f"{run.seconds:,.0f}",
            str(len(run.parts)),
            ", ".join(dict.fromkeys(machines[_machine(part)] for part in run.parts)),
        ]
        for run in record.runs
    ]
    summary = {title: _summary(record, name) for title, name in shown.items()}
    labels = dict.fromkeys(label for each in summary.values() for label in each)
    rows += [[label, *(each.get(label, "") for each in summary.values()), "", "", ""] for label in labels]
    return ["seed", *shown, "seconds", "parts", "machine"], rows


def _summary(record: Record, name: str) -> dict[str, str]:
    """What all seeds say together, if there are several, and the reference's figure."""
    found, reference = spread(record, name), _reference(record, name)
    said = {}
    if found is not None and len(found.values) > 1:
        said = {"mean ± sd": str(found), "lowest": percent(min(found.values)), "highest": percent(max(found.values))}
        if (mean := of_mean(found.values)) is not None and (bounds := one_more_run(found.values)) is not None:
            said |= {"mean, 95%": percents(mean), "one more run, 95%": percents(bounds)}
    return said if reference is None else {**said, "reference": percent(reference)}


def _reference(record: Record, name: str) -> float | None:
    """The same figure of the reference run; None if there is none."""
    which, _, split = name.removesuffix("_accuracy").partition("_")
    values = [row[f"{split}_accuracy"] for row in reference_of(record)]
    return None if not values or which == "ema" else max(values) if which == "best" else values[-1]


def _sentences(record: Record) -> Iterator[str]:
    runs = counted(record)
    epochs = sorted({run.epochs for run in runs})
    lasted = amount(epochs[0], "epoch") if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]} epochs"
    sd = "; sd is the sample standard deviation" if len(runs) > 1 else ""
    yield f"{record.network.params:,} parameters, {lasted}, n = {len(runs)}{sd}."
    yield from _ended_early(runs)
    yield from _what_choosing_means(record)
    yield from _against_target(record)
    for which in ("best", "final"):
        name = f"{which}_test_accuracy"
        figure, found = _reference(record, name), spread(record, name)
        if figure is not None and found is not None:
            yield f"The reference's {which} test accuracy, {percent(figure)} in one run, {place_of(figure, found)}."
    if len(record.runs) > len(runs):
        yield "A seed that stands twice was repeated on another kind of machine; only its first run counts."
    if (band := first_epoch_band(record)) is not None:
        yield (f"After the first epoch, the training accuracy is {percents(band)} (99% interval of one more run).")
    yield from _about_machines(record)


def _ended_early(runs: Sequence[RecordedRun]) -> Iterator[str]:
    reasons = [run.end_reason for run in runs if run.end_reason]
    if reasons:
        why = "; ".join(map(markdown, dict.fromkeys(reasons)))
        yield f"{len(reasons)} of {amount(len(runs), 'seed')} ended before the last epoch: {why}."


def _what_choosing_means(record: Record) -> Iterator[str]:
    if record.watches_test:
        watched = record.parsed.trainer.watch
        yield f"The training watched {watched}, so its test accuracies are too optimistic, the final one as well."
    elif record.runs[0].best_test_accuracy is None:
        yield "The test set was looked at once, after the last epoch."
    else:
        above = f"{points(gained_by_choosing(record))} percentage points above the final one, which is not"
        yield f"The best epoch is chosen on the test set, so its accuracy is too optimistic; here it is {above}."


def _against_target(record: Record) -> Iterator[str]:
    wanted, found = record.parsed.target.test_accuracy, spread(record, "final_test_accuracy")
    if wanted is None or found is None:
        return
    is_reached = is_met(record)
    verdict = "met" if is_reached else "missed"
    # A mean below the target that two decimals round up to it
    exactly = "" if is_reached or percent(found.mean) != percent(wanted) else f" ({100 * found.mean:.4f}%)"
    interval = of_mean(found.values)
    unsure = ""
    if interval is not None and interval[0] < wanted < interval[1]:
        unsure = f", whose 95% interval, {percents(interval)}, contains it"
    if len(found.values) == 1:
        yield f"Target {percent(wanted)}: {verdict} by the final test accuracy{exactly}."
        return
    reached = sum(value >= wanted for value in found.values)
    yield (
        f"Target {percent(wanted)}: {verdict} by the mean final test accuracy{exactly}{unsure}; "
        f"{reached} of {len(found.values)} seeds reach{'es' if reached == 1 else ''} it."
    )


def _about_machines(record: Record) -> Iterator[str]:
    for about, name in _machines(record).items():
        yield f"Machine {name}: {markdown(about)}"
    code = dict.fromkeys(f"{part.code[:19]}" for run in record.runs for part in run.parts)
    shown = ", ".join(f"`{markdown(each)}`" for each in code)
    data, config = record.data_sha256[:12], record.config_sha256[:12]
    yield f"Code {shown}; SHA-256 of the data `{data}`, of the config without the seed `{config}`."


def _machines(record: Record) -> Mapping[str, str]:
    """The letters of the machines of a record, by what they are."""
    letters = (f"{'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[number % 26]}{number // 26 or ''}" for number in count())
    found = dict.fromkeys(_machine(part) for run in record.runs for part in run.parts)
    return dict(zip(found, letters, strict=False))


def _machine(part: Part) -> str:
    cores = amount(part.cores, "core") if part.cores else ""
    about = [part.processor or "an unknown processor", part.cpu_capability or "", cores]
    trained = f"{amount(part.threads, 'thread')} on {part.device}"
    versions = f"Python {part.python}, torch {part.torch}, numpy {part.numpy}, era_cnn {part.era_cnn}"
    return ", ".join([*filter(None, about), trained, versions]) + "."


def _accuracy(run: RecordedRun, name: str) -> str:
    value = getattr(run, name)
    if value is None:
        return ""
    return percent(value) + (f" ({run.best_test_epoch})" if name == "best_test_accuracy" else "")
