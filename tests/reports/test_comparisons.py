from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from era_cnn.folders import arrays
from era_cnn.reports.comparisons import MCNEMAR, PAIRED, WELCH, Comparison, compared
from era_cnn.reports.statistics import groups
from era_cnn.reports.verdicts import MOST_SENTENCES, one_run_section, section_of, verdict
from tests.reports.made import row_of

LABELS = np.arange(1000) % 10


def of_seeds(base: Path, *settings: dict[int, float | None], **changes: Any) -> list[Comparison]:
    """Comparisons of settings, given by the accuracy of each seed, with the first of them."""
    rows = [
        row_of(base / f"{number}_{seed}", {"optimizer.lr": (number + 1) / 10, "seed": seed, **changes}, final=accuracy)
        for number, setting in enumerate(settings)
        for seed, accuracy in setting.items()
    ]
    found = groups(rows)
    return compared(found, found[0])


def single(path: Path, wrong: Sequence[int], labels: Any = LABELS, shift: int = 1, **changes: Any) -> Any:
    """The row of a run that is wrong about some of its test images."""
    predicted = labels.copy()
    predicted[list(wrong)] = (labels[list(wrong)] + shift) % 10
    row = row_of(path, changes.pop("changes", {}), final=1 - len(wrong) / len(labels), **changes)
    np.savez(path / "predictions.npz", labels=labels, predicted=predicted, logits=np.zeros((len(labels), 10)))
    return row


def of_networks(base: Path, wrong: Sequence[int], other: Sequence[int], **how: Any) -> Comparison:
    """The comparison of two single runs; `how` is about the second one, which is compared with the first."""
    found = groups([single(base / "one", wrong), single(base / "other", other, changes={"optimizer.lr": 0.5}, **how)])
    (comparison,) = compared(found, found[0])
    return comparison


def said(comparisons: Sequence[Comparison]) -> str:
    return "\n".join(section_of(comparisons, ["optimizer.lr"], "the first one").sentences)


def test_settings_with_common_seeds_are_paired(tmp_path: Path) -> None:
    """Their spread over seeds is large, that of their differences small: without pairs nothing would be seen."""
    (comparison,) = of_seeds(tmp_path, {1: 0.90, 2: 0.95, 3: 0.99}, {1: 0.911, 2: 0.959, 3: 1.0, 4: 0.1})
    assert (comparison.test, comparison.n, verdict(comparison)) == (PAIRED, (3,), "better")
    assert comparison.difference is not None
    assert comparison.difference.value == pytest.approx(0.01)
    assert (
        "optimizer.lr=0.2: better by 1.00 points (paired t over common seeds, difference +1.00, 95% interval [0.75, 1.25], p = 0.0033)."
        in said([comparison])
    )
    assert "The question answered: which setting is better over seeds?" in said([comparison])


@pytest.mark.parametrize("shared", [0, 1])
def test_settings_with_other_seeds_are_two_samples(shared: int, tmp_path: Path) -> None:
    (comparison,) = of_seeds(tmp_path, {1: 0.90, 2: 0.91, 3: 0.92}, {4 - shared: 0.95, 5: 0.96})
    assert (comparison.test, comparison.n, verdict(comparison)) == (WELCH, (2, 3), "better")
    # The variances 1e-4 / 3 and 2e-4 / 2 are those of 2.4 seeds of each with a common sd of 0.0126: d = 0.79
    (comparison,) = of_seeds(tmp_path / "x", {1: 0.90, 2: 0.91, 3: 0.92}, {4: 0.91, 5: 0.93})
    assert "optimizer.lr=0.2: not distinguishable with 2 and 3 seeds; about 27 of each would be needed" in said(
        [comparison]
    )


