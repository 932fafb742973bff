"""Classifies images with model.onnx: `python run_onnx.py IMAGE…`. Needs onnxruntime, numpy and Pillow alone."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FOLDER = Path(__file__).parent
about = json.loads((FOLDER / "export.json").read_text(encoding="utf-8"))
_, channels, height, width = about["input"]["shape"]
session = onnxruntime.InferenceSession(FOLDER / "model.onnx", providers=["CPUExecutionProvider"])
for path in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)
    images = pixels.reshape(1, height, width, channels).transpose(0, 3, 1, 2)
    (logits,) = session.run(["logits"], {"images": images})[0]
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(f"{path}: {about['class_names'][scores.argmax()]} ({scores.max():.1%})")
