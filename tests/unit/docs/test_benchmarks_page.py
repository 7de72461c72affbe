"""The tables of docs/benchmarks.md say what the rows of benchmarks/results say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks.telemetry.__main__ import ratio

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"

Row = dict[str, Any]
Table = list[list[str]]


def rows(file: str) -> list[Row]:
    found: list[Row] = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    return found


def tables(section: str) -> list[Table]:
    """The tables of a section, each without its head."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]] for block in blocks
    ]


def prose(section: str) -> str:
    return " ".join(PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0].split())


def signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def of(found: list[Row], **what: object) -> Row:
    """The one row that has these values."""
    (row,) = [each for each in found if all(each.get(name) == value for name, value in what.items())]
    return row


# --- What the first column of a table says, as the rows name it -------------------------------------------------------

TRANSPORTS = {
    "16-bit PCM": ("pcm", "16-bit"),
    "PCM": ("pcm", "16-bit"),
    "`klt` low": ("klt", "low"),
    "`klt` standard": ("klt", "standard"),
    "`klt` standard, the default of a device": ("klt", "standard"),
    "`klt` robust": ("klt", "robust"),
    "`klt` step 10": ("klt", "10"),
    "`svd-f16` 12.5 %": ("svd-f16", "0.125"),
    "`svd-f16` 12.5 %, the papers'": ("svd-f16", "0.125"),
    "`svd-i8` 12.5 %": ("svd-i8", "0.125"),
    "Opus 8k": ("opus", "8k"),
    "Opus 12k": ("opus", "12k"),
    "Opus 16k": ("opus", "16k"),
    "MP3 16k": ("mp3", "16k"),
    "MP3 24k": ("mp3", "24k"),
    "AAC 16k": ("aac", "16k"),
    "AAC 48k": ("aac", "48k"),
    "interpolation 4 × 2": ("interpolation", "4x2"),
}
SYSTEMS = ("openai-whisper-monolith", "faster-whisper-monolith", "distributed", "fused")
VARIANTS = ("all", "whole answers only", "none of the four")
POLICIES = {
    "Ray's default": "Ray's default",
    "Ray's, best targets found": "Ray's, the same, target 0.7, 20 s down",
    "whole application": "whole application",
}


def transport(found: list[Row], name: str, **what: object) -> Row:
    kind, setting = TRANSPORTS[name]
    return of(found, transport=kind, setting=setting, **what)


def words(row: Row) -> str:
    difference = f" ({signed(row['wer_delta'], 1)} ± {row['wer_delta_se']:.1f})"
    return f"{row['wer']:.2f}" + (difference if row["transport"] != "pcm" else "")


# --- The sections -----------------------------------------------------------------------------------------------------


def test_bits_for_words() -> None:
    clean, babble, _ = tables("Bits for words")
    for name, kbps, share, wer in clean:
        row = transport(rows("codec.json"), name)
        expected = ["256", "100"] if name == "16-bit PCM" else [f"{row['kbps']:.2f}", f"{row['percent_of_pcm']:.2f}"]
        assert [kbps, share, wer] == [*expected, words(row)]
    for name, kbps, wer in babble:
        row = transport(rows("codec_noise.json"), name, condition="babble-10db")
        assert [kbps, wer] == [f"{row['kbps']:.2f}", words(row)]


def test_emotion_through_transports() -> None:
    *_, emotions = tables("Bits for words")
    judged = [row for row in rows("codec_emotion.json") if row["ua"] is not None]
    for name, *cells in emotions:
        conditions = ("clean", "babble-10db", "noise-5db")
        assert cells == [f"{transport(judged, name, condition=each)['ua']:.3f}" for each in conditions]
    assert len(emotions) == 6


def test_work_on_the_device() -> None:
    for name, kbps, total in tables("Work on the device")[0]:
        frontend = "asrfront" if name.startswith("`") else None
        row = transport(rows("edge.json"), name, frontend=frontend)
        assert [kbps, total] == [f"{row['kbit_per_s']:.2f}", f"{row['total_ms_per_s']:.2f}"]


