"""The commands that show what a config is, before anything is trained: models, describe, data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from era_cnn.errors import ConfigError, one_of
from era_cnn.output import complain, say, terminal_columns, wrapped
from era_cnn.verbs.line import Line, Parser, parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from era_cnn.compose.words import Words
    from era_cnn.config.sections import Section  # imports pydantic


def models(line: Line) -> int:
    """Lists every experiment, with its size and target."""
    parser = Parser(line, models)
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects instead of a table")
    help_ = "build every network, and print only where one can't be built or misses its target; for CI"
    parser.add_argument("--check", action="store_true", help=help_)
    args = parsed(parser, line)
    from era_cnn.use.catalogue import catalogue, catalogue_table

    found = catalogue(line.composing([]), is_check=args.check)
    if args.json:
        say(*json.dumps([entry.to_json() for entry in found.entries], indent=2).split("\n"))
    elif not args.check:
        say(*catalogue_table(found.entries).split("\n"), *found.notes)
    if found.problems:
        raise ConfigError(found.problems)
    if args.check and not args.json:
        say(f"{len(found.entries)} experiments can be built, and none misses its target.", *found.notes)
    return 0


def describe(line: Line) -> int:
    """Prints the layer table and the recipe of a composed config."""
    parser = Parser(line, describe)
    parser.add_argument("overrides", nargs="*", default=[], help="overrides as for a run, such as experiment=model_3")
    help_ = "also measure the memory and the time of each layer, on a batch of random images"
    parser.add_argument("--profile", action="store_true", help=help_)
    help_ = "instead, list the keys with their values, what they may be and what they mean; such as --keys trainer"
    parser.add_argument("--keys", nargs="?", const="", metavar="GROUP_OR_KEY", help=help_)
    args = parsed(parser, line)
    from era_cnn.compose.composition import compose_run
    from era_cnn.config.notices import notices
    from era_cnn.config.recipe import recipe_of

    if args.keys is not None and args.profile:
        raise ConfigError(["--keys must be used without --profile, got both. Remove one."])
    if "=" in (args.keys or ""):  # an override that follows --keys
        args.overrides, args.keys = [args.keys, *args.overrides], ""
    words = line.composing(args.overrides)
    if args.keys is not None:
        return _list_keys(words, args.keys.replace("/", "."))
    config = compose_run(words)
    from era_cnn.runs.notes import notes_on_fields
    from era_cnn.use.catalogue import describe as summarize
    from era_cnn.use.catalogue import describe_decay

    summary, misses = summarize(config)
    recipe = [f"{title}: {values}" for title, values in recipe_of(config).items()]
    say(*summary.table().splitlines(), *notes_on_fields(summary), "", *recipe, *describe_decay(config))
    for notice in notices(config):
        complain(notice)
    if args.profile:
        from era_cnn.use.layer_profile import profile_layers

        say("", *profile_layers(config).lines())
    if misses:
        raise ConfigError(misses)
    return 0


def _list_keys(words: Words, prefix: str) -> int:
    """Prints two lines for each key: value and allowed values, and the meaning."""
    from era_cnn.compose.composition import compose_run, compose_sweep
    from era_cnn.config.keys import LAYERS, OF_A_SWEEP, keys_below

    sections: Mapping[str, Section]
    if prefix.split(".")[0] in ("sweep", "hydra"):
        from era_cnn.sweeps.options import sweep_options

        sections = sweep_options(compose_sweep(words), is_used=False).sections()
    else:
        sections = {"": compose_run(words)}
    keys, width = keys_below(sections, prefix), terminal_columns()
    for key in keys:
        meaning = wrapped(f"    {key.meaning}", width, "    ") if width else f"    {key.meaning}"
        typed = f"{key.name}={key.value}" if key.value else key.name
        say(f"{typed} ({key.values})" if key.values else typed, *meaning.split("\n"))
    if any(key.name == LAYERS for key in keys):
        say(f"The fields of each layer: era-cnn describe --keys {LAYERS}")
    if not prefix:
        say(f"The keys of a sweep: --keys {', --keys '.join(OF_A_SWEEP)}")
    return 0


def data(line: Line) -> int:
    """Verifies a data set, after a download if needed, or checks a folder of images or a file."""
    parser = Parser(line, data)
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="as data=NAME chooses it, such as mnist or image_folder"
    )
    parser.add_argument("overrides", nargs="*", default=[], help="overrides, such as data.root=FOLDER")
    parser.add_argument("--verify", action="store_true", help="decode a folder again, and compare it with the cache")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")
    args = parsed(parser, line)
    from era_cnn.compose.composition import compose_data
    from era_cnn.config.choices import DATASETS

    if args.name is None:
        raise ConfigError([f"NAME must {one_of(DATASETS)}, got nothing. Choose one, such as era-cnn data digits"])
    section = compose_data(line.composing([f"data={args.name}", *args.overrides]))
    from era_cnn.use.data import examine

    report = examine(section, verify=args.verify)
    say(*(json.dumps(report.to_json(), indent=2).split("\n") if args.json else report.lines()))
    return 0 if report.is_sound else 3
