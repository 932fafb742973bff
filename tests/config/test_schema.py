from __future__ import annotations

import pytest
import yaml

from era_cnn.compose.composition import compose
from era_cnn.compose.words import Words
from era_cnn.config.groups import LISTED
from era_cnn.config.parsing import parse
from era_cnn.errors import ConfigError
from era_cnn.sweeps.options import sweep_options
from tests.conftest import CONF_DIR, EXPERIMENTS, config_of, option
from tests.helpers import data_for

FILES = sorted(CONF_DIR.rglob("*.yaml"))
OPTIONS = [path for path in FILES if path.parent != CONF_DIR and "hydra" not in path.parts]
GROUPS = ["augmentation", "data", "experiment", "logger", "model", "optimizer", "scheduler", "sweep", "trainer"]


def test_every_yaml_file_is_reached() -> None:
    groups = {path.relative_to(CONF_DIR).parts[0] for path in OPTIONS}
    assert sorted(groups) == GROUPS
    rest = {path.relative_to(CONF_DIR).as_posix() for path in FILES} - {
        path.relative_to(CONF_DIR).as_posix() for path in OPTIONS
    }
    launchers = {f"hydra/launcher/{name}.yaml" for name in ("local", "ray_cluster", "slurm", "submitit_local")}
    assert rest == {"config.yaml", "hydra/help/era_cnn.yaml", "hydra/sweeper/optuna.yaml", *launchers}


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.relative_to(CONF_DIR).as_posix())
def test_a_file_is_named_after_the_name_that_it_sets(path) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name in LISTED:  # a mapping of entries by name
        assert list(values) == ([] if path.stem == "none" else [path.stem])
        return
    assert values.get("sweep", values)["name"] in (path.stem, "${model.name}")


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.relative_to(CONF_DIR).as_posix())
def test_every_option_can_be_chosen(path) -> None:
    group = path.parent.name
    with data_for(path.stem) as words:
        config = config_of(*option(group, path.stem), *words)
    if group == "sweep":  # which is no part of a run
        chosen = sweep_options(compose(Words([f"sweep={path.stem}"]))).sweep.name
    elif group in LISTED:
        chosen = next(iter(getattr(config, group).chosen()), "none")
    else:
        chosen = config.name if group == "experiment" else getattr(config, group).name
    assert chosen == path.stem


# The reference runs' recipes: parameters, epochs, batch size, augmentation, schedule, dropout.
RECIPES = {
    "model_1": (20, 128, [], "constant", 0.0),
    "model_2": (20, 128, [], "constant", 0.1),
    "model_3_plain": (20, 64, [], "constant", 0.1),
    "model_3": (20, 64, ["rotate"], "step", 0.1),
    "model_4_dropout25": (15, 64, ["rotate"], "step", 0.25),
    "model_4": (15, 64, ["rotate"], "step", 0.1),
}


@pytest.mark.parametrize("experiment", RECIPES)
def test_the_reference_recipes(experiment: str) -> None:
    config = config_of(f"experiment={experiment}")
    recipe = (
        config.trainer.epochs,
        config.trainer.batch_size,
        list(config.augmentation.chosen()),
        config.scheduler.name,
        config.model.dropout,
    )
    assert recipe == RECIPES[experiment]
    assert config.optimizer.model_dump() == {
        "name": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "weight_decay_on": "all",
        "nesterov": False,
        "dampening": 0.0,
    }
    assert (config.data.name, config.data.mean, config.data.std, config.seed) == ("mnist", [0.1307], [0.3081], 1)
    if config.augmentation.chosen():
        assert config.augmentation.model_dump(exclude_defaults=True) == {"rotate": {"degrees": 7.0, "fill": 1}}
    if config.scheduler.name == "step":
        recipe = {"name": "step", "every_epochs": 6.0, "gamma": 0.1}
        assert config.scheduler.model_dump() == {**recipe, "update": "step", "warmup_epochs": 0.0}


def test_every_experiment_states_a_target() -> None:
    assert set(RECIPES) < set(EXPERIMENTS)
    for experiment in EXPERIMENTS:
        target = config_of(f"experiment={experiment}").target
        assert target.max_epochs is not None, experiment