def test_radio_and_battery() -> None:
    found = rows("transport.json")
    for name, *cells in tables("Radio and battery")[0]:
        wifi, lte = (
            transport(found, name, device="phone", radio=radio, mode="batch", connection="keep-alive")
            for radio in ("wifi", "lte")
        )
        expected = [f"{wifi['bytes_on_air']:,.0f}"]
        for row in (wifi, lte):
            joules = f"{row['radio_joules']:.2f} + {row['compute_joules']:.2f}"
            expected += [f"{row['seconds_per_utterance']:.2f}", joules]
        assert cells == expected


def test_words_and_their_cost() -> None:
    found = rows("asr.json")
    for engine, context, *cells in tables("Words and their cost")[0]:
        plain, compressed = (
            of(found, engine=engine, context=context, codec=codec) for codec in ("none", "svd-f16:0.125")
        )
        assert cells == [f"{plain['wer']:.2f}", f"{compressed['wer']:.2f}", f"{plain['cpu_seconds']:.0f}"]


def test_the_cost_of_words_of_weights_that_hear_short() -> None:
    for file, (_, seconds, *cells) in zip(
        ("asr_short_ravdess.json", "asr_short_librispeech.json"), tables("Words and their cost")[1], strict=True
    ):
        short, filled = (of(rows(file), weights=weights) for weights in ("whisper-base-short", "whisper-base"))
        assert seconds == f"{short['audio_seconds'] / short['utterances']:.1f}"
        ratio = filled["cpu_seconds"] / short["cpu_seconds"]
        assert cells == [f"{short['cpu_seconds']:.2f}", f"{filled['cpu_seconds']:.2f}", f"{ratio:.1f}"]


def test_words_of_recordings() -> None:
    codecs = {"uncompressed": "none", "`klt` standard": "klt:standard", "`svd-f16` 12.5 %": "svd-f16:0.125"}
    conditions = {"clean": "clean", "noise at 10 dB": "noise-10db"}
    systems = (("whisper-base-short", "short"), ("whisper-base", "short"), ("whisper-base", "reference"))
    heard = [row for row in rows("words_recordings.json") if row["part"] == "recordings" and row["hint"] == "told"]
    for name, codec, condition, *cells in tables("Words lost and invented")[1]:
        how = {"set": name, "codec": codecs[codec], "condition": conditions[condition]}
        chosen = [of(heard, weights=weights, context=context, **how) for weights, context in systems]
        assert cells == [f"{row['wer']:.2f} [{row['wer_low']:.2f}, {row['wer_high']:.2f}]" for row in chosen]
    words = {"librispeech": 1467, "librispeech_more": 1828}
    for codec, said in (("none", "4.77 % against 4.55 %"), ("klt:standard", "5.13 % against 5.34 %")):
        mean = [
            sum(
                many * of(heard, weights=weights, context=context, set=name, codec=codec, condition="clean")["wer"]
                for name, many in words.items()
            )
            / sum(words.values())
            for weights, context in (systems[0], systems[2])
        ]
        assert said == " % against ".join(f"{figure:.2f}" for figure in mean) + " %"
        assert said in prose("Words lost and invented")


def test_agreement_with_the_padded_text() -> None:
    for name, believed, *cells in tables("Words lost and invented")[2]:
        found = [row for row in rows("words_agreement.json") if row.get("set") == name.split(",")[0].lower()]
        short = [row for row in found if (row["weights"], row["context"]) == ("whisper-base-short", "short")]
        chosen = [
            of(short, codec=codec, hint=hint)
            for codec, hint in (("none", "told"), ("klt:standard", "told"), ("none", "detected"))
        ]
        chosen.append(of(found, weights="whisper-base", context="short", codec="none", hint="told"))
        assert believed == f"{chosen[0]['sane']} of {chosen[0]['utterances']}"
        assert cells == [
            f"{row['agreement']:.1f} [{row['agreement_low']:.1f}, {row['agreement_high']:.1f}]" for row in chosen
        ]


