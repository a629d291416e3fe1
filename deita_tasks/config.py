"""The parameters of the flows: what the command line, a YAML file and the form in the Prefect UI
ask for.

Each group is a frozen model; each field has a title and a help text, which serve the form and
`deita select --help` alike. Field names are unique over the groups of a command, so that each is
one flag. A field that is empty takes the preset's value (`presets.py`).
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

PresetName = Literal["mini", "paper"]
ScorerName = Literal[
    "mini",
    "instruction_length",
    "response_length",
    "causal_lm",
    "vllm",
    "openai",
    "judge",
    "provided",
]
EmbedderName = Literal["sentence_transformers", "causal_lm", "provided"]
StrategyName = Literal[
    "diverse",
    "top_score",
    "random",
    "complexity_only",
    "quality_only",
    "length",
    "k_center",
    "facility_location",
    "mmr",
]
InputFormat = Literal["auto", "sharegpt", "messages", "alpaca", "prompt_response"]
OutputFormat = Literal[
    "input", "sharegpt", "messages", "alpaca", "prompt_response", "parquet", "hf_dataset"
]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
RunnerName = Literal["thread", "process", "dask", "ray"]


def _not_blank(uri: str) -> str:
    if not uri.strip():
        raise ValueError(
            "blank; expected a path or a URI"
        )  # a script's unset variable, which would mean this folder
    return uri


Uri = Annotated[str, AfterValidator(_not_blank), Field(json_schema_extra={"pattern": r"\S"})]

# As a flow's own parameter: Prefect's form takes its help from the schema alone.
_PRESET_HELP = (
    "What empty fields follow. mini: for a CPU; paper: the published 7B models, for a GPU."
)
Preset = Annotated[PresetName, Field(json_schema_extra={"description": _PRESET_HELP})]


def _as_a_form(schema: dict[str, Any]) -> None:
    """What may be empty is one box or one list of choices: Prefect's form would show two tabs,
    "None" first. It takes no value for None.
    """
    for field in schema["properties"].values():
        kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del field["anyOf"], field["default"]
            field |= kinds[0]


def _with_bounds_of_a_cosine(schema: dict[str, Any]) -> None:
    """As a form, in which the largest similarity has bounds unless the metric is another: what
    `_a_cosine_has_bounds` refuses.
    """
    _as_a_form(schema)
    schema["if"] = {
        "required": ["metric"],
        "properties": {"metric": {"enum": ["dot", "euclidean", "manhattan"]}},
    }
    schema["else"] = {"properties": {"max_similarity": {"minimum": -1, "maximum": 1}}}


# the environment of a command that has started a Prefect server for itself
TEMPORARY_SERVER = "DEITA_TEMPORARY_SERVER"
LONGEST_NAME = 40  # characters of a pool's name


class Group(BaseModel):
    """A card of the form, a section of the YAML file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), json_schema_extra=_as_a_form
    )

    @model_serializer(mode="wrap", when_used="json")
    def _without_what_is_empty(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Prefect's server refuses None where the form has a list of choices."""
        return {name: value for name, value in fields(self).items() if value is not None}


class Source(Group):
    """Where the pool is and how to read it."""

    input: list[Uri] = Field(
        title="Input",
        description="Files, folders, globs, s3:// or hf:// URIs: JSON, JSON Lines (both "
        "also .gz, .xz, "
        ".zst), Parquet, CSV.",
        min_length=1,
    )
    format: InputFormat = Field(
        "auto",
        title="Format",
        description="Row format of the pool; auto looks at the rows of each file.",
    )
    min_good_fraction: float = Field(
        0.95,
        ge=0,
        le=1,
        title="Least share of good rows",
        description="The run fails when fewer rows than this share can be read, scored "
        "and embedded. "
        "Between 0 and 1.",
    )

    @field_validator("input", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """The pool in the names of runs: the last step of its first path, and how many there are
        beside it; never a whole URI.
        """
        first = self.input[0].split("?")[0].rstrip("/").rsplit("/", 1)[-1] or "pool"
        more = f" and {len(self.input) - 1} more" if len(self.input) > 1 else ""
        return f"{first[:LONGEST_NAME]}{more}"


class Scoring(Group):
    """Which scorer says how demanding an instruction is, and how good its response. Empty fields
    follow the preset.
    """

    complexity: ScorerName | None = Field(
        None, title="Complexity scorer", description="Backend that scores instructions, 1 to 6."
    )
    complexity_model: str | None = Field(
        None,
        title="Complexity model",
        description="Hub id or local folder, for a backend with a model.",
    )
    complexity_revision: str | None = Field(
        None, title="Complexity model's revision", description="Branch, tag or commit on the hub."
    )
    quality: ScorerName | None = Field(
        None, title="Quality scorer", description="Backend that scores responses, 1 to 6."
    )
    quality_model: str | None = Field(
        None,
        title="Quality model",
        description="Hub id or local folder, for a backend with a model.",
    )
    quality_revision: str | None = Field(
        None, title="Quality model's revision", description="Branch, tag or commit on the hub."
    )
    score_max_length: int | None = Field(
        None,
        ge=64,
        title="Longest prompt",
        description="Tokens a scorer reads; longer prompts are cut in their content and "
        "counted. At least 64.",
    )
    score_dtype: Dtype | None = Field(
        None,
        title="Scorers' number type",
        description="auto: bfloat16 where the hardware is good at it.",
    )
    complexity_url: str | None = Field(
        None,
        title="Complexity scorer's server",
        description="For openai and judge: the API's base, such as http://localhost:8000/v1.",
    )
    complexity_tokenizer: str | None = Field(
        None,
        title="Complexity model's tokenizer",
        description="For openai: hub id or folder; empty: the model's.",
    )
    quality_url: str | None = Field(
        None,
        title="Quality scorer's server",
        description="For openai and judge: the API's base, such as http://localhost:8000/v1.",
    )
    quality_tokenizer: str | None = Field(
        None,
        title="Quality model's tokenizer",
        description="For openai: hub id or folder; empty: the model's.",
    )
    score_server: Literal["vllm", "other"] | None = Field(
        None,
        title="Kind of server",
        description="For openai: vllm is asked for the six digits by token id; other for its most "
        "probable tokens.",
    )
    api_key_env: str | None = Field(
        None,
        title="Variable with the key",
        description="For openai and judge: environment variable with the server's key.",
    )
    api_key_block: str | None = Field(
        None,
        title="Secret block with the key",
        description="For openai and judge: Prefect Secret block with the server's key.",
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        title="Requests at a time",
        description="For openai and judge: requests under way at a time. At least 1.",
    )
    request_timeout: float | None = Field(
        None,
        gt=0,
        title="Longest wait",
        description="For openai and judge: seconds until a request counts as lost. More than 0.",
    )
    request_attempts: int | None = Field(
        None,
        ge=1,
        title="Attempts",
        description="For openai and judge: how often one request is made before the shard "
        "fails. At least 1.",
    )
    complexity_column: str | None = Field(
        None,
        title="Complexity column",
        description="For provided: scores by user turn; empty: complexity_scores in the rows, "
        "complexity in a file.",
    )
    quality_column: str | None = Field(
        None,
        title="Quality column",
        description="For provided: scores by user turn; empty: quality_scores in the rows, "
        "quality in a file.",
    )
    scores_file: str | None = Field(
        None,
        title="File of scores",
        description="For provided: Parquet joined by id, or by source_row; empty: the "
        "pool's own rows.",
    )


class Embedding(Group):
    """Which model places conversations in space, for the similarity. Empty fields follow the
    preset.
    """

    embedding: EmbedderName | None = Field(
        None, title="Embedder", description="Backend that gives each conversation one vector."
    )
    embedding_model: str | None = Field(
        None, title="Embedding model", description="Hub id or local folder."
    )
    embedding_revision: str | None = Field(
        None, title="Embedding model's revision", description="Branch, tag or commit on the hub."
    )
    embedding_max_length: int | None = Field(
        None,
        ge=16,
        title="Longest text",
        description="Tokens the embedder reads of a conversation; what is cut is "
        "counted. At least 16.",
    )
    embedding_dtype: Dtype | None = Field(
        None,
        title="Embedder's number type",
        description="auto: bfloat16 where the hardware is good at it.",
    )
    embedding_column: str | None = Field(
        None,
        title="Embedding column",
        description="For provided: a list of numbers a row; empty: embedding.",
    )
    embeddings_file: str | None = Field(
        None,
        title="File of embeddings",
        description="For provided: Parquet joined by id, or by source_row; empty: the "
        "pool's own rows.",
    )


class Budget(Group):
    """How many conversations to keep."""

    budget: int = Field(
        6000, ge=1, title="Budget", description="Conversations to keep, at most. At least 1."
    )


class Selection(Budget):
    """How many conversations to keep, and by which rule."""

    model_config = ConfigDict(json_schema_extra=_with_bounds_of_a_cosine)

    strategy: StrategyName = Field(
        "diverse",
        title="Strategy",
        description="diverse: the paper's rule, best evol score first, without near-repetitions; "
        "top_score: best first; random: a control; "
        "complexity_only, quality_only, length: the paper's baselines; k_center, "
        "facility_location, mmr: other ways to spread.",
    )
    max_similarity: float | None = Field(
        None,
        title="Largest similarity",
        description="For diverse: above it a conversation is too similar to one that is kept. A "
        "cosine, -1 to 1, unless metric is dot.",
    )
    metric: Literal["cosine", "dot", "euclidean", "manhattan"] | None = Field(
        None,
        title="Metric",
        description="For diverse; empty: cosine. euclidean and manhattan take a least "
        "distance, not "
        "a similarity.",
    )
    min_distance: float | None = Field(
        None,
        ge=0,
        title="Least distance",
        description="For diverse by euclidean or manhattan: nearer than it is too "
        "similar. At least 0.",
    )
    ranking: Literal["evol", "complexity", "quality", "length"] | None = Field(
        None,
        title="Ranking",
        description="What best first goes by; empty: the strategy's own, evol for most.",
    )
    evol_score: Literal["sum", "mean", "max"] | None = Field(
        None,
        title="Evol score",
        description="Over a conversation's turns; empty: sum, the paper's, which favours long "
        "conversations.",
    )
    strata: str | None = Field(
        None,
        title="Strata",
        description="A column of the pool (or source_uri, its file): only so many rows "
        "of each of its "
        "values are kept. Empty: all.",
    )
    per_stratum: int | None = Field(
        None, ge=1, title="Rows a stratum", description="How many, at most, for strata. At least 1."
    )
    weight: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Weight",
        description="For mmr: of the score, against the similarity to what is kept. "
        "Between 0 and 1.",
    )
    candidates: int | None = Field(
        None,
        ge=1,
        title="Candidates",
        description="For k_center, facility_location and mmr: how many of the best rows "
        "to consider; "
        "empty: all, or 20,000 for "
        "facility_location. At least 1, and no fewer than the budget.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="For the strategy random. At least 0.")
    target_size: Literal["at_most", "exact"] = Field(
        "at_most",
        title="Target size",
        description="Where the pool runs out before the budget: at_most writes what "
        "there is and says "
        "so; exact fails, with the count.",
    )

    @model_validator(mode="after")
    def _there_are_candidates_enough(self) -> "Selection":
        if self.candidates is not None and self.candidates < self.budget:
            raise ValueError(
                f"candidates = {self.candidates}: expected at least the budget, {self.budget}"
            )
        return self

    @model_validator(mode="after")
    def _a_cosine_has_bounds(self) -> "Selection":
        if (
            self.metric in (None, "cosine")
            and self.max_similarity is not None
            and not -1 <= self.max_similarity <= 1
        ):
            raise ValueError(
                f"max_similarity = {self.max_similarity}: expected a cosine, between -1 and 1"
            )
        return self


class Output(Group):
    """Where the result goes."""

    output: Uri = Field(
        title="Output",
        description="Folder or s3:// URI for everything that is written. Must be new or empty.",
    )
    overwrite: bool = Field(
        False, title="Overwrite", description="Replace an earlier result in the output folder."
    )


class Export(Output):
    """Where the selection goes, and in which format."""

    output_format: OutputFormat = Field(
        "input", title="Output format", description="input: the format that the pool has."
    )


class Versions(Group):
    """Where each new selection goes, as a version of its own, and in which format."""

    output: Uri = Field(
        title="Output",
        description="Folder or s3:// URI of the versions, and of latest, which points "
        "to the newest.",
    )
    output_format: OutputFormat = Field(
        "input", title="Output format", description="input: the format that the pool has."
    )
    keep_versions: int = Field(
        10,
        ge=1,
        title="Versions to keep",
        description="Older ones are removed; the latest never is. At least 1.",
    )


class Grid(Group):
    """Which selections to compare: every strategy with every limit (where it has one) and every
    budget, and random ones.
    """

    budgets: list[Annotated[int, Field(ge=1)]] = Field(
        [1000, 3000, 6000],
        min_length=1,
        title="Budgets",
        description="Conversations to keep, at most; each at least 1.",
    )
    similarities: list[Annotated[float, Field(ge=-1, le=1)]] = Field(
        [0.85, 0.9, 0.95],
        min_length=1,
        title="Largest similarities",
        description="Limits for the strategy diverse, each between -1 and 1.",
    )
    strategies: list[StrategyName] = Field(
        ["diverse", "top_score"],
        min_length=1,
        title="Strategies",
        description="What to compare; random comes with them, as the control.",
    )
    coverage_rows: int = Field(
        20_000,
        ge=1,
        title="Rows for coverage",
        description="Coverage is measured over so many rows of the pool, or over all if there are "
        "fewer. At least 1.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="For the random selections. At least 0.")

    @field_validator("budgets", "similarities")
    @classmethod
    def _each_once_ascending(cls, numbers: list[Any]) -> list[Any]:
        return sorted(set(numbers))

    @field_validator("strategies")
    @classmethod
    def _each_once(cls, names: list[StrategyName]) -> list[StrategyName]:
        return list(dict.fromkeys(names))


class Advanced(Group):
    """What changes how a run goes, never what it selects."""

    store: Uri = Field(
        ".deita",
        title="Store",
        description="Folder or s3:// URI that keeps pools, scores, embeddings and selections "
        "between runs.",
    )
    shard_rows: int | None = Field(
        None,
        ge=1,
        title="Rows a shard",
        description="Rows that one task scores or embeds; empty: follows the pool. At least 1.",
    )
    retries: int = Field(
        2,
        ge=0,
        title="Retries",
        description="How often a failed shard is tried again, with growing pauses. At least 0.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", title="Device", description="auto: CUDA where there is one."
    )
    allow_bin: bool = Field(
        False,
        title="Weights from .bin files",
        description="Load weights from .bin files too, where a checkpoint has no "
        "safetensors; they are "
        "read without running code in them.",
    )
    runner: RunnerName | None = Field(
        None,
        title="Runner",
        description="What computes shards: thread, in this process; process, in others of this "
        "machine; dask or ray (extras), there or on "
        "a cluster. Empty: what DEITA_RUNNER says, or thread.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        title="Workers",
        description="Shards computed at a time on this machine. Empty: 1, or, but for "
        "thread, one a "
        "GPU. At least 1.",
    )
    cluster: str | None = Field(
        None,
        title="Cluster",
        description="Address of a Dask scheduler (tcp://host:8786) or of Ray "
        "(ray://host:10001); its "
        "workers have to reach the store and "
        "the Prefect server. Empty: what DEITA_CLUSTER says, or workers on this machine.",
    )
    num_gpus: float | None = Field(
        None,
        ge=0,
        title="GPUs a shard",
        description="What a shard asks of Ray, or of a Dask cluster (its resource GPU). "
        "Empty: 1 where "
        "its model works on CUDA, seen from "
        "here, so say device cuda where only the cluster has any. At least 0.",
    )
    device_slots: int | None = Field(
        None,
        ge=0,
        title="Shards on a device",
        description="Shards that compute on one device at a time, over all runs of a "
        "Prefect server; "
        "0: as many as come. Empty: 1 on a "
        "GPU, as many as come on a CPU, or where the command has a server for itself. At least 0.",
    )
    shard_timeout: float | None = Field(
        None,
        gt=0,
        title="Longest shard",
        description="Seconds until an attempt at a shard has failed; looked at between "
        "batches, none "
        "of which is cut short. More than 0; "
        "empty: no limit.",
    )