def test_a_run_without_a_full_batch_is_not_compiled() -> None:
    rule = "must be false without a full batch: there are 60,000 training images, got true"
    with pytest.raises(ConfigError, match=f"trainer.compile {rule}. Remove it, or lower trainer.batch_size"):
        config_of("trainer.compile=true", "trainer.batch_size=60001")


def test_the_default_experiment_is_model_4() -> None:
    assert config_of() == config_of("experiment=model_4")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=0", "optimizer.lr must be greater than 0, got 0. Give the learning rate, greater than 0."),
        ("optimizer.lr=abc", "optimizer.lr must be a number, got 'abc'. Give the learning rate"),
        ("optimizer.lr=nan", "optimizer.lr must be a finite number, got nan."),
        ("optimizer.lr=inf", "optimizer.lr must be a finite number, got inf."),
        ("optimizer.lr=null", "optimizer.lr must be a number, got null."),
        ("optimizer.lr=[1]", "optimizer.lr must be a number, got [1]."),
        ("optimizer.momentum=1", "optimizer.momentum must be less than 1, got 1. Give the momentum, in [0, 1)."),
        ("optimizer.nesterov=1", "optimizer.nesterov must be true or false, got 1."),
        ("optimizer.name=sgdd", "optimizer.name must be one of adadelta, adagrad, adam, adamw, muon, nadam, radam, rmsprop, sgd, got 'sgdd'. Did you mean sgd?"),
        ("~optimizer.lr", "~optimizer.lr must not remove what a run needs, got a deletion. Leave it out, or give another value: optimizer.lr=…"),
        ("~optimizer.name", "~optimizer.name must not remove what a run needs, got a deletion. Leave it out, or give"),
        ("~seed", "~seed must not remove what a run needs, got a deletion. Leave it out, or give another value: seed=…"),
        ("~portable", "~portable must not remove what a run needs, got a deletion. Leave it out, or give another value: portable=…"),
        ("~model", "~model must not remove what a run needs, got a deletion. Leave it out, or give another value: model=…"),
        ("+optimizer.beta=1", "optimizer.beta must be a key of optimizer (name, lr, momentum, dampening, weight_decay"),
        ("+optimzer=1", "optimzer must be a key of the config (name, seed, device,"),
        ("optimizer.nesterov=true optimizer.momentum=0", "optimizer.nesterov must be false without momentum, got true"),
        ("optimizer.dampening=0.1 optimizer.momentum=0", "optimizer.dampening must be 0 without momentum, got 0.1. Set"),
        ("optimizer.dampening=0.1 optimizer.nesterov=true", "optimizer.dampening must be 0 with Nesterov's momentum, got 0.1."),
        ("optimizer=adam optimizer.betas=[0.9]", "optimizer.betas must have at least 2 entries, got [0.9]."),
        ("optimizer=adam optimizer.betas=[0.9,1]", "optimizer.betas.1 must be less than 1, got 1."),
        ("optimizer=adam optimizer.betas=[0,0,0]", "optimizer.betas must have at most 2 entries"),
        ("portable=true threads=1 optimizer=muon", "optimizer must be another one with portable=true: Muon computes in bfloat16, got 'muon'."),
        ("trainer.epochs=1.5", "trainer.epochs must be a whole number, got 1.5. Give the number of passes"),
        ("trainer.epochs=true", "trainer.epochs must be a whole number, got true."),
        ("trainer.epochs=0", "trainer.epochs must be at least 1, got 0."),
        ("trainer.batch_size=99999999999", "trainer.batch_size must be at most 2.14748e+09, got 99999999999."),
        ("trainer.epochs=16", "trainer.epochs must be at most 15, the target of model_4, got 16. Lower it"),
        ("seed=-1", "seed must be at least 0, got -1."),
        ("threads=0", "threads must be at least 1, got 0."),
        ("precision=fp16", "precision must be one of fp32, bf16, got 'fp16'."),
        ("trainer.cuda_graphs=true", "trainer.cuda_graphs must be false unless device is cuda, got true. Set device=cuda."),
        ("device=gpu", "device must be one of auto, cpu, cuda, mps, got 'gpu'."),
        ("name=a/b", "name must be a name, got 'a/b'. Give letters, digits, _, - and . only."),
        ("name=3", "name must be a string, got 3."),
        ("data.root=''", "data.root must not be empty, got ''. Give the folder that holds the data sets"),
        ("data.val_size=5", "data.val_size must be 0, or from 10 to 59,990"),
        ("data.val_size=60000", "data.val_size must be 0, or from 10 to 59,990"),
        ("data=digits data.train_size=1797", "data.train_size must be at most 1,697, got 1797."),
        ("model.dropout=1", "model.dropout must be less than 1, got 1."),
        ("model.order=[conv,norm,norm,dropout]", "model.order must name every part once"),
        ("model.layers=null", "model.layers must be a mapping, got null."),
        ("model.layers.conv1=null", "model.layers.conv1 must be a mapping, got null."),
        ("scheduler=one_cycle scheduler.warmup_epochs=15", "scheduler.warmup_epochs must be shorter than trainer.epochs"),
        ("scheduler=plateau", "trainer.watch must be a value that the scheduler can watch, and there are no validation images, got 'val_loss'. Set data.val_size=…, trainer.watch=train_loss or, to choose on the test set, trainer.watch=test_loss."),
        ("trainer.early_stopping.patience=3 trainer.watch=val_accuracy", "trainer.watch must be a value that trainer.early_stopping can watch"),
        ("trainer.stop_at_target=true", "trainer.watch must be a value that trainer.stop_at_target can watch"),
        ("trainer.stop_at_target=true trainer.watch=test_loss target.test_accuracy=null", "trainer.stop_at_target must be false without target.test_accuracy, got true. Set"),
        ("trainer.watch=test_loss", "trainer.watch must be val_loss, since nothing watches it, got 'test_loss'. Set scheduler=plateau or"),
        ("trainer.watch=loss", "trainer.watch must be one of val_loss, val_accuracy, train_loss, train_accuracy, test_loss, test_accuracy, got 'loss'."),
        ("trainer.early_stopping.patience=0", "trainer.early_stopping.patience must be at least 1, got 0. Give the evaluations in a row"),
        ("trainer.early_stopping.min_delta=0.1", "trainer.early_stopping.min_delta must be left out without trainer.early_stopping.patience, got 0.1."),
        ("trainer.early_stopping.min_epochs=3", "trainer.early_stopping.min_epochs must be left out without trainer.early_stopping.patience, got 3."),
        ("trainer.early_stopping=3", "trainer.early_stopping must be a mapping, got 3. Give a mapping, such as {patience: 5}"),
        ("trainer.clip_grad_norm=0", "trainer.clip_grad_norm must be greater than 0, got 0. Give the largest norm of all gradients"),
        ("trainer.clip_grad_value=-1", "trainer.clip_grad_value must be greater than 0, got -1."),
        ("trainer.repeat_train_images=0", "trainer.repeat_train_images must be at least 1, got 0. Give how often each training"),
        ("trainer.required_train_accuracy=100", "trainer.required_train_accuracy must be at most 1, got 100. Give the fraction of"),
        ("trainer.unaugmented_epochs=-1", "trainer.unaugmented_epochs must be at least 0, got -1. Give the number of last epochs"),
        ("trainer.epochs=15 trainer.unaugmented_epochs=16", "trainer.unaugmented_epochs must be at most 15, the number of epochs, got 16. Lower it, or train longer."),
        ("trainer.no_aug_epochs=2", "trainer.no_aug_epochs must be a key of the config, got 2. Did you mean trainer.unaugmented_epochs?"),
        ("trainer.drop_last=yes", "trainer.drop_last must be true or false, got 'yes'. Give true or false: whether the last"),
        ("trainer.drop_last=true trainer.limit_train_images=50", "trainer.drop_last must be false without a full batch: there are 50 training images, got true."),
        ("trainer.profile=3", "trainer.profile must be true or false, got 3."),
        ("trainer.l1=-1", "trainer.l1 must be at least 0, got -1. Give the factor of the L1 penalty"),
        ("trainer.ema_decay=1", "trainer.ema_decay must be less than 1, got 1. Give the decay of the moving average"),
        ("trainer.class_weights=[1,2]", "trainer.class_weights must have 10 weights, one for each class, got [1.0, 2.0]. Write it as a list"),
        ("trainer.class_weights=equal", "trainer.class_weights must be one of balanced, got 'equal'. Choose one: trainer.class_weights=balanced"),
        ("trainer.class_weights=[1,0]", "trainer.class_weights.1 must be greater than 0, got 0."),
        ("optimizer.weight_decay_on=weights", "optimizer.weight_decay_on must be all without weight decay, got 'weights'. Set"),
        ("optimizer.momentum=0 scheduler=one_cycle scheduler.base_momentum=0.8 scheduler.max_momentum=0.9", "scheduler.max_momentum must be null without momentum, got 0.9. Set optimizer.momentum=0.9."),
        ("optimizer=adagrad scheduler=one_cycle scheduler.base_momentum=0.8 scheduler.max_momentum=0.9", "scheduler.max_momentum must be null for adagrad, which has no momentum, got 0.9. Set"),
        ("scheduler=multi_step scheduler.milestones=[3,20]", "scheduler.milestones must lie within trainer.epochs, 15, got [3.0, 20.0]."),
        ("scheduler=cyclic scheduler.up_epochs=16", "scheduler.up_epochs must end within the training, which leaves 15 epochs, got 16.0."),
        ("scheduler=warm_restarts scheduler.cycle_epochs=16", "scheduler.cycle_epochs must end within the training"),
        ("scheduler=piecewise_linear scheduler.points=[[0]]", "scheduler.points.0 must have at least 2 entries"),
        ("scheduler=cosine scheduler.update=batch", "scheduler.update must be one of step, epoch, got 'batch'."),
        ("init_from_checkpoint=best", "init_from_checkpoint must be left out without init_from, got 'best'. Set init_from"),
        ("init_from=''", "init_from must not be empty, got ''. Give the folder of a run whose weights to begin with"),
        ("augmentation.rotate.degrees=181", "augmentation.rotate.degrees must be at most 180, got 181."),
        ("augmentation.rotate.fill=256", "augmentation.rotate.fill must be at most 255, got 256."),
        ("augmentation=affine augmentation.affine.scale=[2,1]", "augmentation.affine.scale must hold the smaller value first"),
        ("augmentation=affine augmentation.affine.translate_y=2", "augmentation.affine.translate_y must be at most 1, got 2."),
        ("augmentation=rotate augmentation.rotate.probability=1.5", "augmentation.rotate.probability must be at most 1, got 1.5."),
        ("augmentation.rotate.fill=[1,2,3]", "augmentation.rotate.fill must be one value, or a list with one for each of 1 channel"),
        ("augmentation.rotate.fill=[300]", "augmentation.rotate.fill.0 must be at most 255, got 300."),
        ("augmentation.rotate.fill=mean", "augmentation.rotate.fill must be a whole number, got 'mean'."),
        ("augmentation.rotate.interpolation=cubic", "augmentation.rotate.interpolation must be one of nearest, bilinear"),
        ("augmentation.rotate.padding_mode=mirror", "augmentation.rotate.padding_mode must be one of constant, edge, reflect, symmetric"),
        ("augmentation=shift_scale_rotate augmentation.shift_scale_rotate.rotate_limit=[9,-9]", "augmentation.shift_scale_rotate.rotate_limit must hold the smaller value first, got [9.0, -9.0]. Swap the two."),
        ("augmentation=shift_scale_rotate augmentation.shift_scale_rotate.scale_limit=-0.1", "augmentation.shift_scale_rotate.scale_limit must hold the smaller value first, got [0.1, -0.1]."),
        ("augmentation=perspective augmentation.perspective.distortion_scale=1", "augmentation.perspective.distortion_scale must be at most 0.9, got 1."),
        ("augmentation=elastic augmentation.elastic.sigma=7", "augmentation.elastic.sigma must be less than 7, got 7"),
        ("augmentation=random_crop augmentation.random_crop.padding=28", "augmentation.random_crop.padding must be less than 28, the size of the images, got 28. Lower it."),
        ("augmentation=centre_crop augmentation.centre_crop.size=[20,29]", "augmentation.centre_crop.size must be at most [28, 28], the size of the images, got [20, 29]. Lower it."),
        ("augmentation=resized_crop augmentation.resized_crop.scale=[1,0.5]", "augmentation.resized_crop.scale must hold the smaller value first"),
        ("augmentation=resized_crop augmentation.resized_crop.ratio=[2,1]", "augmentation.resized_crop.ratio must hold the smaller value first"),
        ("augmentation=brightness augmentation.brightness.factor=[0,0.05]", "augmentation.brightness.factor must reach at least to 0.5, got [0.0, 0.05]. A factor of 1 changes nothing: for 5% to either side, write [0.95, 1.05]."),
        ("augmentation=contrast augmentation.contrast.factor=0.2", "augmentation.contrast.factor must be a list, got 0.2. Give the smallest and the largest factor"),
        ("augmentation=contrast augmentation.contrast.factor=[1.2,0.8]", "augmentation.contrast.factor must hold the smaller value first"),
        ("augmentation=saturation", "augmentation.saturation must have colour images, of 3 channels, got 1. Remove it; brightness and contrast work on grey images."),
        ("augmentation=hue", "augmentation.hue must have colour images, of 3 channels, got 1."),
        ("augmentation=colour_jitter augmentation.colour_jitter.hue=[-0.1,0.1]", "augmentation.colour_jitter.hue must be null for grey images, got [-0.1, 0.1]. Remove it."),
        ("augmentation=colour_jitter augmentation.colour_jitter.brightness=[0,0.2]", "augmentation.colour_jitter.brightness must reach at least to 0.5, got [0.0, 0.2]. A factor of 1"),
        ("experiment=model_5 augmentation=none", "augmentation.affine must be chosen to have keys, got degrees, translate, scale, shear, interpolation alone. Choose it (augmentation=affine), or remove them: ~augmentation.affine"),
        ("+augmentation.affine.degrees=3", "augmentation.affine must be chosen to have keys, got degrees alone."),
        ("augmentation=colour_jitter augmentation.colour_jitter.brightness=null augmentation.colour_jitter.contrast=null", "augmentation.colour_jitter.brightness must be given if nothing else is, got null. Give a range"),
        ("augmentation=colour_jitter augmentation.colour_jitter.contrast=[2,1]", "augmentation.colour_jitter.contrast must hold the smaller value first"),
        ("augmentation=greyscale", "augmentation.greyscale must have colour images, of 3 channels, got 1."),
        ("augmentation=gaussian_noise augmentation.gaussian_noise.sigma=[0.2,0.1]", "augmentation.gaussian_noise.sigma must hold the smaller value first"),
        ("augmentation=gaussian_blur augmentation.gaussian_blur.kernel_size=4", "augmentation.gaussian_blur.kernel_size must be odd, got 4. Give 5, for example."),
        ("augmentation=gaussian_blur augmentation.gaussian_blur.kernel_size=57", "augmentation.gaussian_blur.kernel_size must be less than 56, twice the size of the images, got 57. Lower it."),
        ("augmentation=erase augmentation.erase.fill=white", "augmentation.erase.fill must be one of mean, black, pixel_noise, box_noise, got 'white'."),
        ("augmentation=erase augmentation.erase.fill=[1,2]", "augmentation.erase.fill must be one value, or a list with one for each of 1 channel"),
        ("augmentation=erase augmentation.erase.scale=[0.5,0.1]", "augmentation.erase.scale must hold the smaller value first"),
        ("augmentation=cutout augmentation.cutout.holes=[3,1]", "augmentation.cutout.holes must hold the smaller value first"),
        ("augmentation=cutout augmentation.cutout.height=[8,29]", "augmentation.cutout.height must be at most 28, the height of the images, got 29. Lower it."),
        ("augmentation=rand_augment augmentation.rand_augment.magnitude=31", "augmentation.rand_augment.magnitude must be less than 31, got 31."),
        ("augmentation=trivial_augment augmentation.trivial_augment.fill=[1,2]", "augmentation.trivial_augment.fill must be one value, or a list"),
        ("augmentation=mixup augmentation.mixup.alpha=0", "augmentation.mixup.alpha must be greater than 0, got 0."),
        ("+augmentation.second.transform=rotat", "augmentation.second.transform must be one of affine, auto_augment"),
        ("+augmentation.second={transform:rotate,degrees:200,fill:0}", "augmentation.second.degrees must be at most 180, got 200."),
        ("+augmentation.hue.transform=rotate", "augmentation.hue must have a name of lower-case letters, digits and _ that no transform has, got 'hue'. Rename it, as rotate_2."),
        ("+augmentation.chosen.transform=rotate", "augmentation.chosen must have a name of lower-case letters, digits and _"),
        ("+augmentation.copy.degrees=3", "augmentation must be one of affine, auto_augment"),
        ("augmentation=[mixup,rotate]", "augmentation.mixup must be the last transform, since it mixes whole batches after all else, got ['mixup', 'rotate']."),
        ("augmentation=[mixup,cutmix]", "augmentation.mixup must be the last transform, since it mixes whole batches after all else, got ['mixup', 'cutmix']. Move it to the end; use one such transform."),
        ("target.test_accuracy=99.4", "target.test_accuracy must be at most 1, got 99.4. Give the test accuracy"),
        ("target.requires=[norm,gab]", "target.requires.1 must be one of norm, dropout, gap, depthwise, dilation, no_max_pool, no_li"),
        ("target.requires=norm", "target.requires must be a list, got 'norm'. Give what the network must have, such as [norm,dro"),
        ("target.min_receptive_field=0", "target.min_receptive_field must be at least 1, got 0. Give the smallest receptive"),
        ("+scheduler.pct_start=0.3", "scheduler.pct_start must be a key of scheduler (name, update, every_epochs, gamma, warmup_epochs), got 0.3. It belongs to one_cycle: choose scheduler=one_cycle."),
        ("optimizer=adam +optimizer.nesterov=true", "optimizer.nesterov must be a key of optimizer (name, lr, betas, eps, weight_decay, weight_decay_on, amsgrad), got true. It belongs to muon, sgd: choose optimizer=muon or optimizer=sgd."),
        ("+model.norm_groups=0", "model.norm_groups must be at least 1, got 0. Give the number of groups of channels of group norm."),
        ("model.order=[conv,pool,norm,dropout]", "model.order must name every part once"),
        ("+optimizer._target_=os.system", "optimizer._target_ must not be given: a config can't run code, got 'os.system'"),
        ("name=${nothing}", "name must have a value, got \"Interpolation key 'nothing' not found\""),
        ("name=???", "name must be given, got nothing. Give it: name=…"),
    ],
)  # fmt: skip
def test_each_rule_has_its_message(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(*override.split(" "))
    assert caught.value.problems[0].startswith(message)
    assert len(caught.value.problems) == 1


def test_all_problems_are_said_at_once_those_of_the_layers_included() -> None:
    with pytest.raises(ConfigError) as caught:
        config_of("seed=-1", "optimizer.lr=0", "model.layers.conv1.out_channels=0", "model.layers.pool.block=poll")
    keys = [problem.split()[0] for problem in caught.value.problems]
    assert keys == ["seed", "optimizer.lr", "model.layers.conv1.out_channels", "model.layers.pool.block"]


def test_a_limit_ends_a_recipe_sooner_and_never_makes_it_longer() -> None:
    assert config_of("trainer=smoke").trainer.epochs_to_run == 1
    assert config_of("trainer.limit_epochs=99").trainer.epochs_to_run == 15


@pytest.mark.parametrize("augmentation", [{"name": "rotate", "degrees": 5.0, "fill": 0}, {"rotate": 5.0}])
def test_an_augmentation_is_a_mapping_of_transforms(augmentation: dict[str, object]) -> None:
    values = {**config_of("data=digits").model_dump(), "augmentation": augmentation}
    with pytest.raises(ConfigError, match="^augmentation must map each transform to its fields, as {rotate: {degrees"):
        parse(values)


@pytest.mark.parametrize(("words", "name"), [
    ([], "model_4"), (["model=model_2"], "model_2"), (["model=model_2", "name=mine"], "mine"),
    (["model=model_2", "~experiment"], "model_2"), (["experiment=model_4_digits", "model=model_2"], "model_4_digits"),
])  # fmt: skip
def test_a_run_is_named_after_what_it_trains(words: list[str], name: str) -> None:
    assert config_of(*words, "target.max_params=null").name == name