def test_repeats_and_sentences() -> None:
    section = tables("Words lost and invented")
    for name, *cells in section[3]:
        short, padded = (of(rows("words_repeats.json"), set=name, context=each) for each in ("short", "reference"))
        counts = (short["takes"], short["takes_missing"], padded["takes_missing"])
        assert cells == [*map(str, counts), f"{short['wer']:.2f}", f"{padded['wer']:.2f}"]
    for name, *cells in section[4]:
        short, padded = (
            of(rows("words_sentences.json"), set=name, context=each, hint="told") for each in ("short", "reference")
        )
        counts = (short["utterances"], short["empty"], padded["empty"])
        assert cells == [*map(str, counts), f"{short['wer']:.2f}", f"{padded['wer']:.2f}"]


def test_sounds_that_became_a_text() -> None:
    short, filled = (
        of(rows("words_sounds.json"), set="all", weights=weights, hint="detected")
        for weights in ("whisper-base-short", "whisper-base")
    )
    said = prose("Words lost and invented")
    assert f"of {short['utterances']} sounds" in said
    assert f"language detected, {short['false_speech']} was answered" in said
    assert f"filled with silence, answered {filled['false_speech']}" in said


@pytest.mark.parametrize(("table", "speech"), [(0, "librispeech"), (1, "ravdess")])
def test_serving(table: int, speech: str) -> None:
    for system, (_, *cells) in zip(SYSTEMS, tables("Serving")[table], strict=True):
        one, eight, many = (
            of(rows("serving.json"), speech=speech, system=system, clients=clients) for clients in (1, 8, 32)
        )
        assert cells == [
            *(f"{each['requests_per_second']:.2f}" for each in (one, eight, many)),
            *(f"{each['p50_ms']:.0f} / {each['p99_ms']:.0f}" for each in (one, eight)),
            f"{eight['cpu_seconds_per_request']:.2f}",
            f"{eight['rss_mb']:.0f}",
            f"{100 * eight['price_of_a_speech_hour']:.2f}",
            f"{eight['wer']:.2f}",
        ]


def test_the_ratios_of_serving() -> None:
    said = iter(rows("serving.json")[0]["compared"])
    for speech, clients, *ratios in tables("Serving")[2]:
        for shown in ratios:
            sentence = next(said)
            assert sentence.startswith(f"{speech}, {clients} client")
            assert f"= {shown} × throughput" in sentence
    assert next(said, None) is None


def test_distributed_or_fused() -> None:
    for profile, mode, *cells in tables("Distributed or fused")[0]:
        one, eight = (of(rows("composition.json"), profile=profile, mode=mode, clients=clients) for clients in (1, 8))
        assert cells == [
            f"{one['requests_per_second']:.2f}",
            f"{eight['requests_per_second']:.2f}",
            f"{one['p50_ms']:.0f} / {one['p99_ms']:.0f}",
            f"{one['cpu_ms']:.0f}",
        ]


def test_overload() -> None:
    for variant, (_, *cells) in zip(VARIANTS, tables("Overload")[0], strict=True):
        for rate, cell in zip((4, 8, 12, 16, 22), cells, strict=True):
            found = [row for row in rows("flow.json") if row["variant"] == variant and row["rate"] == rate]
            whole = f" ({found[0]['whole']:.1f})" if variant == "all" else ""
            assert cell == (f"{found[0]['goodput']:.1f}{whole}" if found else "")