def test_a_difference_that_seeds_hide_comes_with_the_number_of_seeds_that_would_show_it(tmp_path: Path) -> None:
    """A difference of half its standard deviation takes 34 pairs (see `test_inference`)."""
    (comparison,) = of_seeds(tmp_path, dict.fromkeys(range(4), 0.99), {0: 0.9905, 1: 0.9895, 2: 0.9915, 3: 0.9905})
    assert comparison.difference is not None
    assert comparison.difference.value / (comparison.difference.error or 0) == pytest.approx(0.6124, abs=1e-4)
    assert comparison.seeds_needed == 23
    assert (
        "optimizer.lr=0.2: not distinguishable with 4 seeds; about 23 would be needed to detect 0.05 points "
        "with power 0.8 (paired t over common seeds, difference +0.05, 95% interval [-0.08, 0.18], p = 0.31)."
    ) in said([comparison])


def test_a_difference_that_is_next_to_nothing_would_take_too_many_seeds(tmp_path: Path) -> None:
    (comparison,) = of_seeds(tmp_path, {1: 0.90, 2: 0.95, 3: 0.91}, {1: 0.95, 2: 0.90, 3: 0.9101})
    assert comparison.seeds_needed is None
    assert "; more than 1,000 would be needed to detect 0.003 points" in said([comparison])


def test_pairs_that_do_not_help_are_reported(tmp_path: Path) -> None:
    (comparison,) = of_seeds(tmp_path, {1: 0.90, 2: 0.91, 3: 0.92}, {1: 0.93, 2: 0.92, 3: 0.90})
    assert comparison.correlation == pytest.approx(-0.98, abs=0.01)
    assert "are negatively correlated (-0.98), so pairing them makes the interval wider." in said([comparison])
    (comparison,) = of_seeds(tmp_path / "x", {1: 0.90, 2: 0.91, 3: 0.92}, {1: 0.91, 2: 0.92, 3: 0.92})
    assert "correlated" not in said([comparison])


@pytest.mark.parametrize(
    ("others", "p", "word", "finding"),
    [
        ([0.9, 0.9, 0.9], 1.0, "not distinguishable", "not distinguishable with 3 seeds (paired t over common seeds, difference +0.00, p = 1.00)."),
        ([0.91, 0.91, 0.91], None, "no test", "better by the same in each seed, and without spread there is no test (paired t"),
        ([1.0, 1.0, 1.0], None, "no test", "better by the same in each seed"),
    ],
)  # fmt: skip
def test_seeds_without_spread_say_nothing_about_chance(
    others: list[float], p: float | None, word: str, finding: str, tmp_path: Path
) -> None:
    (comparison,) = of_seeds(tmp_path, dict.fromkeys(range(3), 0.9), dict(enumerate(others)))
    assert comparison.difference is not None
    assert (comparison.difference.p, comparison.difference.interval, verdict(comparison)) == (p, None, word)
    assert finding in said([comparison])


def test_a_single_run_is_not_compared_with_several(tmp_path: Path) -> None:
    (comparison,) = of_seeds(tmp_path, {1: 0.90, 2: 0.91, 3: 0.92}, {1: 0.99})
    assert (comparison.test, comparison.difference, verdict(comparison)) == ("", None, "no test")
    assert "optimizer.lr=0.2: no test, since both settings must have at least 2 seeds, or both a single run." in said(
        [comparison]
    )


def test_seeds_that_failed_are_counted(tmp_path: Path) -> None:
    (comparison,) = of_seeds(tmp_path, {1: 0.90, 2: 0.91, 3: None}, {1: 0.99, 2: 0.98, 4: None})
    assert "2 seeds without a result are left out." in said([comparison])


def test_many_comparisons_are_adjusted_for_their_number(tmp_path: Path) -> None:
    """The second setting alone would seem to be better: one of four such comparisons is so by chance."""
    base = {1: 0.90, 2: 0.95, 3: 0.99}
    better, same = {1: 0.902, 2: 0.9525, 3: 0.9915}, {1: 0.91, 2: 0.949, 3: 0.985}
    assert verdict(of_seeds(tmp_path / "alone", base, better)[0]) == "better"
    comparisons = of_seeds(tmp_path / "all", base, better, same, same, same)
    assert [verdict(each) for each in comparisons] == ["not distinguishable"] * 4
    first = comparisons[0]
    assert first.difference is not None
    assert first.p_adjusted == pytest.approx(4 * (first.difference.p or 0))
    assert "4 comparisons: verdicts follow Holm's p" in said(comparisons)
    assert "optimizer.lr=0.2: not distinguishable with 3 seeds (paired t" in said(comparisons), "3 seeds sufficed"


