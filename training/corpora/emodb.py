"""EmoDB, the Berlin database: ten actors, ten German sentences, seven emotions (Burkhardt et al., Interspeech 2005).

    wav/03a01Fa.wav       speaker, sentence, emotion (a German initial), version

535 utterances where all is there, of which the 81 bored ones (L, Langeweile) have no class here and are left out.
Actors are assigned to five folds of a man and a woman.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.corpora.adapter import Adapter, sounds, top_of
from training.corpora.manifest import Record

SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
WOMEN = {"08", "09", "13", "14", "16"}


def read(root: Path) -> Iterator[Record]:
    """All utterances under labels `W`, `L`, `E`, `A`, `F`, `T` and `N`."""
    pattern = "wav/[01][0-9][ab][0-9][0-9][A-Z]*"
    for utterance, file in sounds(top_of(root, pattern), pattern).items():
        yield Record(
            utterance=utterance,
            audio=file,
            emotion=utterance[5],
            speaker=utterance[:2],
            fold=None,
            text=SENTENCES.get(utterance[2:5], ""),
            language="de",
        )


ADAPTER = Adapter(
    name="emodb",
    title="EmoDB, Berlin database of emotional speech",
    licence="free to download; its authors ask to be cited",
    source="Technische Universität Berlin, http://emodb.bilderbar.info/, and Zenodo",
    citation="Burkhardt et al., A Database of German Emotional Speech, Interspeech 2005",
    languages=("de",),
    classes_of={"W": "angry", "E": "disgust", "A": "fear", "F": "happy", "N": "neutral", "T": "sad"},
    read=read,
    folds=5,
    balanced_by=lambda speaker: "woman" if speaker in WOMEN else "man",
    note="boredom is left out; ten fixed sentences",
)