def test_capacity() -> None:
    found = json.loads((RESULTS / "capacity.json").read_text(encoding="utf-8"))
    held = found["trials"][0]
    assert f"{held['rate']:g} requests a second" in prose("Capacity")
    assert f"{held['arrivals']} requests, none late" in prose("Capacity")
    assert held["violations"] == 0
    broken = found["trials"][2]
    assert f"{broken['rate']:.1f} a second break it" in prose("Capacity")
    assert f"{broken['violations']} of {broken['arrivals']} late" in prose("Capacity")


def test_prediction() -> None:
    for row, (profile, load, rate, *cells) in zip(rows("prediction.json"), tables("Prediction")[0], strict=True):
        assert [profile, load, rate] == [row["profile"], f"{100 * row['share']:.0f} %", f"{row['rate']:.1f}"]
        assert cells == [
            f"{row[f'measured_{mark}_ms']:.0f} → {row[f'predicted_{mark}_ms']:.0f}"
            f" ({signed(row[f'error_{mark}_percent'], 0)} %)"
            for mark in ("p50", "p95", "p99")
        ]


def test_autoscaling() -> None:
    for trace, policy, *cells in tables("Autoscaling")[0]:
        row = of(rows("autoscaling.json"), trace=trace, policy=POLICIES[policy])
        assert cells == [f"{row['late_percent'][0]:.1f}", f"{row['replica_s'][0]:,.0f}"]


def test_generator() -> None:
    (row,) = rows("generator.json")
    assert f"{row['requests_per_second']:.0f} requests a second" in prose("Generator")
    assert f"{row['generator_cores']:.3f} of a core" in prose("Generator")
    assert f"within {row['p99_late_ms']:.1f} ms" in prose("Generator")


def test_telemetry() -> None:
    found = rows("telemetry.json")
    figures = (("requests_per_second", 2), ("cpu_ms", 0))
    for (figure, digits), (_, *cells) in zip(figures, tables("Telemetry")[0], strict=True):
        medians = (median(row[f"{which}_{figure}"] for row in found) for which in ("off", "on"))
        mean, low, high = ratio(found, figure)
        assert cells == [*(f"{each:.{digits}f}" for each in medians), f"{mean:.3f} [{low:.3f}, {high:.3f}]"]
    assert f"{len(found)} rounds" in prose("Telemetry")


DRILLS = {
    "upgrade": "redeploy",
    "upgrade, rolled back in its middle": "rollback",
    "upgrade that cannot start, rolled back": "bad-redeploy",
    "a gateway killed": "gateway-killed",
    "the head's proxy killed": "proxy-killed",
    "Redis stands still for 6 s, is gone for 6 s, comes back empty": "store-restarted",
    "a node drained": "node-drained",
    "a node lost": "node-lost",
}


def test_drills() -> None:
    found = rows("drills.json")
    (table,) = tables("Drills")
    assert len(table) == len(found)
    for profile, drill, *cells in table:
        row = of(found, profile=profile, drill=DRILLS[drill])
        retrying = row["sent"] - row["bare"]
        assert cells == [
            f"{retrying - row['lost']} of {retrying}",
            f"{row['bare_answered']} of {row['bare']}",
            str(row["resends"]),
            f"{row['computed_twice']} of {row['again']}",
            str(row["degraded"]),
            f"{row['p99_before_ms']:,} → {row['p99_during_ms']:,}",
            f"{row['seconds']:.0f}",
        ]
        assert row["lost"] == 0
        assert not row["contradicted"]  # none in rows from before second answers were compared with the first
    (soak,) = rows("soak.json")
    said = prose("Drills")
    assert f"{soak['good_answered']:,} of {soak['good']:,} good requests" in said
    assert f"{sum(soak['bad'].values())} of bad clients" in said
    grown = max(each for each in soak["memory_growth_percent"].values() if each is not None)
    assert f"by at most {grown} % over the last half" in said
    assert soak["is_flat"]


