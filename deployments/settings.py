"""What can be set, with its default and a sentence about it. The `args` of serve_config.yaml are read into this.

Every default stands here and nowhere else; serve_config.yaml says what differs for a cluster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from amser import batch
from amser.codecs.klt import COARSEST, PROFILES
from amser.wire import Limits
from deployments.access.settings import AuthSettings, CorsSettings, LimitSettings
from deployments.intake.limits import BodySettings
from deployments.recording_settings import RecordingSettings
from deployments.replica.health import HealthLimits
from deployments.telemetry.settings import TelemetrySettings
from models.emotion import prior
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
from models.resolve import IN_PACKAGE, PACKAGE
from models.whisper.engine import BATCH_SIZE
from models.whisper.served import EngineName

_LIMITS, _BATCH = Limits(), batch.Limits()


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecognizerSettings(_Settings):
    """Speech to words."""

    engine: EngineName = "onnxruntime"
    """ONNX Runtime (8 bits, on a CPU; on a GPU CTranslate2), CTranslate2, or the reference implementation."""
    weights: str = "whisper-base-short"
    """Name in the weight catalogue, in CTranslate2's format; all engines read it."""
    context: Literal["short", "padded"] = "short"
    """Encode the speech alone, or 30 s always as Whisper's authors do."""
    batch_size: int = Field(BATCH_SIZE, ge=1, le=64)
    """Utterances that a CPU replica decodes together."""
    gpu_batch_size: int = Field(32, ge=1, le=64)
    """The same for a GPU replica (docs/decisions/0010 has the arithmetic)."""
    batch_frames: int = Field(6000, ge=10)
    """Log-Mel frames of a batch, added up: many short utterances or few long ones. One alone may have more."""
    gpu_batch_frames: int = Field(24_000, ge=10)
    """The same for a GPU replica: 32 utterances of 7.5 s, or 8 of 30 s."""
    batches: int = Field(2, ge=1, le=16)
    """Batches that a replica computes at once, each on a core of its own."""
    express_frames: int | None = Field(1000, ge=10)
    """While a longer utterance computes, those of up to so many frames have one batch more. None: they do not."""
    threads: int = Field(1, ge=1)
    """Threads of one batch; more batches or replicas use more cores better than more threads do."""

    @property
    def cores(self) -> int:
        """That a CPU replica fills."""
        return self.batches * self.threads


class TextEncoderSettings(_Settings):
    """Words in their context (RoBERTa in the papers)."""

    model: str = "all-minilm-l6-v2"
    """Name in the weight catalogue, a folder, or a Hugging Face id that is in the local cache already."""
    batch_size: int = Field(8, ge=1, le=128)
    """Texts that one forward pass takes."""
    gpu_batch_size: int = Field(32, ge=1, le=128)
    """The same for a GPU replica."""
    threads: int = Field(1, ge=1)
    """Threads of one replica."""


class RequestSettings(_Settings):
    """What a client may ask for, and how long it may take."""

    max_bytes: int = Field(_LIMITS.max_bytes, ge=1)
    """Of an envelope."""
    max_audio_bytes: int = Field(10_485_760, ge=1)
    """Of an audio file; 30 s of 48 kHz stereo 24-bit WAV are 8.6 MB."""
    max_batch_bytes: int = Field(_BATCH.max_bytes, ge=1)
    """Of a body with many envelopes."""
    max_batch_items: int = Field(_BATCH.max_items, ge=1)
    """Envelopes in one."""
    batch_at_once: int = Field(4, ge=1)
    """Of these, computed side by side."""
    max_frames: int = Field(_LIMITS.max_frames, ge=10, le=3000)
    """10 ms each; 3000 is Whisper's context."""
    max_rank: int = Field(_LIMITS.max_rank, ge=1, le=128)
    """Components of a factorised log-Mel."""
    bodies: BodySettings = BodySettings()
    """Bodies on their way to a gateway replica. Where Ray's proxy holds them back, its own limits come first
    (`deployments/intake/limits.py`)."""
    at_once: int = Field(256, ge=1)
    """Requests under way in a gateway replica, whose bodies are there; the next gets 429. Keep `max_ongoing_requests`
    of Ingress above it and `bodies.at_once` together, so that readiness is answered all the same."""
    deadline_s: float = Field(25.0, gt=0)
    """The longest that an answer may take, from when the body is here; 504 follows. A client may ask for less
    (`Amser-Deadline-Ms`), which then counts from the request's beginning. Keep it below `request_timeout_s` of
    serve_config.yaml."""
    retry_after_s: int = Field(1, ge=1)
    """What a refused client is told to wait where nothing better is known."""

    @property
    def limits(self) -> Limits:
        """The same limits, as the wire format takes them."""
        return Limits(self.max_bytes, self.max_frames, self.max_rank)


