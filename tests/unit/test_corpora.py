"""Adapters of published corpora, on small trees with their authors' folders and file names."""

from __future__ import annotations

import codecs
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import recordings
import soundfile

from fusion.corpora.__main__ import main
from fusion.corpora.adapter import deal
from fusion.corpora.catalogue import ADAPTERS, open_corpus
from fusion.corpora.manifest import CLASSES, Corpus, ManifestError, load_manifest
from fusion.folds import split

RATE = 16_000
IEMOCAP_EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
A-E3:\tval 3; act 2; dom  2;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[2.5000, 2.5000, 2.5000]
[14.8872 - 18.0175]\tSes01F_impro01_F001\tfru\t[2.5000, 2.5000, 2.5000]
"""
IEMOCAP_TRANSCRIPTION = """Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
Ses01F_impro01_M000 [010.0100-011.3925]: Do you have your forms?
M: [LAUGHTER]
"""
MELD_HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
MELD_TIMES = '3,1,"00:00:01,000","00:00:02,000"\n'
NEMO_TABLE = (
    "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
    "WR0_surprised_64.wav\tsurprised\tUcho wykrywa dźwięki.\tucho wykrywa dźwięki\t        WR0\tmale\t23\n"
    'EB0_anger_38.wav\tanger\t"Ród smoka" to serial.\tród smoka to serial\t        EB0\tfemale\t27\n'
)

Row = tuple[str, str, str, int | None, str, str | None]  # utterance, emotion, speaker, fold, text, language


@dataclass(frozen=True)
class Tree:
    """A corpus in small: its sound files, its text files, and what is to be read from them."""

    sounds: list[str]
    rows: list[Row]
    texts: dict[str, str | bytes] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


TREES = {
    "iemocap": Tree(
        sounds=[f"Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_{turn}.wav" for turn in ("F000", "M000", "F001")]
        + ["Session4/sentences/wav/Ses04M_script01_1/Ses04M_script01_1_FXX0.wav"],
        texts={
            "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": IEMOCAP_EVALUATION,
            "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt": b"\0\xff\xfe",
            "Session1/dialog/EmoEvaluation/Categorical/e1.txt": "Ses01F_impro01_F000 :Anger; ()\n",
            "Session1/dialog/transcriptions/Ses01F_impro01.txt": IEMOCAP_TRANSCRIPTION,
            "Session4/dialog/EmoEvaluation/Ses04M_script01_1.txt": "[0.1 - 0.9]\tSes04M_script01_1_FXX0\tang\t[]\n",
            "Session4/dialog/transcriptions/Ses04M_script01_1.txt": "",
        },
        rows=[
            ("Ses01F_impro01_F000", "neutral", "Ses01F", 1, "Excuse me.", "en"),
            ("Ses01F_impro01_M000", "happy", "Ses01M", 1, "Do you have your forms?", "en"),
            ("Ses04M_script01_1_FXX0", "angry", "Ses04F", 4, "", "en"),
        ],
        left_out={"fru": 1},
    ),
    "vcemo": Tree(
        sounds=["wav/0001.wav", "wav/0002.wav"],
        texts={
            "labels.csv": "file,emotion,speaker,text\n0001.wav,Anger,s2,你在做什么\n0002,bored,s1,好\n".encode(
                "gb18030"
            )
        },
        rows=[("0001", "angry", "s2", 2, "你在做什么", "zh")],
        left_out={"bored": 1},
    ),
    "ravdess": Tree(
        sounds=[
            "Actor_01/03-01-02-01-01-01-01.wav",
            "Actor_01/03-02-05-01-01-01-01.wav",  # song
            "Actor_12/03-01-06-02-02-01-12.wav",
            "Actor_24/03-01-08-01-01-02-24.wav",
        ],
        rows=[
            ("03-01-02-01-01-01-01", "neutral", "01", 1, "Kids are talking by the door", "en"),
            ("03-01-06-02-02-01-12", "fear", "12", 3, "Dogs are sitting by the door", "en"),
            ("03-01-08-01-01-02-24", "surprise", "24", 6, "Kids are talking by the door", "en"),
        ],
    ),
    "crema-d": Tree(
        sounds=[f"AudioWAV/{name}.wav" for name in ("1001_DFA_ANG_XX", "1002_IEO_DIS_HI", "1076_MTI_SAD_XX")],
        rows=[
            ("1001_DFA_ANG_XX", "angry", "1001", 1, "Don't forget a jacket", "en"),
            ("1002_IEO_DIS_HI", "disgust", "1002", 2, "It's eleven o'clock", "en"),
        ],
        left_out={"(no usable sound)": 1},
    ),
    "emodb": Tree(
        sounds=[f"wav/{name}.wav" for name in ("03a01Fa", "03a02Wc", "08b10Ab", "16a05Lb")],
        rows=[
            ("03a01Fa", "happy", "03", 1, "Der Lappen liegt auf dem Eisschrank.", "de"),
            ("03a02Wc", "angry", "03", 1, "Das will sie am Mittwoch abgeben.", "de"),
            ("08b10Ab", "fear", "08", 2, "Die wird auf dem Platz sein, wo wir sie immer hinlegen.", "de"),
        ],
        left_out={"L": 1},
    ),
    "tess": Tree(
        sounds=[
            "TESS Toronto emotional speech set data/OAF_neutral/OA_bite_neutral.wav",
            "TESS Toronto emotional speech set data/OAF_Pleasant_surprise/OAF_back_ps.wav",
            "TESS Toronto emotional speech set data/YAF_angry/YAF_youth_angry.wav",
        ],
        rows=[
            ("OAF_back_ps", "surprise", "OAF", 1, "Say the word back", "en"),
            ("OA_bite_neutral", "neutral", "OAF", 1, "Say the word bite", "en"),
            ("YAF_youth_angry", "angry", "YAF", 2, "Say the word youth", "en"),
        ],
    ),
    "nemo": Tree(
        sounds=["samples/WR0_surprised_64.wav", "samples/EB0_anger_38.wav"],
        texts={"data.tsv": NEMO_TABLE},
        rows=[
            ("EB0_anger_38", "angry", "EB0", 1, '"Ród smoka" to serial.', "pl"),
            ("WR0_surprised_64", "surprise", "WR0", 2, "Ucho wykrywa dźwięki.", "pl"),
        ],
    ),
    "esd": Tree(
        sounds=[
            f"{utterance[:4]}/{label}{utterance}.wav"
            for utterance, label in (
                ("0001_000351", "Angry/train/"),
                ("0002_000001", "Neutral/"),
                ("0016_000701", "Happy/evaluation/"),
                ("0016_000702", "Happy/evaluation/"),
            )
        ]
        # A complete tree has all five emotions of every speaker.
        + [
            f"{speaker}/{label}/{speaker}_00{number}.wav"
            for speaker in ("0001", "0002", "0016")
            for number, label in enumerate(("Angry", "Happy", "Neutral", "Sad", "Surprise"))
        ],
        texts={
            "0001/0001.txt": "0001_000351\t打远一看，它们的确很是美丽，\t愤怒\r\n".encode("gb18030"),
            "0002/0002.txt": codecs.BOM_UTF16_LE + "0002_000001\t打远一看\t中立\n".encode("utf-16-le"),
            "0016/0016.txt": "0016_000701\tI’m the nine.\tHappy\n0016_000702 broken line\n".encode("cp1252"),
        },
        rows=[
            ("0001_000351", "angry", "0001", 2, "打远一看，它们的确很是美丽，", "zh"),
            ("0002_000001", "neutral", "0002", 3, "打远一看", "zh"),
            ("0016_000701", "happy", "0016", 1, "I’m the nine.", "en"),
            ("0016_000702", "happy", "0016", 1, "", "en"),
        ],
    ),
    "meld": Tree(
        sounds=[
            "train/train_splits/dia0_utt0.wav",
            "train/train_splits/dia0_utt1.wav",
            "dev_splits_complete/dia0_utt0.wav",
            "output_repeated_splits_test/dia0_utt0.wav",
        ],
        texts={
            "train/train_sent_emo.csv": MELD_HEADER
            + f'1,"Oh my God, he\x92s lost\x85",Phoebe,sadness,negative,0,0,{MELD_TIMES}'
            + f'2,"""Wanted."" Nice!",Joey,joy,positive,0,1,{MELD_TIMES}'
            + f"3,Hey,Joey,joy,positive,125,3,{MELD_TIMES}",
            "dev_sent_emo.csv": f"{MELD_HEADER}1,What?,Monica,surprise,negative,0,0,{MELD_TIMES}"
            + f"2,What?,Monica,surprise,negative,110,7,{MELD_TIMES}",
            "test_sent_emo.csv": f"{MELD_HEADER}1,Fine.,Phoebe,anger,negative,0,0,{MELD_TIMES}",
        },
        rows=[
            ("dev_dia0_utt0", "surprise", "Monica", 2, "What?", "en"),
            ("test_dia0_utt0", "angry", "Phoebe", 3, "Fine.", "en"),
            ("train_dia0_utt0", "sad", "Phoebe", 1, "Oh my God, he’s lost…", "en"),
            ("train_dia0_utt1", "happy", "Joey", 1, '"Wanted." Nice!', "en"),
        ],
        left_out={"(no usable sound)": 2},
    ),
}