LEFT_OUT = {"RAVDESS": "ravdess", "nEMO": "nemo", "EMOVO": "emovo", "ASED": "ased", "KETTS": "ketts"}
LEFT_OUT |= {"all": "all left out"}
CONDITIONS = {"uncompressed": "none", "`klt` standard": "klt:standard", "`klt` low": "klt:low"}
CONDITIONS |= {"`svd-f16` 12.5 %": "svd-f16:0.125"}


def test_emotion() -> None:
    cross = rows("emotion_cross.json")
    left_out, by_codec, readings, pairs, *_, published = tables("Emotion")
    among = {"protocol": "leave one corpus out, among its classes"}

    def figures(row: Row, *names: str) -> list[str]:
        return [f"{row[name]:.3f}" for name in names]

    for name, classes, speakers, ua, probe, *others in left_out:
        corpus = {"corpus": LEFT_OUT[name], "codec": "none", **among}
        row = of(cross, model="amser-states", **corpus)
        assert [classes, speakers] == [str(len(row["classes"])), str(row["n_speakers"])]
        assert ua == f"{row['ua']:.3f} [{row['ua_low']:.3f}, {row['ua_high']:.3f}]"
        assert [probe] == figures(of(cross, model="linear-probe", **corpus), "ua")
        assert others == figures(row, "macro_f1", "ece", "nll", "surest_half")
    for name, *cells in by_codec:
        own = [row for row in cross if row["model"] == "amser-states" and row["corpus"] == LEFT_OUT[name]]
        settings = ({"codec": "none"}, {"step": 23}, {"step": 30}, {"codec": "svd-f16"})
        assert cells == [f"{of(own, **setting, **among)['ua']:.3f}" for setting in settings]
    for name, *cells in readings:
        row = of(cross, protocol="readings by readers left out", condition=CONDITIONS.get(name, name))
        assert cells == figures(row, "neutral", "neutral_or_uncertain", "emotional_and_sure", "emotional_above_0.7")
    for kind, *cells in pairs:
        means = []
        for model in ("voice", "text", "log-sum", "gated sum"):
            own = [row for row in cross if row["protocol"] == f"left out, {kind}" and row["model"] == model]
            assert len(own) == 5
            ua, ece = (sum(row[name] for row in own) / 5 for name in ("ua", "ece"))
            means.append(f"{ua:.3f} ({ece:.2f})")
        assert cells == means
    *_, of_folds, _ = tables("Emotion")
    folds = rows("emotion_folds.json")
    starts = ("paired, speaker", "paired, voice alone", "paired, words alone")
    for name, *cells in of_folds:
        setting = {"uncompressed": {"codec": "none"}, "`klt` standard": {"step": 23}, "`klt` low": {"step": 30}}
        own = [row for row in folds if row.items() >= setting.get(name, {"codec": "svd-f16"}).items()]
        expected = [next(row for row in own if row["protocol"].startswith(start)) for start in starts]
        expected += [of(own, table="four", model=model) for model in ("amser-states", "linear-probe")]
        assert cells == [f"{row['ua']:.3f}" for row in expected]
    found = [row for row in rows("emotion.json") if len(row["classes"]) == 7 and row["table"] != "pairs"]
    for name, _, *cells in published:
        own = [row for row in found if row["model"] == name.split(" ")[0]]
        assert cells == [
            f"{of(own, codec=codec, rate=rate)['ua']:.3f}" for codec, rate in (("none", None), ("svd-f16", 0.125))
        ]


def test_times_of_words() -> None:
    *joined, recorded = rows("word_times.json")
    (table,) = tables("Times of words")
    for row, cells in zip(joined, table, strict=True):
        near = ", ".join(f"{row[f'{edge}_near']:.1%}".replace("%", " %") for edge in ("begin", "end"))
        off = [f"{row[f'{edge}_ms_{share}']:.0f}" for edge in ("begin", "end") for share in ("p50", "p90")]
        assert cells == [row["part"], f"{row['said']}", f"{row['understood']}", *off, near]
    low, high = recorded["auc_interval"]
    text = prose("Times of words")
    assert f"{recorded['auc']:.3f} ({low:.3f} to {high:.3f} over {recorded['speakers']} readers" in text
    assert f"{recorded['wrong']} of {recorded['words']:,} words wrong" in text
    assert f"{recorded['cost']:.2f} times the recogniser's CPU" in text


