from __future__ import annotations

import torch
import torch.nn.functional as F

from era_cnn.data.digits import read_digits


def test_digits_are_split_by_index_and_scaled_alike_everywhere() -> None:
    arrays = read_digits(1437)
    assert arrays.train_images.shape == (1437, 28, 28)
    assert arrays.test_images.shape == (360, 28, 28)
    assert (
        arrays.sha256 == "4be44c0d0f390f9dc629788902fb11a6d40923f1d476ccaf9edcfe1061ceffa6"
    )  # whole numbers throughout: the same on any machine
    assert round(float(arrays.train_images.mean()) / 255, 4) == 0.3054
    assert round(float(arrays.train_images.std()) / 255, 4) == 0.3238


def test_digits_are_scaled_bilinearly() -> None:
    from sklearn.datasets import load_digits

    small = torch.from_numpy(load_digits().images).unsqueeze(1)
    scaled = F.interpolate(small, (28, 28), mode="bilinear", align_corners=False).squeeze(1) * 255 / 16
    ours = torch.from_numpy(read_digits(1000).train_images).double()
    assert (scaled[:1000] - ours).abs().max() <= 0.5 + 1e-9


def test_the_labels_of_digits_stay_with_their_images() -> None:
    from sklearn.datasets import load_digits

    arrays = read_digits(1437)
    assert [*arrays.train_labels, *arrays.test_labels] == load_digits().target.tolist()
