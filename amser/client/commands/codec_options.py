"""The options that say how an utterance is compressed: the same for every command that encodes."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

import numpy as np

from amser import codecs
from amser.client.device import AUTO, Device, DeviceSettings
from amser.client.frontend import ASRFRONT_PROFILES, DEFAULT_FRONTEND
from amser.codecs.interpolation import DEFAULT_FACTORS, LARGEST_FACTOR
from amser.codecs.klt import COARSEST, DEFAULT_PROFILE, PROFILES
from amser.features import MINIMUM_SECONDS, SAMPLE_RATE
from amser.features import PROFILES as FEATURE_PROFILES
from amser.languages import UnknownLanguage, language_code

DEFAULTS = DeviceSettings()


def add_codec_options(parser: argparse.ArgumentParser) -> None:
    """Adds them, and those that the envelope names: language, device id."""
    group = parser.add_argument_group("how an utterance is compressed")
    group.add_argument(
        "--codec",
        choices=list(codecs.CODECS),
        metavar="NAME",
        help=f"{', '.join(codecs.CODECS)} (default: {DEFAULTS.codec}; with --rate or another --profile "
        f"{codecs.DEFAULT_CODEC}, with --cells interpolation)",
    )
    group.add_argument(
        "--rate",
        type=_rate,
        metavar="R",
        help=f"of an SVD: components kept, above 0, up to 1 (default: {codecs.DEFAULT_RATE})",
    )
    group.add_argument(
        "--step",
        metavar="S",
        help=f"of klt: {', '.join(PROFILES)}, {AUTO}, or 0 to {COARSEST}, finest first (default: {DEFAULT_PROFILE})",
    )
    group.add_argument(
        "--cells",
        type=_cells,
        metavar="TxF",
        help="of interpolation: frames and bands averaged (default: {}x{})".format(*DEFAULT_FACTORS),
    )
    group.add_argument(
        "--profile",
        choices=list(FEATURE_PROFILES),
        default=DEFAULTS.profile,
        metavar="NAME",
        help=f"of the log-Mel, as the cluster's recogniser takes it: {', '.join(FEATURE_PROFILES)} "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--language", type=spoken_language, metavar="CODE", help="spoken, such as en or pt-BR (default: detected)"
    )
    group.add_argument("--device-id", default=DEFAULTS.device_id, metavar="ID", help="default: %(default)s")


def device_settings(options: argparse.Namespace, **more: Any) -> DeviceSettings:
    """The settings that these options make, tried on a moment of silence: a wrong one shows before anything is read.

    Args:
        options: of `add_codec_options`.
        more: other fields of `DeviceSettings`.

    Raises:
        ValueError: an option that does not fit its codec, or cannot be in an envelope.
        amser.client.frontend.FrontendMissing: as named.
    """
    settings = DeviceSettings(
        device_id=options.device_id,
        codec=_codec(options),
        rate=options.rate,
        step=options.step,
        factors=options.cells,
        frontend=DEFAULT_FRONTEND if options.profile in ASRFRONT_PROFILES else "numpy",
        profile=options.profile,
        language=options.language,
        **more,
    )
    Device(settings).encode(np.zeros(round(MINIMUM_SECONDS * SAMPLE_RATE), np.float32), datetime.now(UTC))
    return settings


def spoken_language(text: str) -> str | None:
    """The value of a `--language`, as argparse's `type`: Whisper's code; None where it is to be detected.

    Raises:
        argparse.ArgumentTypeError: it names no language.
    """
    try:
        return language_code(text)
    except UnknownLanguage as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _codec(options: argparse.Namespace) -> str:
    """The codec that was named, or the one whose setting was, or one that writes this profile."""
    if options.codec:
        return str(options.codec)
    if options.cells:
        return "interpolation"
    if options.step is None and (options.rate is not None or options.profile != DEFAULTS.profile):
        return codecs.DEFAULT_CODEC
    return DEFAULTS.codec


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1")
    return rate


def _cells(text: str) -> tuple[int, int]:
    try:
        factors = codecs.by_name("interpolation").read_setting(text).factors
    except ValueError:
        factors = None
    if factors is None or not all(1 <= factor <= LARGEST_FACTOR for factor in factors):
        raise argparse.ArgumentTypeError(f"{text} is not two numbers from 1 to {LARGEST_FACTOR}, such as 4x2")
    return factors