def test_speech_over_a_socket() -> None:
    *spoken, routes = rows("realtime.json")
    (table,) = tables("Speech over a socket")
    for row, cells in zip(spoken, table, strict=True):
        same = f"{row['same_words']} of {row['utterances']}" if "same_words" in row else ""
        times = [f"{row[f'final_ms_{share}']:,.0f}" for share in ("p50", "p95")]
        counts = [str(row["sockets"]), str(row["utterances"])]
        assert cells == [
            row["part"], *counts, *times, f"{row['first_words_s_p50']:.2f}", f"{row['bytes_p50']:,}", same
        ]  # fmt: skip
    assert f"{routes['same']} of {routes['recordings']} recordings get the same" in prose("Speech over a socket")


def test_recordings() -> None:
    (table,) = tables("Recordings")
    for row, cells in zip(rows("recordings.json"), table, strict=True):
        sizes = [f"{row[f'{name}_mb_before']:,} → {row[f'{name}_mb']:,}" for name in ("gateway", "proxy")]
        counts = [f"{row['minutes']:g}", str(row["segments"]), str(row["failed"])]
        shares = [f"{row['times_real_time']:.1f}", f"{100 * row['wer']:.1f}"]
        assert cells == [*counts, *shares, *sizes, f"{row['cutting_mb']:,}"]


def test_the_cost_of_emotion() -> None:
    (row,) = rows("fusion_cost.json")
    words, text, fusion, alone = (f"{row[f'{part}_cpu_ms']:.0f}" for part in ("words", "text", "fusion", "voice_alone"))
    expected = f"words takes {words} ms, the text {text} ms, fusing {fusion} ms"
    assert expected in prose("Cost of emotion")
    assert f"A voice that is encoded alone takes {alone} ms" in prose("Cost of emotion")
    assert f"{row['same_label']:.0%} of the labels".replace("%", " %") in prose("Cost of emotion")


def test_the_accuracy_by_rate_that_stands_beside_the_papers() -> None:
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    networks = re.findall(r"^\| ([a-z-]+)(?:, version 0.4)? \| ([\d. /]+) \| ([\d. /]+) \|$", page, flags=re.MULTILINE)
    assert len(networks) == 6
    found = [row for row in rows("emotion.json") if len(row["classes"]) == 7 and row["table"] != "pairs"]
    for model, accuracy, f1 in networks:
        at = [of(found, model=model, codec="svd-f16", rate=rate) for rate in (0.125, 0.1875, 0.25, 0.5, 1.0)]
        assert accuracy == " / ".join(f"{100 * row['wa']:.2f}" for row in at)
        assert f1 == " / ".join(f"{row['weighted_f1']:.3f}".removeprefix("0") for row in at)


def test_the_gains_in_time_and_energy_that_stand_beside_the_papers() -> None:
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").split("\n## Time and energy\n")[1]
    table = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")][2:7]
    names = (("pcm", "16-bit"), ("mp3", "16k"), ("aac", "16k"), ("interpolation", "4x2"), ("svd-f16", "0.125"))
    phone = {"device": "phone", "radio": "wifi", "mode": "batch", "connection": "keep-alive"}
    ours = [of(rows("transport.json"), transport=name, setting=setting, **phone) for name, setting in names]
    joules = [row["radio_joules"] + row["compute_joules"] for row in ours]
    for row, energy, cells in zip(ours, joules, table, strict=True):
        faster = ours[0]["seconds_per_utterance"] / row["seconds_per_utterance"]
        assert [cell.strip() for cell in cells[4:]] == [f"{faster:.2f}", f"{100 - 100 * energy / joules[0]:.0f} %"]
