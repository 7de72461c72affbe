"""The reference systems of `benchmarks.serving`: one HTTP server that takes audio files, without Ray and without codec.

    python -m benchmarks.measuring.reference_server --recognizer openai-whisper --port 8100

openai-whisper or faster-whisper recognises the words, on 30 s always and with its own defaults. Everything behind that
is ours: the same weights, text encoder, word vectors and fusion network.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

import httpx
import numpy as np
import psutil
import soundfile
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from faster_whisper import WhisperModel

from amser.features import SAMPLE_RATE, Float32, log_mel, resample, silence_value, to_mono
from benchmarks.measuring.command import NothingMeasured
from deployments.local_cluster import LOOPBACK, free_port
from deployments.settings import Settings
from models.device import has_bfloat16
from models.emotion.classifier import EmotionClassifier
from models.messages import Mel, TextFeatures
from models.text.context_encoder import ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import model_path
from models.whisper.conversion import load_openai_whisper
from models.whisper.voice import VoiceEncoder

ROUTE: Final = "/v1/emotion"
READY: Final = "/readyz"
LOADED_WITHIN_S: Final = 120.0
READY_WITHIN_S: Final = 180.0
STOP_WITHIN_S: Final = 10.0
POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How a server uses its cores: requests wait in one queue for the first worker that is free.

    Attributes:
        workers: processes with models of their own; one is the server's own process.
        threads: of the networks in each.
    """

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.workers} × {self.threads}"


class Recognizer(Protocol):
    """Waveform → words, by a library's own path from audio to text."""

    def transcribe(self, waveform: Float32, language: str | None) -> tuple[str, str]:
        """The text of (samples,) at 16 kHz, and its language, which is detected where it is None."""
        ...


class OpenAIWhisper:
    """openai-whisper's `transcribe`, greedy with its fall-back temperatures, as Python calls it by default.

    Args:
        model: a folder in CTranslate2's format.
        beam_size: None is the library's default.
        threads: of torch, in the whole process.
    """

    def __init__(self, model: Path, beam_size: int | None, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = load_openai_whisper(model)
        self._options = {} if beam_size is None else {"beam_size": beam_size}

    def transcribe(self, waveform: Float32, language: str | None) -> tuple[str, str]:
        """See `Recognizer.transcribe`."""
        answer = self._model.transcribe(waveform, language=language, fp16=False, **self._options)
        return answer["text"].strip(), answer["language"]


class FasterWhisper:
    """faster-whisper's `WhisperModel` in 8-bit integers; by default a beam of five, and no VAD filter.

    Args: as of `OpenAIWhisper`.
    """

    def __init__(self, model: Path, beam_size: int | None, threads: int) -> None:
        self._model = WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=threads)
        self._options = {} if beam_size is None else {"beam_size": beam_size}

    def transcribe(self, waveform: Float32, language: str | None) -> tuple[str, str]:
        """See `Recognizer.transcribe`."""
        segments, info = self._model.transcribe(waveform, language=language, **self._options)
        return "".join(segment.text for segment in segments).strip(), info.language


RECOGNIZERS: Final[dict[str, Callable[[Path, int | None, int], Recognizer]]] = {
    "openai-whisper": OpenAIWhisper,
    "faster-whisper": FasterWhisper,
}