def test_a_setting_among_very_many_gets_no_sentence(tmp_path: Path) -> None:
    settings = [{1: 0.9, 2: 0.91}] * (MOST_SENTENCES + 2)
    assert said(of_seeds(tmp_path, *settings)).endswith(
        f"\n0 of {MOST_SENTENCES + 1} settings differ from the baseline."
    )


def test_single_runs_are_compared_on_their_test_images(tmp_path: Path) -> None:
    comparison = of_networks(tmp_path, range(40), range(20, 60))
    assert (comparison.test, comparison.n, verdict(comparison)) == (MCNEMAR, (1000,), "not distinguishable")
    assert comparison.difference is not None
    assert (comparison.difference.value, comparison.difference.p) == (0, 1.0)
    text = said([comparison])
    assert "optimizer.lr=0.5: the two networks are not distinguishable (McNemar mid-p on 1,000 test images" in text
    assert "do these trained networks differ on these test images? Which setting is better is another question" in text
    assert "seeds?" not in text
    comparison = of_networks(tmp_path / "x", range(40), range(30))
    assert "optimizer.lr=0.5: this network is better by 1.00 points (McNemar mid-p on 1,000 test images" in said(
        [comparison]
    )


def test_a_network_and_itself_have_identical_predictions(tmp_path: Path) -> None:
    comparison = of_networks(tmp_path, range(40), range(40))
    assert (comparison.difference and comparison.difference.p, verdict(comparison)) == (1.0, "identical")
    assert "optimizer.lr=0.5: identical predictions (McNemar mid-p on 1,000 test images" in said([comparison])


def test_networks_that_are_wrong_about_the_same_images_are_not_identical(tmp_path: Path) -> None:
    comparison = of_networks(tmp_path, range(40), range(40), shift=2)
    assert (comparison.difference and comparison.difference.p, verdict(comparison)) == (1.0, "not distinguishable")


def test_perfect_networks_can_be_compared(tmp_path: Path) -> None:
    comparison = of_networks(tmp_path, [], [])
    assert (comparison.difference and comparison.difference.p, verdict(comparison)) == (1.0, "identical")


def test_networks_are_not_compared_on_other_test_images(tmp_path: Path) -> None:
    """As many, with as many of each class, in another order."""
    comparison = of_networks(tmp_path, range(40), range(30), labels=LABELS[::-1].copy())
    assert (comparison.test, verdict(comparison)) == ("", "no test")
    assert "no test, since they were tested on other images: the labels in predictions.npz differ." in said(
        [comparison]
    )


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"data.train_size": 1400}, {}),
        ({"trainer.limit_test_images": 50}, {}),
        ({}, {"data_sha256": "f" * 64}),
        ({"data.name": "mnist", "data.root": "/data", "data.train_size": None}, {}),
    ],
)
def test_settings_are_not_compared_on_other_data(changes: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    rows = [row_of(tmp_path / f"{seed}", {"seed": seed}) for seed in (1, 2)]
    rows += [row_of(tmp_path / f"other{seed}", {"seed": seed, **changes}, **more) for seed in (1, 2)]
    found = groups(rows)
    (comparison,) = compared(found, found[0])
    assert (comparison.test, verdict(comparison)) == ("", "no test")
    assert (
        comparison.reason.startswith("they may have been tested on other images: data")
        or "limit_test" in comparison.reason
    )


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"data.val_size": 100}, "data.val_size differs."),
        ({"trainer.limit_train_images": 50}, "trainer.limit_train_images differs."),
        (
            {"trainer.limit_epochs": 1, "trainer.limit_train_images": 50},
            "trainer.limit_epochs, trainer.limit_train_images differ.",
        ),
    ],
)
def test_settings_that_were_trained_on_other_images_are_compared_with_a_remark(
    changes: dict[str, Any], differing: str, tmp_path: Path
) -> None:
    rows = [row_of(tmp_path / f"{seed}", {"seed": seed}, final=0.5 + seed / 10) for seed in (1, 2)]
    rows += [row_of(tmp_path / f"other{seed}", {"seed": seed, **changes}) for seed in (1, 2)]
    found = groups(rows)
    (comparison,) = compared(found, found[0])
    assert comparison.test == PAIRED
    assert f"They were trained on other images or for fewer epochs: {differing}" in said([comparison])


