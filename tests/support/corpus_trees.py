"""Small trees with the folders and file names of published corpora, and what is to be read from them."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field, replace

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
TREES["iemocap-improvised"] = replace(TREES["iemocap"], rows=TREES["iemocap"].rows[:2])