def write_sound(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.zeros(RATE // 10, np.float32), RATE)


Plant = Callable[[str], Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    def plant(name: str) -> Path:
        root = tmp_path / name
        for path in TREES[name].sounds:
            write_sound(root / path)
        for path, content in TREES[name].texts.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return plant


def rows_of(corpus: Corpus) -> list[Row]:
    return [
        (each.utterance, each.emotion, each.speaker, each.fold, each.text, each.language) for each in corpus.records
    ]


def test_every_adapter_has_a_tree_here() -> None:
    assert set(TREES) == set(ADAPTERS)


@pytest.mark.parametrize("name", TREES)
def test_a_corpus_is_read_from_its_authors_folders(name: str, plant: Plant) -> None:
    corpus = ADAPTERS[name].load(plant(name))
    expected = TREES[name]
    assert corpus.name == name
    listed = {row[0] for row in expected.rows}
    assert [row for row in rows_of(corpus) if row[0] in listed] == expected.rows
    if name != "esd":  # whose tree is filled up with utterances that are not listed
        assert len(corpus.records) == len(expected.rows)
    assert corpus.unknown_labels == expected.left_out
    assert all(soundfile.info(record.audio).frames == RATE // 10 for record in corpus.records)


@pytest.mark.parametrize("name", TREES)
def test_a_folder_above_will_do_and_hidden_files_do_not_count(name: str, plant: Plant) -> None:
    root = plant(name)
    expected = rows_of(ADAPTERS[name].load(root))
    for path in TREES[name].sounds:
        double = root / path
        double.with_name(f"._{double.name}").write_bytes(b"\0\5\x16\7")
    (root / ".Session1").mkdir()
    assert rows_of(ADAPTERS[name].load(root.parent)) == expected


@pytest.mark.parametrize("name", TREES)
def test_an_error_says_what_was_looked_for_where_and_where_to_get_it(name: str, tmp_path: Path) -> None:
    adapter = ADAPTERS[name]
    with pytest.raises(ManifestError, match="there is no folder") as absent:
        adapter.load(tmp_path / "absent")
    with pytest.raises(ManifestError, match="there is no ") as empty:
        adapter.load(tmp_path)
    for error in (absent, empty):
        assert str(tmp_path) in str(error.value)
        assert adapter.title in str(error.value)
        assert adapter.source in str(error.value)


@pytest.mark.parametrize("name", ["iemocap", "vcemo", "nemo", "meld"])
def test_a_missing_sound_file_that_a_table_names_is_named(name: str, plant: Plant) -> None:
    root = plant(name)
    missing = root / TREES[name].sounds[0]
    missing.unlink()
    with pytest.raises(ManifestError, match=f"there is no .*{missing.stem}"):
        ADAPTERS[name].load(root)


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("nemo", "data.tsv", "no column file_id, emotion, raw_text, speaker_id"),
        ("vcemo", "labels.csv", "no column file, emotion, speaker, text"),
        ("meld", "dev_sent_emo.csv", "no column Utterance, Speaker"),
        ("esd", "0016/0016.txt", "has no line of an utterance"),
    ],
)
def test_a_table_that_is_no_such_table_is_refused(name: str, table: str, message: str, plant: Plant) -> None:
    root = plant(name)
    (root / table).write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(ManifestError, match=message):
        ADAPTERS[name].load(root)


def test_a_corpus_none_of_whose_labels_is_known_is_refused(tmp_path: Path) -> None:
    write_sound(tmp_path / "wav" / "03a01La.wav")
    with pytest.raises(ManifestError, match=r"no utterance with a known emotion.*\{'L': 1\}"):
        ADAPTERS["emodb"].load(tmp_path)


def test_clips_without_sound_files_are_refused_with_the_command_that_makes_them(plant: Plant) -> None:
    root = plant("meld")
    for sound in (root / "train" / "train_splits").glob("*.wav"):
        sound.rename(sound.with_suffix(".mp4"))
    with pytest.raises(ManifestError, match=r"dia0_utt0\.mp4 in .*train_splits has no sound file.*ffmpeg -i"):
        ADAPTERS["meld"].load(root)


def test_tess_is_read_from_one_folder_too(tmp_path: Path) -> None:
    for name in ("OAF_back_ps", "YAF_back_angry"):
        write_sound(tmp_path / f"{name}.wav")
    assert [record.emotion for record in ADAPTERS["tess"].load(tmp_path).records] == ["surprise", "angry"]


def test_speakers_are_dealt_into_even_folds_that_do_not_change() -> None:
    speakers = [f"{number:02}" for number in range(1, 25)]
    gender = {speaker: "woman" if int(speaker) % 2 == 0 else "man" for speaker in speakers}
    folds = deal([*reversed(speakers), *speakers], 5, gender.__getitem__)
    assert folds == deal(speakers, 5, gender.__getitem__)
    assert sorted(Counter(folds.values()).values()) == [4, 5, 5, 5, 5]
    women = Counter(fold for speaker, fold in folds.items() if gender[speaker] == "woman")
    assert sorted(women.values()) == [2, 2, 2, 3, 3]
    assert deal(["a", "b"], 5) == {"a": 1, "b": 2}


def test_every_fold_of_esd_has_a_man_and_a_woman_of_each_language() -> None:
    adapter = ADAPTERS["esd"]
    folds = deal([f"{number:04}" for number in range(1, 21)], 5, adapter.balanced_by)
    for fold in range(1, 6):
        kinds = {adapter.balanced_by(speaker) for speaker in folds if folds[speaker] == fold}
        assert kinds == {"en man", "en woman", "zh man", "zh woman"}


def test_the_women_of_crema_d_are_43_of_91() -> None:
    kinds = Counter(ADAPTERS["crema-d"].balanced_by(str(actor)) for actor in range(1001, 1092))
    assert kinds == {"man": 48, "woman": 43}


def test_a_source_is_a_manifest_or_a_corpus_and_its_folder(plant: Plant, tmp_path: Path) -> None:
    root = plant("emodb")
    by_folder = open_corpus(f"emodb={root}")
    assert open_corpus("emodb", root) == by_folder == ADAPTERS["emodb"].load(root)
    table = tmp_path / "mine.tsv"
    table.write_text("path\temotion\tspeaker\nemodb/wav/03a01Fa.wav\tjoy\t03\n")
    assert open_corpus(str(table)) == open_corpus(str(table), tmp_path) == load_manifest(table)


def test_an_unknown_corpus_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'emodbb=/x' is neither.*iemocap, vcemo, ravdess, crema-d, emodb, tess"):
        open_corpus("emodbb=/x")
    with pytest.raises(ManifestError, match="Name its folder: emodb=/folder"):
        open_corpus("emodb")
    with pytest.raises(ManifestError, match="there is no manifest"):
        open_corpus(str(tmp_path / "absent.tsv"))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("folder", [".", "elsewhere"])
def test_a_manifest_that_was_written_gives_the_same_corpus(
    name: str, folder: str, plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = plant(name)
    (tmp_path / folder).mkdir(exist_ok=True)
    table = tmp_path / folder / f"{name}.tsv"
    assert main([name, "--root", str(root), "--manifest", str(table)]) == 0
    corpus, read_back = ADAPTERS[name].load(root), load_manifest(table)
    assert read_back.name == name
    assert rows_of(read_back) == rows_of(corpus)
    assert [record.audio for record in read_back.records] == [record.audio for record in corpus.records]
    assert (str(tmp_path) in table.read_text(encoding="utf-8")) == (folder == "elsewhere")
    assert f"{len(corpus.records)}" in capsys.readouterr().out


def test_the_summary_says_what_was_left_out(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emodb", "--root", str(plant("emodb"))]) == 0
    printed = capsys.readouterr().out
    for line in ("angry 1, fear 1, happy 1", "1 2, 2 1", "L 1", "de 3"):
        assert line in printed


def test_an_error_is_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emodb", "--root", str(tmp_path)]) == 2
    assert main(["nonsense"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert "bilderbar.info" in first
    assert "'nonsense' is neither" in second


def test_the_command_lists_all_corpora() -> None:
    listed = subprocess.run([sys.executable, "-m", "fusion.corpora"], capture_output=True, text=True, check=True).stdout
    assert all(name in listed for name in ADAPTERS)
    assert "CC BY-NC-ND 4.0" in listed
    helped = subprocess.run([sys.executable, "-m", "fusion.corpora", "-h"], capture_output=True, text=True, check=True)
    assert "--manifest FILE" in helped.stdout


def test_a_tree_of_real_ravdess_gives_the_folds_and_labels_of_its_manifest(shared_data: Path, tmp_path: Path) -> None:
    rows = recordings.rows("emotion/ravdess.tsv")
    for row in rows:
        folder = tmp_path / f"Actor_{row['speaker']}"
        folder.mkdir(exist_ok=True)
        (folder / f"{row['utterance']}.flac").symlink_to(shared_data / row["path"])
    corpus = ADAPTERS["ravdess"].load(tmp_path)
    assert sorted(rows_of(corpus)) == sorted(rows_of(load_manifest(shared_data / "emotion" / "ravdess.tsv")))
    assert corpus.classes_present == CLASSES
    assert [len(each.test) for each in split(corpus.records)] == [240] * 5


def test_a_tree_of_real_nemo_gives_the_folds_and_labels_of_its_manifest(shared_data: Path, tmp_path: Path) -> None:
    rows = recordings.rows("emotion/nemo.tsv")
    (tmp_path / "samples").mkdir()
    lines = ["file_id\temotion\traw_text\tspeaker_id"]
    for row in rows:
        (tmp_path / "samples" / f"{row['utterance']}.flac").symlink_to(shared_data / row["path"])
        label = row["utterance"].split("_")[1]
        lines.append(f"{row['utterance']}.wav\t{label}\t{row['text']}\t  {row['speaker']}")
    (tmp_path / "data.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus = ADAPTERS["nemo"].load(tmp_path)
    assert sorted(rows_of(corpus)) == sorted(rows_of(load_manifest(shared_data / "emotion" / "nemo.tsv")))