def _archive(**arrays: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            file.writestr(f"{name}.npy", array)
    return content.getvalue()


def _array(array: Any, **how: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, **how)
    return content.getvalue()


def _claiming(shape: str) -> bytes:
    """An array whose header claims a shape, with the data of a small one."""
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(80)


FEW_BYTES = 2**18
"""The most that may be unpacked in that test."""

DAMAGE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "noise": lambda: np.random.default_rng(1).bytes(1000),
    "no arrays": _archive,
    "one array": lambda: _archive(labels=_array(LABELS)),
    "a pickled object": lambda: _archive(
        labels=_array(np.array([{}] * 1000), allow_pickle=True), predicted=_array(LABELS)
    ),
    "fractions": lambda: _archive(labels=_array(LABELS / 2), predicted=_array(LABELS)),
    "two axes": lambda: _archive(labels=_array(LABELS[:, None]), predicted=_array(LABELS)),
    "other lengths": lambda: _archive(labels=_array(LABELS[1:]), predicted=_array(LABELS)),
    "of another result": lambda: _archive(labels=_array(LABELS), predicted=_array(LABELS)),
    "no images": lambda: _archive(labels=_array(LABELS[:0]), predicted=_array(LABELS[:0])),
    "a huge shape": lambda: _archive(labels=_claiming(f"({2**60},)"), predicted=_array(LABELS)),
    "a negative shape": lambda: _archive(labels=_claiming("(-1,)"), predicted=_array(LABELS)),
    "a bomb": lambda: _archive(labels=_array(np.zeros(FEW_BYTES, int)), predicted=_array(np.zeros(FEW_BYTES, int))),
}


@pytest.mark.parametrize("kind", [*DAMAGE, "missing", "a link"])
def test_damaged_predictions_are_a_reason_for_no_test(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MOST_BYTES", FEW_BYTES)  # for the bomb
    rows = [single(tmp_path / "one", range(40)), single(tmp_path / "other", range(30), changes={"optimizer.lr": 0.5})]
    path = tmp_path / "other" / "predictions.npz"
    (tmp_path / "whole").write_bytes(path.read_bytes())
    path.unlink()
    if kind in DAMAGE:
        path.write_bytes(DAMAGE[kind]())
    elif kind == "a link":
        path.symlink_to(tmp_path / "whole")
    found = groups(rows)
    (comparison,) = compared(found, found[0])
    assert (comparison.test, comparison.difference) == ("", None)
    assert comparison.reason.startswith(f"{path} must hold ")
    assert one_run_section(found[1]) == []


def test_the_interval_of_a_single_run_is_named_as_what_it_is(tmp_path: Path) -> None:
    (section,) = one_run_section(groups([single(tmp_path / "one", range(50))])[0])
    (sentence,) = section.sentences
    assert sentence == (
        "Final test accuracy 95.00% of 1,000 test images, 95% Wilson interval [93.47, 96.19]: for this network on other "
        "images. It says nothing about other seeds."
    )


def test_no_number_is_nan(tmp_path: Path) -> None:
    for n in (2, 3):
        for number, values in enumerate([[1.0] * n, [0.0] * n, [1.0, *[0.0] * (n - 1)]]):
            (comparison,) = of_seeds(tmp_path / f"{n}{number}", dict.fromkeys(range(n), 1.0), dict(enumerate(values)))
            difference = comparison.difference
            assert difference is not None
            numbers = [difference.value, *(difference.interval or ()), difference.p, comparison.correlation]
            assert all(math.isfinite(each) for each in numbers if each is not None)
            assert "nan" not in said([comparison])
