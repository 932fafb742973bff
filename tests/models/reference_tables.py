"""The layer tables of the four reference runs, row by row, as torchsummary printed them: type, shape, parameters."""

TABLES = {
    "model_1": """
        Conv2d 32 28 28 320
        Conv2d 64 28 28 18496
        MaxPool2d 64 14 14 0
        Conv2d 128 14 14 73856
        Conv2d 256 14 14 295168
        MaxPool2d 256 7 7 0
        Conv2d 512 5 5 1180160
        Conv2d 1024 3 3 4719616
        Conv2d 10 1 1 92170
    """,
    "model_2": """
        Conv2d 10 26 26 90
        ReLU 10 26 26 0
        BatchNorm2d 10 26 26 20
        Dropout 10 26 26 0
        Conv2d 32 24 24 2880
        ReLU 32 24 24 0
        BatchNorm2d 32 24 24 64
        Dropout 32 24 24 0
        Conv2d 10 22 22 2880
        ReLU 10 22 22 0
        BatchNorm2d 10 22 22 20
        Dropout 10 22 22 0
        MaxPool2d 10 11 11 0
        Conv2d 10 11 11 100
        ReLU 10 11 11 0
        Conv2d 10 9 9 900
        ReLU 10 9 9 0
        Conv2d 10 7 7 900
        ReLU 10 7 7 0
        Conv2d 10 7 7 100
        ReLU 10 7 7 0
        Conv2d 10 1 1 4900
    """,
    "model_3": """
        Conv2d 12 26 26 108
        ReLU 12 26 26 0
        BatchNorm2d 12 26 26 24
        Dropout 12 26 26 0
        Conv2d 16 24 24 1728
        ReLU 16 24 24 0
        BatchNorm2d 16 24 24 32
        Dropout 16 24 24 0
        Conv2d 12 22 22 1728
        ReLU 12 22 22 0
        BatchNorm2d 12 22 22 24
        Dropout 12 22 22 0
        MaxPool2d 12 11 11 0
        Conv2d 16 9 9 1728
        ReLU 16 9 9 0
        BatchNorm2d 16 9 9 32
        Dropout 16 9 9 0
        Conv2d 16 7 7 2304
        ReLU 16 7 7 0
        BatchNorm2d 16 7 7 32
        Dropout 16 7 7 0
        Conv2d 10 5 5 1440
        AvgPool2d 10 1 1 0
    """,
    "model_4": """
        Conv2d 8 26 26 72
        ReLU 8 26 26 0
        BatchNorm2d 8 26 26 16
        Conv2d 16 24 24 1152
        ReLU 16 24 24 0
        BatchNorm2d 16 24 24 32
        Conv2d 16 24 24 256
        Conv2d 16 22 22 2304
        ReLU 16 22 22 0
        BatchNorm2d 16 22 22 32
        Dropout 16 22 22 0
        MaxPool2d 16 11 11 0
        Conv2d 12 9 9 1728
        ReLU 12 9 9 0
        BatchNorm2d 12 9 9 24
        Conv2d 10 7 7 1080
        ReLU 10 7 7 0
        BatchNorm2d 10 7 7 20
        Dropout 10 7 7 0
        Conv2d 10 5 5 900
        AvgPool2d 10 1 1 0
    """,
}

TOTALS = {"model_1": 6_379_786, "model_2": 12_854, "model_3": 9_180, "model_4": 7_616}


def rows(name: str) -> list[tuple[str, tuple[int, int, int], int]]:
    """The rows of one table as (type, (C, H, W), parameters)."""
    lines = (line.split() for line in TABLES[name].split("\n") if line.strip())
    return [(kind, (int(c), int(h), int(w)), int(params)) for kind, c, h, w, params in lines]