class ReferencePipeline:
    """Audio file → words and emotion, in one call.

    Args:
        recognizer: of the words.
        threads: of torch, in the whole process.
        settings: name the models behind the recogniser, as the cluster's do.

    Raises:
        models.weights.WeightsMissing: a model is not on this machine.
    """

    def __init__(self, recognizer: Recognizer, threads: int = 1, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self._recognizer = recognizer
        whisper = model_path(settings.recognizer.weights)
        self._voice = VoiceEncoder(whisper, threads=threads, narrow=has_bfloat16())
        self._words = WordVectors(model_path(settings.word_vectors))
        self._context = ContextEncoder(model_path(settings.text_encoder.model), threads=threads)
        self._classifier = EmotionClassifier(settings.fusion_checkpoint, None, threads=threads)

    def recognize(self, waveform: Float32, language: str | None) -> dict[str, Any]:
        """Words and emotion of (samples,) at 16 kHz, named as in the cluster's answer."""
        text, spoken = self._recognizer.transcribe(waveform, language)
        values = log_mel(waveform)
        seconds = waveform.size / SAMPLE_RATE
        mel = Mel(values.astype(np.float16), silence_value(values), seconds, spoken, "none", None)
        text_features = TextFeatures(spoken, self._words.embed(text), self._context.encode([text])[0])
        emotion = self._classifier.classify(mel, self._voice.encode(mel), text_features)
        return {
            "emotion": emotion.label,
            "probabilities": emotion.probabilities,
            "transcript": {"text": text, "language": spoken},
        }


_loaded: ReferencePipeline  # of this worker


def _load(recognizer: str, beam_size: int | None, threads: int, everyone: threading.Barrier) -> None:
    global _loaded  # noqa: PLW0603 - a worker of a pool has no other place to keep its model
    model = model_path(Settings().recognizer.weights)
    _loaded = ReferencePipeline(RECOGNIZERS[recognizer](model, beam_size, threads), threads)
    _loaded.recognize(np.zeros(SAMPLE_RATE, np.float32), "en")
    everyone.wait(LOADED_WITHIN_S)  # or the first worker would answer for all of them that they are ready


def _answer(content: bytes, language: str | None) -> dict[str, Any]:
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return _loaded.recognize(resample(to_mono(samples, rate), rate), language)


def _pool(recognizer: str, beam_size: int | None, arrangement: Arrangement) -> Executor:
    """Workers that load their models as they start; a worker alone is a thread of this process."""
    options = (recognizer, beam_size, arrangement.threads)
    if arrangement.workers == 1:
        return ThreadPoolExecutor(1, initializer=_load, initargs=(*options, threading.Barrier(1)))
    context = get_context("spawn")
    barrier = context.Barrier(arrangement.workers)
    return ProcessPoolExecutor(arrangement.workers, context, initializer=_load, initargs=(*options, barrier))


def build(recognizer: str, beam_size: int | None = None, arrangement: Arrangement = Arrangement(1, 1)) -> FastAPI:
    """The application: POST a WAV or FLAC file to `ROUTE`; it answers nothing until every worker has its models.

    Args:
        recognizer: a name in `RECOGNIZERS`.
        beam_size: None is the recogniser's default.
        arrangement: of the workers.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with _pool(recognizer, beam_size, arrangement) as pool:
            await asyncio.gather(*(asyncio.wrap_future(pool.submit(_is_loaded)) for _ in range(arrangement.workers)))
            app.state.pool = pool
            yield

    app = FastAPI(title="reference", lifespan=lifespan)

    @app.post(ROUTE)
    async def emotion(request: Request, language: str | None = None) -> dict[str, Any]:
        content = await request.body()
        try:
            return await asyncio.get_running_loop().run_in_executor(app.state.pool, _answer, content, language)
        except soundfile.LibsndfileError as error:
            raise HTTPException(400, f"the audio cannot be decoded: {error}; send WAV or FLAC") from None

    @app.get(READY)
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def _is_loaded() -> bool:
    return bool(_loaded)


class ReferenceProcess:
    """A context manager: this module's server as a child process on loopback.

    Args:
        command: its arguments.
        arrangement: of its workers.
        log: where everything goes that it prints.

    Raises:
        NothingMeasured: on entering, where it ends or does not get ready.
    """

    def __init__(self, command: Sequence[str], arrangement: Arrangement, log: Path) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self._log = log
        self._command = [sys.executable, "-m", "benchmarks.measuring.reference_server", *command, f"--port={port}"]
        self._command += [f"--workers={arrangement.workers}", f"--threads={arrangement.threads}"]
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(arrangement.threads)}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ReferenceProcess:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self._environment
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def processes(self) -> list[psutil.Process]:
        """The server and its workers."""
        with suppress(psutil.NoSuchProcess):
            if self._process is not None:
                server = psutil.Process(self._process.pid)
                return [server, *server.children(recursive=True)]
        return []

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise NothingMeasured(f"the reference server ended with {process.returncode}; see {self._log}")
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}{READY}", timeout=5, trust_env=False).is_success:
                    return
            time.sleep(POLL_S)
        raise NothingMeasured(f"the reference server was not ready within {READY_WITHIN_S:g} s; see {self._log}")

    def _stop(self) -> None:
        processes = self.processes()
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_WITHIN_S)
        _, alive = psutil.wait_procs(processes, timeout=1)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._process = None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measuring.reference_server", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--recognizer", choices=RECOGNIZERS, required=True)
    parser.add_argument("--beam-size", type=int, help="default: that of the recogniser")
    parser.add_argument("--workers", type=int, default=1, help="processes with models of their own")
    parser.add_argument("--threads", type=int, default=1, help="of the networks in each")
    parser.add_argument("--port", type=int, default=8100)
    options = parser.parse_args(arguments)
    app = build(options.recognizer, options.beam_size, Arrangement(options.workers, options.threads))
    uvicorn.run(app, host=LOOPBACK, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
