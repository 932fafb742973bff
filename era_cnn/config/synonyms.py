"""What names are called elsewhere: in PyTorch, Keras, torchvision, Albumentations, timm, and in papers.

A message about an unknown name suggests ours. Capitals and underscores do not count: `OneCycleLR` is `one_cycle_lr`.
"""

from __future__ import annotations

from collections.abc import Sequence

from era_cnn.nearest import asked, did_you_mean

OURS: dict[str, tuple[str, ...]] = {
    # Blocks
    "add": ("sum", "skip", "skip_connection", "shortcut", "plus"),
    "concat": ("cat", "concatenate", "dense_connection"),
    "conv": ("conv2d", "convolution", "conv_block", "conv_bn_relu"),
    "depthwise_separable": ("separable_conv", "separable_conv2d", "depthwise_conv2d", "depthwise", "dws_conv"),
    "gap_head": (
        "gap", "global_average_pooling", "global_average_pooling2d", "global_avg_pool", "adaptive_avg_pool2d",
        "global_pool",
    ),
    "linear": ("fc", "dense", "fully_connected", "mlp"),
    "max_pool": ("max_pool2d", "max_pooling2d", "mp"),
    "avg_pool": ("avg_pool2d", "average_pooling2d", "mean_pool"),
    "blur_pool": ("anti_alias", "max_blur_pool"),
    "norm": (
        "batch_norm", "batch_norm2d", "bn", "group_norm", "layer_norm", "normalization", "norm_type", "norm_layer",
    ),
    "residual": ("res_block", "resnet_block", "basic_block", "residual_block"),
    "scale": ("mul", "multiply", "scalar", "temperature"),
    "squeeze_excite": ("se", "se_block", "se_layer", "squeeze_and_excitation", "squeeze_excitation"),
    "transition": ("transition_block", "pointwise", "conv1x1"),
    "flatten": ("view", "reshape"),
    # Norms and activations
    "batch": ("batch_norm", "batch_norm2d", "bn"),
    "ghost_batch": ("ghost_batch_norm", "gbn", "ghost", "ghost_norm"),
    "group": ("group_norm", "gn"),
    "layer": ("layer_norm", "ln"),
    "silu": ("swish",),
    "none": ("identity", "null", "no"),
    # Initial weights
    "kaiming_normal": ("he_normal", "he", "kaiming"),
    "kaiming_uniform": ("he_uniform",),
    "kaiming_normal_fan_out": ("kaiming_fan_out", "fan_out"),
    "xavier_normal": ("glorot_normal", "xavier", "glorot"),
    "xavier_uniform": ("glorot_uniform",),
    # Augmentation
    "unaugmented_epochs": ("no_aug_epochs", "num_last_epochs", "close_mosaic"),
    # Optimizers and schedules
    "adam": ("optim_adam",),
    "adamw": ("decoupled_adam",),
    "sgd": ("momentum_sgd", "nesterov", "nesterov_sgd"),
    "one_cycle": ("one_cycle_lr", "super_convergence", "onecycle_policy"),
    "cosine": ("cosine_annealing_lr", "cosine_annealing", "cosine_lr", "cosine_decay"),
    "step": ("step_lr", "step_decay"),
    "constant": ("constant_lr", "none", "null", "fixed"),
    "plateau": ("reduce_lr_on_plateau", "reduce_on_plateau"),
    "multi_step": ("multi_step_lr", "milestones"),
    "exponential": ("exponential_lr", "exponential_decay"),
    "cyclic": ("cyclic_lr", "triangular"),
    "warm_restarts": ("cosine_annealing_warm_restarts", "sgdr"),
    "polynomial": ("polynomial_lr", "poly"),
    "piecewise_linear": ("lambda_lr", "linear_lr", "piecewise"),
    # Transforms
    "rotate": ("random_rotation", "rotation", "safe_rotate"),
    "affine": ("random_affine",),
    "shift_scale_rotate": ("random_shift_scale_rotate", "ssr"),
    "horizontal_flip": ("random_horizontal_flip", "hflip", "fliplr", "flip"),
    "vertical_flip": ("random_vertical_flip", "vflip", "flipud", "flip"),
    "random_crop": ("pad_and_crop", "pad_crop", "random_crop_with_padding", "crop"),
    "centre_crop": ("center_crop",),
    "resized_crop": ("random_resized_crop",),
    "cutout": ("coarse_dropout", "random_cutout", "grid_dropout"),
    "erase": ("random_erasing", "erasing", "random_erase"),
    "brightness": ("random_brightness", "random_brightness_contrast"),
    "contrast": ("random_contrast", "random_brightness_contrast"),
    "saturation": ("hue_saturation_value",),
    "hue": ("hue_saturation_value",),
    "colour_jitter": ("color_jitter", "random_color_jitter", "jitter"),
    "elastic": ("elastic_transform",),
    "invert": ("random_invert", "invert_img", "negative"),
    "mixup": ("mix",),
    "cutmix": ("mix",),
    "perspective": ("random_perspective",),
    "gaussian_noise": ("gauss_noise", "noise"),
    "gaussian_blur": ("gauss_blur", "blur"),
    "greyscale": ("random_grayscale", "grayscale", "to_gray"),
    # Data sets
    "mnist": ("mnist784",),
    "fashion_mnist": ("fashion", "fmnist"),
    "kmnist": ("kuzushiji", "kuzushiji_mnist"),
    "digits": ("load_digits", "sklearn_digits"),
    "cifar10": ("cifar", "cifar_ten"),
    "image_folder": ("folder", "images"),
    "npz": ("medmnist", "numpy", "arrays"),
    # Commands
    "describe": ("summary", "show", "info", "print", "inspect"),
    "eval": ("evaluate", "test", "validate", "score"),
    "predict": ("classify", "infer", "inference"),
    "explain": ("gradcam", "cam", "saliency"),
    "export": ("onnx", "convert", "save"),
    "find-lr": ("lr_finder", "lr_find", "range_test"),
    "list": ("ls", "runs", "history", "status"),
    "compare": ("diff",),
    "report": ("plot", "visualize", "visualise", "curves"),
    "replay": ("repeat", "verify", "reproduce"),
    "resume": ("continue",),
    "new": ("init", "create", "scaffold"),
    # Keys
    "root": ("path", "dir", "folder", "data_dir", "data_path", "data_root"),
    "device": ("gpu", "accelerator"),
    "cuda": ("gpu",),
    "fp32": ("float32", "full", "single"),
    "bf16": ("bfloat16", "fp16", "float16", "half", "mixed"),
    "tensorboard": ("tb", "tensor_board"),
    "wandb": ("weights_and_biases", "wb"),
    "seed": ("random_seed", "manual_seed", "random_state"),
    "patience": ("early_stopping_patience",),
    "out_channels": (
        "filters", "num_filters", "channels", "num_channels", "out_planes", "planes", "width", "out", "output_channels",
        "out_features", "units",
    ),
    "out_features": ("units", "features", "out", "num_outputs", "out_channels", "hidden"),
    "kernel_size": ("kernel", "ksize", "k", "filter_size", "size", "pool_size"),
    "pool_size": ("kernel_size", "pool_kernel"),
    "stride": ("strides",),
    "padding": ("pad",),
    "dilation": ("dilation_rate", "dilations"),
    "groups": ("num_groups",),
    "bias": ("use_bias",),
    "activation": ("act", "act_layer", "nonlinearity", "relu", "activation_fn"),
    "dropout": ("p", "drop", "dropout_rate", "drop_rate", "dropout_prob", "dropout_value", "rate", "dropout2d"),
    "dropout_channels": ("spatial_dropout", "dropout2d", "spatial_dropout2d", "channel_dropout", "feature_dropout"),
    "norm_groups": ("num_groups", "groups"),
    "norm_eps": ("eps", "epsilon", "bn_eps"),
    "norm_momentum": ("bn_momentum", "momentum"),
    "ghost_splits": ("num_splits", "splits", "ghost_batch_size"),
    "negative_slope": ("alpha", "leaky_slope", "slope"),
    "init": ("kernel_initializer", "weight_init", "initializer", "init_weights"),
    "ratio": ("reduction", "r", "rd_ratio", "reduction_ratio"),
    "inputs": ("from", "sources"),
    "input": ("from", "source"),
    "zero_init_residual": ("zero_init", "zero_gamma"),
    "probability": ("p", "prob", "always_apply"),
    "clip_grad_norm": ("clip_grad", "grad_clip", "max_norm", "gradient_clip_val", "max_grad_norm"),
    "clip_grad_value": ("clip_grad", "clip_value"),
    "ema_decay": ("ema", "model_ema", "model_ema_decay"),
    "stop_at_target": ("stop_at", "stop_early"),
    "lr": ("learning_rate", "max_lr", "base_lr", "eta"),
    "weight_decay": ("wd", "l2", "decay"),
    "betas": ("beta", "beta1", "beta2"),
    "every_epochs": ("step_size",),
    "epochs": ("num_epochs", "n_epochs", "max_epochs"),
    "batch_size": ("bs", "train_batch_size", "batch"),
    "eval_batch_size": ("test_batch_size", "val_batch_size"),
    "label_smoothing": ("smoothing",),
    "degrees": ("angle", "limit", "rotate_limit"),
    "val_size": ("val_split", "validation_split"),
    "threads": ("num_threads", "num_workers", "workers"),
    "precision": ("dtype", "amp"),
    "max_params": ("params", "max_parameters"),
    "test_accuracy": ("accuracy", "acc"),
}  # fmt: skip
"""Each of our names, with what it is called elsewhere. One may mean several of ours: those known in the place count."""


def plain(name: str) -> str:
    """A name without capitals, underscores, hyphens and spaces, in which its spellings differ."""
    return "".join(char for char in name.lower() if char.isalnum())


THEIRS: dict[str, list[str]] = {}
"""Maps each plain name from elsewhere to ours."""

for _ours, _theirs in OURS.items():
    for _name in _theirs:
        THEIRS.setdefault(plain(_name), []).append(_ours)


def suggestion(name: str, known: Sequence[str], otherwise: str, elsewhere: str = "", prefix: str = "") -> str:
    """Suggests the known names of the same meaning, or what is there elsewhere, or else the closest known name.

    Args:
        name: What was typed.
        known: The names that are possible here.
        otherwise: What to say if nothing is close.
        elsewhere: What to say if this very name is known in another place; it is more likely meant than a close one.
        prefix: What to write before each of the names, such as their section.
    """
    same = [each for each in known if plain(each) == plain(name)]
    found = same or [each for each in THEIRS.get(plain(name), []) if each in known]
    if found:
        return asked(found, prefix)
    return elsewhere or did_you_mean(name, known, otherwise, prefix)