class DecodingSettings(_Settings):
    """The processes in which a gateway replica decodes audio uploads, and what one file may cost there."""

    workers: int = Field(2, ge=1, le=32)
    """Files that are decoded at once. The processes start with the first uploads; an idle one has 80 MB."""
    memory_mb: int = Field(512, ge=64)
    """Address space that a file may take."""
    cpu_s: int = Field(5, ge=1)
    """Computing time of a file."""
    wall_s: float = Field(10.0, gt=0)
    """Time until its worker is killed."""
    requests: int = Field(1000, ge=1)
    """Files after which a worker is replaced."""
    resident_mb: int = Field(256, ge=1)
    """A worker that holds more than this after a file is replaced."""


class HealthSettings(_Settings):
    """When a replica is replaced. A client's bad input and passed deadlines do not count."""

    failures: int = Field(HealthLimits().failures, ge=1)
    """Requests in a row whose computing failed."""
    longest_batch_s: float = Field(HealthLimits().longest_batch_s, gt=0)
    """Age of a batch that still computes. Keep it above what the slowest batch takes: more than `deadline_s` is no
    answer to anybody."""

    @property
    def limits(self) -> HealthLimits:
        """The same limits, as replicas take them."""
        return HealthLimits(self.failures, self.longest_batch_s)


class FlowSettings(_Settings):
    """What happens to requests when there are more than the cluster can answer in time.

    All of it is on; `python -m benchmarks.flow` measures what each changes by switching it off.
    """

    admission: bool = True
    """Refuse at once, with 429 and the time to wait, what cannot be answered in time."""
    degrade: bool = True
    """Leave the text out of the emotion, or the words too, rather than refuse; `Prefer: handling=strict` forbids it."""
    client_share: float = Field(0.5, gt=0, le=1)
    """Of the time that others give an answer, what the work of one client may fill while others ask; 1 for all."""
    deadlines: bool = True
    """Tell the stages when an answer comes too late, so that they do not begin it."""
    cancellation: bool = True
    """Drop the requests of clients that have closed their connection."""


class IdempotencySettings(_Settings):
    """What becomes of an utterance that is sent again, under the same ids: it gets the first answer, computed once.

    Answers with their words are kept for that, and for nothing else.
    """

    store: Literal["embedded", "redis", "none"] = "embedded"
    """Where: in a file of the node, which its gateway replicas share; in Redis, which all nodes share; or nowhere, and
    what is sent again is computed again."""
    redis_url: SecretStr | None = None
    """Of Redis, such as `redis://:password@host:6379/0`."""
    folder: Path | None = None
    """Of the file, for this user alone (mode 700). None is `amser-UID` in the node's temporary folder."""
    ttl_s: float = Field(900.0, gt=0, le=86_400)
    """For how long. A quarter of an hour is the longest pause that a device makes between two attempts."""
    max_answers: int = Field(10_000, ge=1)
    """In the file; the oldest make room. Redis has limits of its own (`maxmemory`)."""
    max_bytes: int = Field(33_554_432, ge=1)
    """In the file; an answer takes 1 to 3 kB."""

    @model_validator(mode="after")
    def _names_redis(self) -> Self:
        if (self.store == "redis") != (self.redis_url is not None):
            raise ValueError("redis_url belongs to the store redis, and has to be there for it")
        return self


class RateHintSettings(_Settings):
    """What devices with the codec `klt` are asked for in `Amser-Rate-Hint`. Steps are indices: 0 is the finest."""

    enabled: bool = True
    """Whether answers carry the header at all."""
    doubtful_below: float = Field(-0.45, le=0)
    """Average log-probability under which a finer step is asked for; Whisper base hardly ever is, on clean speech."""
    certain_from: float = Field(-0.2, le=0)
    """Average log-probability from which a coarser step is enough; most of clean speech reaches it at `low`."""
    fewest_words: int = Field(3, ge=1)
    """Of a text that is to be certain: the probability of a word or two says little."""
    finer_by: int = Field(8, ge=1)
    """Steps at once, about a profile, so that the next utterance is recognised."""
    coarser_by: int = Field(4, ge=1)
    """Steps at once, fewer: that a step is too coarse shows only afterwards."""
    finest: int = Field(PROFILES["robust"], ge=0, le=COARSEST)
    """Nothing finer is asked for."""
    coarsest: int = Field(PROFILES["low"], ge=0, le=COARSEST)
    """Nothing coarser is asked for."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.doubtful_below >= self.certain_from:
            raise ValueError("doubtful_below must be under certain_from, or devices would alternate between two steps")
        if self.finest > self.coarsest:
            raise ValueError("finest must be an index up to that of coarsest")
        return self


class StreamSettings(_Settings):
    """Sockets on which somebody speaks: how many, and what one may cost."""

    at_once: int = Field(64, ge=1)
    """Sockets of a gateway replica. Each counts among `max_ongoing_requests` of Ingress for as long as it is open."""
    of_a_client: int = Field(32, ge=1)
    """Sockets of one key, or of one address where there are no keys, in a replica."""
    largest_message: int = Field(65_536, ge=1024)
    """Bytes; two seconds of PCM16."""
    burst_s: float = Field(40.0, ge=30)
    """Seconds of speech that may come at once. After a cut a whole utterance is sent again."""
    pace: float = Field(4.0, ge=1)
    """Times real time at which more speech may come."""
    idle_s: float = Field(30.0, gt=0)
    """Without a message until the socket is closed; a client that has nothing to say sends `ping`."""
    start_s: float = Field(10.0, gt=0)
    """Until the first message is there."""
    kept_s: float = Field(60.0, gt=0)
    """For which a session waits for its client after a cut."""
    kept: int = Field(64, ge=1)
    """Sessions that wait; the oldest make room. A client whose session is gone sends its utterance again."""
    longest_s: float = Field(900.0, gt=0)
    """Age from which a socket is told to reconnect, at the end of an utterance."""
    pause_s: float = Field(0.6, gt=0.2)
    """Of silence, after which an utterance has ended where the client leaves that to the cluster."""
    look_every_s: float = Field(0.6, gt=0)
    """Least time between two looks at the words so far."""
    look_load: float = Field(0.3, gt=0, le=1)
    """Share of its time that a socket may spend in looks: where a look takes longer, the next one comes later."""
    looks_at_once: int = Field(1, ge=1)
    """Looks in a replica. Final answers do not wait for them."""


class Settings(_Settings):
    """The application."""

    auth: AuthSettings | None = None
    """Who may ask: `{mode: keys}`, or `none` for everybody. Without it the application does not start."""
    limits: LimitSettings = LimitSettings()
    """How much each key, and each device under it, may ask."""
    cors: CorsSettings = CorsSettings()
    """Which pages of other sites may ask."""
    hosts: tuple[str, ...] | None = None
    """Host names that requests may name, without ports; `*` is every one. None: those of this machine (localhost,
    127.0.0.1, ::1) where nobody needs a key, so that no page on the web can ask through a browser here (DNS rebinding);
    every one where keys are needed."""
    profile: Literal["distributed", "fused"] = "distributed"
    """A deployment for each stage, or all stages in one replica."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` asks the cluster whether it has GPUs; `gpu` insists on them."""
    recognizer: RecognizerSettings = RecognizerSettings()
    word_vectors: str = "spacy-en-core-web-md"
    """Name in the weight catalogue, or a folder that spaCy loads; 300 wide."""
    text_encoder: TextEncoderSettings = TextEncoderSettings()
    fusion_checkpoint: Path = DEFAULT_CHECKPOINT
    """The trained network; it must have been trained with the encoders above. `models:` begins the name of one that
    comes with this package."""
    emotion_prior: prior.Setting | dict[str, float] = "balanced"
    """How often each emotion is to be expected: `balanced`, as the training has it; `acted`, the same; `conversation`,
    where almost half of what is said is neutral; or a share for each class of the network, together 1."""
    requests: RequestSettings = RequestSettings()
    decoding: DecodingSettings = DecodingSettings()
    recordings: RecordingSettings = RecordingSettings()
    health: HealthSettings = HealthSettings()
    flow: FlowSettings = FlowSettings()
    rate_hint: RateHintSettings = RateHintSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    streams: StreamSettings = StreamSettings()
    """Sockets on which somebody speaks."""

    @field_validator("fusion_checkpoint", mode="before")
    @classmethod
    def _in_package(cls, value: object) -> object:
        named = isinstance(value, str) and value.startswith(IN_PACKAGE)
        return PACKAGE / str(value).removeprefix(IN_PACKAGE) if named else value

    @field_validator("emotion_prior")
    @classmethod
    def _adds_up(cls, value: prior.Setting | dict[str, float]) -> prior.Setting | dict[str, float]:
        if not isinstance(value, str):
            prior.check(value)
        return value
