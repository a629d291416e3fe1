"""The parameters of the flows: the form in the Prefect UI, the command line and the YAML file.

Each group is a frozen model: a card of the form, a section of the file. Each field has a title and
a help text, which serve the form and `deita select --help` alike. Field names are unique over the
groups of a command, so that each is an option of its own. An empty field takes the preset's value
(`presets.py`), or else the component's.

Choices come from the tables of components, and a `ComponentOption` beside a field says which
option of which component it sets. So a new component is one file and one line in its table.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from deita_tasks.addresses import NO_CREDENTIALS, check_no_password
from deita_tasks.catalogue import EMBEDDERS, INPUT_FORMATS, OUTPUT_FORMATS, SCORERS, SELECTORS
from deita_tasks.presets import (
    CONTAMINATED_RUN,
    CONTAMINATED_SHARE,
    COSINE_MAX,
    COSINE_MIN,
    DEFAULT_MAX_SIMILARITY,
    EVERY_ROW,
    FACILITY_LOCATION_CANDIDATES,
    IFD_BELOW,
    LANGUAGE_MODEL_TOKENS,
    MMR_WEIGHT,
    NGRAM_WORDS,
    PRESETS,
    REWRITE_ROUNDS,
    SEMDEDUP_EPSILON,
    SERVER_ATTEMPTS,
    SERVER_CONCURRENCY,
    SERVER_KEY_ENV,
    SERVER_TIMEOUT,
)
from deita_tasks.recipes import RECIPES
from deita_tasks.validation import in_our_words, our_error, unexpected

if TYPE_CHECKING:
    PresetName = str
    ScorerName = str
    EmbedderName = str
    StrategyName = str
    InputFormat = str
    OutputFormat = str
    RecipeName = str
else:
    PresetName = Literal[tuple(PRESETS)]
    ScorerName = Literal[tuple(SCORERS)]
    EmbedderName = Literal[tuple(EMBEDDERS)]
    StrategyName = Literal[tuple(SELECTORS)]
    InputFormat = Literal[("auto", *INPUT_FORMATS)]
    OutputFormat = Literal[tuple(OUTPUT_FORMATS)]
    RecipeName = Literal[tuple(RECIPES)]

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
RunnerName = Literal["thread", "process", "dask", "ray"]
ChatTemplate = Literal["own", "vicuna", "chatml"]
ScorePer = Literal["turn", "row"]
Evaluation = Literal["lazy", "all"]
# Two numbers; the component that takes them says more clearly what is wrong.
Scale = Annotated[str, Field(json_schema_extra={"pattern": r"^\s*\S+\s*\.\.\s*\S+\s*$"})]

TEMPORARY_SERVER = "DEITA_TEMPORARY_SERVER"  # set by a command that starts its own Prefect server
MAX_NAME_LENGTH = 40  # characters of a pool's name
RUN_PLACEHOLDER = "{run}"  # in an output: the folder of the run


class ComponentOption(NamedTuple):
    """Marks a field that sets the option `name` of a component.

    component: "complexity", "quality" or "embedding"; "scorers" for both scorers; "language_model"
    for that of IFD and perplexity.
    """

    component: str
    name: str


def _not_blank(uri: str) -> str:
    if not uri.strip():  # a script's unset variable, which would mean the working folder
        raise ValueError("blank; expected a path or a URI")
    return uri


# Prefect's server checks the pattern before it stores the parameters of a form.
Uri = Annotated[
    str,
    AfterValidator(_not_blank),
    Field(json_schema_extra={"pattern": rf"{NO_CREDENTIALS}[\s\S]*\S"}),
]


def _defaults(stage: str) -> str:
    """Return the components that the presets use for a stage: "mini (preset mini), ..."."""
    names = {preset: getattr(PRESETS[preset], stage)["name"] for preset in PRESETS}
    return ", ".join(f"{name} (preset {preset})" for preset, name in names.items())


# As a flow's own parameter: Prefect's form takes its help from the schema alone.
PRESET_HELP = (
    "Models and limits for empty fields. mini: for a CPU; paper: the published 7B models, for a "
    "GPU."
)
Preset = Annotated[PresetName, Field(json_schema_extra={"description": PRESET_HELP})]


def _flatten_optional_fields(schema: dict[str, Any]) -> None:
    """Make an optional field one box or one list of choices.

    Prefect's form would show two tabs, "None" first. It accepts no value for None.
    """
    for field in schema["properties"].values():
        kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del field["anyOf"], field["default"]
            field |= kinds[0]


def _bound_cosine(schema: dict[str, Any]) -> None:
    """Let the form refuse what `_check_cosine` refuses."""
    _flatten_optional_fields(schema)
    other_metrics = {"metric": {"enum": ["dot", "euclidean", "manhattan"]}}
    cosine = {"max_similarity": {"minimum": COSINE_MIN, "maximum": COSINE_MAX}}
    schema["if"] = {"required": ["metric"], "properties": other_metrics}
    schema["else"] = {"properties": cosine}


class Group(BaseModel):
    """Base class of parameter groups."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        json_schema_extra=_flatten_optional_fields,
        hide_input_in_errors=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_no_password(cls, value: object) -> object:
        """Refuse a password before Prefect stores the parameters and a manifest repeats them."""
        try:
            return check_no_password(value)
        except ValueError as error:
            raise our_error(str(error)) from None

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, fields: object, check: ModelWrapValidatorHandler["Group"]) -> "Group":
        """Say what is wrong in our own words, also where Prefect or Python shows it."""
        try:
            return check(fields)
        except ValidationError as error:
            raise in_our_words(error) from None

    @model_serializer(mode="wrap", when_used="json")
    def _drop_empty_fields(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Prefect's server refuses None where the form has a list of choices."""
        return {name: value for name, value in fields(self).items() if value is not None}

    def component_options(self, component: str) -> dict[str, Any]:
        """Return the options that the user has set for a component, by their names there."""
        options = {}
        for name, field in type(self).model_fields.items():
            for marker in field.metadata:
                if isinstance(marker, ComponentOption) and marker.component == component:
                    options[marker.name] = getattr(self, name)
        return {name: value for name, value in options.items() if value is not None}


class Source(Group):
    """The pool, and how to read it."""

    input: list[Uri] = Field(
        title="Input",
        description="Files, folders, globs, s3:// or hf:// URIs, or a data set of the hub "
        "(hf:org/name:config:split): JSON, JSON Lines, CSV (also .gz, .bz2, .xz, .zst), Parquet, "
        "Arrow.",
        min_length=1,
    )
    format: InputFormat = Field(
        "auto", title="Format", description="Row format of the pool; auto detects it in each file."
    )
    min_good_fraction: float = Field(
        0.95,
        ge=0,
        le=1,
        title="Minimum share of good rows",
        description="Fail if a smaller share of the rows can be read, scored and embedded. "
        "Between 0 and 1.",
    )

    @field_validator("input", mode="before")
    @classmethod
    def _single_input(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """The pool's name in run names: the last step of its first path, never a whole URI."""
        uri = self.input[0]
        address = uri.split("?")[0] if "://" in uri else uri
        first = address.rstrip("/").rsplit("/", 1)[-1] or "pool"
        more = f" and {len(self.input) - 1} more" if len(self.input) > 1 else ""
        return f"{first[:MAX_NAME_LENGTH]}{more}"


class Scoring(Group):
    """The scorers of instructions (complexity) and responses (quality).

    Empty fields follow the preset.
    """

    complexity: ScorerName | None = Field(
        None,
        title="Complexity scorer",
        description=f"Scores instructions from 1 to 6. Default: {_defaults('complexity')}.",
    )
    complexity_model: Annotated[str | None, ComponentOption("complexity", "model")] = Field(
        None,
        title="Complexity model",
        description="Hub id or local folder, for a scorer with a model.",
    )
    complexity_revision: Annotated[str | None, ComponentOption("complexity", "revision")] = Field(
        None,
        title="Complexity model revision",
        description="Branch, tag or commit on the hub. Default: the pinned commit, else main.",
    )
    complexity_head: Annotated[Uri | None, ComponentOption("complexity", "head")] = Field(
        None,
        title="Complexity head",
        description="For mini: folder with a head of your own, local or on S3, as deita "
        "train-scorer --head mini writes it. Default: the packaged one.",
    )
    quality: ScorerName | None = Field(
        None,
        title="Quality scorer",
        description=f"Scores responses from 1 to 6. Default: {_defaults('quality')}.",
    )
    quality_model: Annotated[str | None, ComponentOption("quality", "model")] = Field(
        None,
        title="Quality model",
        description="Hub id or local folder, for a scorer with a model.",
    )
    quality_revision: Annotated[str | None, ComponentOption("quality", "revision")] = Field(
        None,
        title="Quality model revision",
        description="Branch, tag or commit on the hub. Default: the pinned commit, else main.",
    )
    quality_head: Annotated[Uri | None, ComponentOption("quality", "head")] = Field(
        None,
        title="Quality head",
        description="For mini: folder with a head of your own, local or on S3, as deita "
        "train-scorer --head mini writes it. Default: the packaged one.",
    )
    score_max_length: Annotated[int | None, ComponentOption("scorers", "max_length")] = Field(
        None,
        ge=64,
        title="Maximum prompt length",
        description="Tokens that a scorer reads; longer prompts lose part of their content, and "
        "are counted. At least 64. Default: the model's window.",
    )
    score_dtype: Annotated[Dtype | None, ComponentOption("scorers", "dtype")] = Field(
        None,
        title="Scorer number type",
        description="auto: bfloat16 where the hardware supports it well. Default: auto.",
    )
    score_compile: Annotated[bool | None, ComponentOption("scorers", "compile")] = Field(
        None,
        title="Compile scorers",
        description="For causal_lm: fuse norms and MLPs by torch.compile, for GPUs; loading waits "
        "for the compiler. Default: no.",
    )
    complexity_url: Annotated[str | None, ComponentOption("complexity", "base_url")] = Field(
        None,
        title="Complexity server",
        description="For openai and judge: base URL of the API, such as http://localhost:8000/v1.",
    )
    complexity_tokenizer: Annotated[str | None, ComponentOption("complexity", "tokenizer")] = Field(
        None,
        title="Complexity model tokenizer",
        description="For openai: hub id or local folder. Default: the model.",
    )
    quality_url: Annotated[str | None, ComponentOption("quality", "base_url")] = Field(
        None,
        title="Quality server",
        description="For openai and judge: base URL of the API, such as http://localhost:8000/v1.",
    )
    quality_tokenizer: Annotated[str | None, ComponentOption("quality", "tokenizer")] = Field(
        None,
        title="Quality model tokenizer",
        description="For openai: hub id or local folder. Default: the model.",
    )
    score_server: Annotated[
        Literal["vllm", "other"] | None, ComponentOption("scorers", "server")
    ] = Field(
        None,
        title="Kind of server",
        description="For openai. vllm: ask for the six digits by token id; other: ask for the "
        "most probable tokens. Default: vllm.",
    )
    api_key_env: Annotated[str | None, ComponentOption("scorers", "api_key_env")] = Field(
        None,
        title="API key variable",
        description="For openai and judge: environment variable that holds the API key. "
        f"Default: {SERVER_KEY_ENV}.",
    )
    api_key_block: Annotated[str | None, ComponentOption("scorers", "api_key_block")] = Field(
        None,
        title="API key block",
        description="For openai and judge: Prefect Secret block that holds the API key.",
    )
    concurrency: Annotated[int | None, ComponentOption("scorers", "concurrency")] = Field(
        None,
        ge=1,
        title="Concurrent requests",
        description="For openai and judge: requests in flight. At least 1. "
        f"Default: {SERVER_CONCURRENCY}.",
    )
    request_timeout: Annotated[float | None, ComponentOption("scorers", "timeout")] = Field(
        None,
        gt=0,
        title="Request timeout",
        description="For openai and judge: seconds that an attempt at a request may take in all. "
        f"More than 0. Default: {SERVER_TIMEOUT:g}.",
    )
    request_attempts: Annotated[int | None, ComponentOption("scorers", "attempts")] = Field(
        None,
        ge=1,
        title="Request attempts",
        description="For openai and judge: attempts at a request. If all fail and the server "
        "answers another, the row becomes unscorable. "
        f"At least 1. Default: {SERVER_ATTEMPTS}.",
    )
    complexity_column: Annotated[str | None, ComponentOption("complexity", "column")] = Field(
        None,
        title="Complexity column",
        description="For provided: the scores of a row, one a user turn. Default: "
        "complexity_scores in the rows, complexity in a file.",
    )
    complexity_per: Annotated[ScorePer | None, ComponentOption("complexity", "per")] = Field(
        None,
        title="Complexity per turn or row",
        description="For provided. turn: a score for each user turn; row: one number for the "
        "whole conversation, which the evol score counts once. Default: turn.",
    )
    complexity_scale: Annotated[Scale | None, ComponentOption("complexity", "scale")] = Field(
        None,
        title="Complexity scale",
        description="For provided: range of the scores, such as 0..10, which is mapped linearly "
        "onto 1 to 6. Default: 1..6.",
    )
    quality_column: Annotated[str | None, ComponentOption("quality", "column")] = Field(
        None,
        title="Quality column",
        description="For provided: the scores of a row, one a user turn. Default: quality_scores "
        "in the rows, quality in a file.",
    )
    quality_per: Annotated[ScorePer | None, ComponentOption("quality", "per")] = Field(
        None,
        title="Quality per turn or row",
        description="For provided. turn: a score for each user turn; row: one number for the "
        "whole conversation, which the evol score counts once. Default: turn.",
    )
    quality_scale: Annotated[Scale | None, ComponentOption("quality", "scale")] = Field(
        None,
        title="Quality scale",
        description="For provided: range of the scores, such as 0..10, which is mapped linearly "
        "onto 1 to 6. Default: 1..6.",
    )
    scores_file: Annotated[str | None, ComponentOption("scorers", "file")] = Field(
        None,
        title="Scores file",
        description="For provided: Parquet, CSV or JSON Lines file joined by key, id or "
        "source_row. Default: the pool's own rows.",
    )
    scores_key: Annotated[str | None, ComponentOption("scorers", "key")] = Field(
        None,
        title="Scores key",
        description="For provided: column that scores file and pool both have, and that joins "
        "them. Default: id, else the source row.",
    )
    language_model: Annotated[str | None, ComponentOption("language_model", "model")] = Field(
        None,
        title="Language model",
        description="For ifd and perplexity in rank_by: hub id or local folder of a small causal "
        "language model.",
    )
    language_model_revision: Annotated[
        str | None, ComponentOption("language_model", "revision")
    ] = Field(
        None,
        title="Language model revision",
        description="Branch, tag or commit on the hub. Default: the pinned commit, else main.",
    )
    language_model_max_length: Annotated[
        int | None, ComponentOption("language_model", "max_length")
    ] = Field(
        None,
        ge=2,
        title="Language model length",
        description="Tokens of an instruction and its response that are read. At least 2. Default: "
        f"{LANGUAGE_MODEL_TOKENS}.",
    )
    language_model_dtype: Annotated[Dtype | None, ComponentOption("language_model", "dtype")] = (
        Field(
            None,
            title="Language model number type",
            description="auto: bfloat16 where the hardware supports it well. Default: float32.",
        )
    )


class Embedding(Group):
    """The model that embeds conversations, for their similarity.

    Empty fields follow the preset.
    """

    embedding: EmbedderName | None = Field(
        None,
        title="Embedder",
        description=f"Computes one vector a conversation. Default: {_defaults('embedding')}.",
    )
    embedding_model: Annotated[str | None, ComponentOption("embedding", "model")] = Field(
        None, title="Embedding model", description="Hub id or local folder."
    )
    embedding_revision: Annotated[str | None, ComponentOption("embedding", "revision")] = Field(
        None,
        title="Embedding model revision",
        description="Branch, tag or commit on the hub. Default: the pinned commit, else main.",
    )
    embedding_max_length: Annotated[int | None, ComponentOption("embedding", "max_length")] = Field(
        None,
        ge=16,
        title="Maximum text length",
        description="Tokens that the embedder reads at once. At least 16. Default: the model's "
        "window; 2048 for causal_lm.",
    )
    long_texts: Annotated[
        Literal["windows", "beginning"] | None, ComponentOption("embedding", "long_texts")
    ] = Field(
        None,
        title="Long texts",
        description="What is embedded of texts over that length. windows: all of it, in pieces "
        "whose vectors are averaged; beginning: only the first piece; such texts are counted. "
        "Default: windows; causal_lm knows only beginning.",
    )
    embedding_text: Annotated[
        Literal["all", "instructions", "answers"] | None, ComponentOption("embedding", "text")
    ] = Field(
        None,
        title="Embedded text",
        description="What similarity looks at: all turns, the user's alone, or the assistant's "
        "alone. Default: all.",
    )
    embedding_dtype: Annotated[Dtype | None, ComponentOption("embedding", "dtype")] = Field(
        None,
        title="Embedder number type",
        description="auto: bfloat16 where the hardware supports it well. Default: float32 for "
        "sentence_transformers, auto for causal_lm.",
    )
    embedding_compile: Annotated[bool | None, ComponentOption("embedding", "compile")] = Field(
        None,
        title="Compile embedder",
        description="For causal_lm: fuse norms and MLPs by torch.compile, for GPUs; loading waits "
        "for the compiler. Default: no.",
    )
    embedding_column: Annotated[str | None, ComponentOption("embedding", "column")] = Field(
        None,
        title="Embedding column",
        description="For provided: the vector of a row. Default: embedding.",
    )
    embeddings_file: Annotated[str | None, ComponentOption("embedding", "file")] = Field(
        None,
        title="Embeddings file",
        description="For provided: Parquet, CSV or JSON Lines file joined by key, id or "
        "source_row. Default: the pool's own rows.",
    )
    embeddings_key: Annotated[str | None, ComponentOption("embedding", "key")] = Field(
        None,
        title="Embeddings key",
        description="For provided: column that embeddings file and pool both have, and that joins "
        "them. Default: id, else the source row.",
    )


RANK_BY_HELP = (
    "Expression of scores to rank by, such as ifd or 2 * quality - log(length), as in select. "
    "Default: complexity * quality."
)


class Budget(Group):
    """How many conversations to select."""

    budget: int = Field(
        6000, ge=1, title="Budget", description="Maximum number of conversations. At least 1."
    )
    rank_by: str | None = Field(None, title="Rank by", description=RANK_BY_HELP)


class Filtering(Group):
    """Rows that no selection may keep, found before any model works, and the tokens of rows."""

    decontaminate: list[Uri] | None = Field(
        None,
        title="Evaluation files",
        description="Leave out rows that repeat a prompt or an answer of these files: any format "
        "of the input, or prompts alone. Default: none.",
    )
    decontaminate_words: int = Field(
        NGRAM_WORDS,
        ge=2,
        title="Words of an n-gram",
        description="Words that are compared together; a shorter prompt has to be a whole turn. At "
        "least 2.",
    )
    decontaminate_share: float = Field(
        CONTAMINATED_SHARE,
        ge=0,
        le=1,
        title="Contaminated share",
        description="A row is contaminated if it has this share of an evaluation text's n-grams. "
        "Between 0 and 1; 0: a single one is enough.",
    )
    decontaminate_run: int = Field(
        CONTAMINATED_RUN,
        ge=2,
        title="Contaminated run",
        description="A row is contaminated if it has so many words of an evaluation text in a row, "
        "whatever their share. At least 2.",
    )
    decontaminate_similarity: float | None = Field(
        None,
        ge=COSINE_MIN,
        le=COSINE_MAX,
        title="Contaminated similarity",
        description="Leave out rows whose embedding is more similar than this to that of an "
        "evaluation row too; embeds the whole pool. Between -1 and 1. Default: only words are "
        "compared.",
    )
    tokenizer: str | None = Field(
        None,
        title="Tokenizer",
        description="Hub id or local folder of the model to be trained: counts the tokens of every "
        "row under its chat template. Default: tokens are not counted.",
    )
    tokenizer_revision: str | None = Field(
        None,
        title="Tokenizer revision",
        description="Branch, tag or commit on the hub. Default: the pinned commit, else main.",
    )
    chat_template: ChatTemplate | None = Field(
        None,
        title="Chat template",
        description="How a conversation becomes text. own: the tokenizer's; vicuna: the paper's; "
        "chatml. Default: the tokenizer's if it has one, else vicuna.",
    )
    train_window: int | None = Field(
        None,
        ge=8,
        title="Training window",
        description="Tokens of a row that the training reads. A row whose answers lie wholly "
        "beyond them is left out as too long. At least 8. Default: no window.",
    )
    cut_turns: bool = Field(
        False,
        title="Cut at a turn",
        description="Cut a row that exceeds the training window after the last answer with which "
        "it fits; a row whose first answer does not fit is too long. Models and the subset get "
        "what is left.",
    )

    @model_validator(mode="after")
    def _check_tokenizer(self) -> "Filtering":
        for name in ("tokenizer_revision", "chat_template", "train_window"):
            if getattr(self, name) is not None and self.tokenizer is None:
                raise our_error(f"{name} = {getattr(self, name)}: needs a tokenizer")
        if self.cut_turns and self.train_window is None:
            raise our_error("cut_turns: needs a training window (train_window)")
        if self.decontaminate_similarity is not None and not self.decontaminate:
            raise our_error(
                f"decontaminate_similarity = {self.decontaminate_similarity:g}: needs evaluation "
                "files to compare with (decontaminate)"
            )
        return self

    @field_validator("decontaminate", mode="before")
    @classmethod
    def _single_file(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Selection(Group):
    """How many conversations to select, and by which rule."""

    model_config = ConfigDict(json_schema_extra=_bound_cosine)

    # In the form a number alone: a choice of two types would be two tabs.
    budget: Annotated[
        Annotated[int, Field(ge=1)] | Literal["all"],
        WithJsonSchema({"type": "integer", "minimum": 1}),
    ] = Field(
        6000,
        title="Budget",
        description="Maximum number of conversations, at least 1; in commands and files also all. "
        "Default: 6000, or all with a budget in tokens.",
    )
    budget_tokens: int | None = Field(
        None,
        ge=1,
        title="Budget in tokens",
        description="Maximum number of tokens that the training reads (needs a tokenizer). The "
        "selection ends before the first row that does not fit. At least 1. Default: no limit.",
    )

    strategy: StrategyName = Field(
        "diverse",
        title="Strategy",
        description="diverse: the paper's rule, best evol score first without near-duplicates; "
        "top_score: best first; random: a control; complexity_only, quality_only, length: the "
        "paper's baselines; k_center, facility_location, mmr: other ways to spread; semdedup: "
        "near-duplicates within clusters; mig: most information about tags; relevance: most like a "
        "target.",
    )
    target: list[Uri] | None = Field(
        None,
        title="Target files",
        description="For relevance: files with examples of the task to train for, in any format of "
        "the input, or prompts alone; several files take turns. Default: none.",
    )
    tags: str | None = Field(
        None,
        title="Tags column",
        description="For mig: column of the pool that holds the tags of a row. Default: none.",
    )
    max_similarity: float | None = Field(
        None,
        title="Maximum similarity",
        description="For diverse: reject a conversation more similar than this to a selected one. "
        "A cosine from -1 to 1, unless metric is dot. "
        f"Default: {DEFAULT_MAX_SIMILARITY} (both presets), for cosine.",
    )
    metric: Literal["cosine", "dot", "euclidean", "manhattan"] | None = Field(
        None,
        title="Metric",
        description="For diverse: how to compare vectors; euclidean and manhattan take a minimum "
        "distance instead of a maximum similarity. Default: cosine.",
    )
    min_distance: float | None = Field(
        None,
        ge=0,
        title="Minimum distance",
        description="For diverse with euclidean or manhattan: reject a conversation nearer than "
        "this to a selected one. At least 0.",
    )
    ranking: Literal["evol", "complexity", "quality", "length"] | None = Field(
        None,
        title="Ranking",
        description="Score that decides which conversation comes first. Default: the strategy's "
        "own, evol for most.",
    )
    rank_by: str | None = Field(
        None,
        title="Rank by",
        description="Expression of scores to rank by, such as ifd or 2 * quality - log(length): "
        "complexity, quality, ifd, perplexity, length, provided:COLUMN, numbers, + - * / and min, "
        "max, mean, log. Default: complexity * quality.",
    )
    ifd_below: float | None = Field(
        None,
        gt=0,
        title="IFD below",
        description="For ifd in rank_by: a row is unscorable unless each IFD is below this. More "
        f"than 0. Default: {IFD_BELOW:g}, from where the instruction does not help.",
    )
    evol_score: Literal["sum", "mean", "max"] | None = Field(
        None,
        title="Evol score",
        description="How to combine the turns of a conversation. Default: sum, the paper's, which "
        "favours long conversations.",
    )
    evaluation: Evaluation = Field(
        "lazy",
        title="Evaluation",
        description="lazy: compute only the scores and vectors that can change the selection, "
        "which is the same; all: compute every one, to see all scores in report and ledger.",
    )
    strata: str | None = Field(
        None,
        title="Strata",
        description="Column of the pool (or source_uri, its file) whose values are limited to "
        "per_stratum rows each. Default: no strata.",
    )
    per_stratum: int | None = Field(
        None,
        ge=1,
        title="Rows per stratum",
        description="Maximum number of rows for each value of strata, or each cluster. At least 1.",
    )
    mix: str | None = Field(
        None,
        title="Mix",
        description="Divide the budget by a column, such as source=math:0.3,*:0.7. A share has a "
        "decimal point, a number of rows none; MIN..MAX is a range; * is all other values. "
        "Default: no mix.",
    )
    clusters: int | None = Field(
        None,
        ge=1,
        title="Clusters",
        description="Divide the budget evenly among so many clusters (k-means) of the embeddings; "
        "with per_stratum, at most so many rows each. At least 1. Default: no clusters.",
    )
    weight: float | None = Field(
        None,
        ge=0,
        le=1,
        title="Weight",
        description="For mmr: weight of the score against the similarity to selected rows. "
        f"Between 0 and 1. Default: {MMR_WEIGHT}.",
    )
    candidates: int | None = Field(
        None,
        ge=1,
        title="Candidates",
        description="For k_center, facility_location and mmr: consider only this many of the best "
        "rows. At least 1, and no fewer than the budget. Default: all; "
        f"{FACILITY_LOCATION_CANDIDATES:,} for facility_location.",
    )
    eps: float | None = Field(
        None,
        ge=0,
        le=2,
        title="Epsilon",
        description="For semdedup: reject a conversation more similar than 1 - eps to a selected "
        f"one of its group. Between 0 and 2. Default: {SEMDEDUP_EPSILON}.",
    )
    groups: int | None = Field(
        None,
        ge=1,
        title="Groups",
        description="For semdedup: number of clusters (k-means) within which conversations are "
        "compared. At least 1. Default: the square root of the number of rows.",
    )
    seed: int = Field(
        0, ge=0, title="Seed", description="For random: seed of the draw. At least 0."
    )
    target_size: Literal["at_most", "exact"] = Field(
        "at_most",
        title="Target size",
        description="If the pool runs out before the budget. at_most: write what there is and say "
        "so; exact: fail, with the count.",
    )

    @field_validator("target", mode="before")
    @classmethod
    def _single_target(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _leave_rows_to_tokens(cls, fields: object) -> object:
        """Let a budget in tokens alone decide, unless there is one in rows too."""
        if isinstance(fields, dict) and fields.get("budget_tokens") is not None:
            return {"budget": "all", **fields}
        return fields

    @field_validator("budget", mode="wrap")
    @classmethod
    def _explain_budget(cls, value: object, check: ValidatorFunctionWrapHandler) -> object:
        """Say in one sentence what neither form allows."""
        try:
            return check(value)
        except ValidationError:
            expected = "a whole number of at least 1, or all"
            raise our_error(unexpected(value, expected)) from None

    @property
    def rows(self) -> int:
        """The most rows to select."""
        return EVERY_ROW if self.budget == "all" else self.budget

    @model_validator(mode="after")
    def _check_candidates(self) -> "Selection":
        if self.budget == "all":
            return self
        if self.candidates is not None and self.candidates < self.budget:
            raise our_error(
                f"candidates = {self.candidates}: expected at least the budget, {self.budget}"
            )
        return self

    @model_validator(mode="after")
    def _check_cosine(self) -> "Selection":
        limit = self.max_similarity
        if limit is None or self.metric not in (None, "cosine"):
            return self
        if not COSINE_MIN <= limit <= COSINE_MAX:
            raise our_error(
                f"max_similarity = {limit}: expected a cosine, between {COSINE_MIN:g} and "
                f"{COSINE_MAX:g}"
            )
        return self


class Output(Group):
    """Where the result goes."""

    output: Uri = Field(
        title="Output",
        description="Folder or s3:// URI for the result. Must be new or empty; {run} in it becomes "
        "a folder named after the run, which is always new.",
    )
    overwrite: bool = Field(
        False, title="Overwrite", description="Replace an earlier result in the output folder."
    )


class SubsetOptions(Group):
    """What the subset of a selection looks like."""

    output_format: OutputFormat = Field(
        "input", title="Output format", description="Format of the subset; input: the pool's own."
    )
    scores: bool = Field(
        True,
        title="Score columns",
        description="Add deita_id, deita_evol_score and deita_rank to every row of the subset.",
    )
    complete_only: bool = Field(
        False,
        title="Complete conversations only",
        description="Leave out selected conversations that do not end with an answer or a tool "
        "call of the assistant; they are counted, and stay in the ledger.",
    )

    def subset_options(self) -> "SubsetOptions":
        """Return these options without those of where the subset goes."""
        names = SubsetOptions.model_fields
        return SubsetOptions(**{name: getattr(self, name) for name in names})


class Export(SubsetOptions, Output):
    """Where the selection goes, and in which format."""


class Versions(SubsetOptions):
    """Where new versions of the selection go, and in which format."""

    output: Uri = Field(
        title="Output",
        description="Folder or s3:// URI for the versions, and for latest, which points to the "
        "newest.",
    )
    keep_versions: int = Field(
        10,
        ge=1,
        title="Versions to keep",
        description="Remove older versions, but never the latest. At least 1.",
    )
    approve: bool = Field(
        False,
        title="Approve",
        description="Ask a person before latest moves: the run waits on its page in the Prefect "
        "UI, with the changes.",
    )
    approve_within: float = Field(
        24,
        gt=0,
        title="Approve within",
        description="Hours after which a run that nobody answers fails, and latest stays. More "
        "than 0.",
    )


class Grid(Group):
    """The selections to compare: each strategy with each limit and budget, and random ones."""

    budgets: list[Annotated[int, Field(ge=1)]] = Field(
        [1000, 3000, 6000],
        min_length=1,
        title="Budgets",
        description="Maximum numbers of conversations; each at least 1.",
    )
    similarities: list[Annotated[float, Field(ge=COSINE_MIN, le=COSINE_MAX)]] = Field(
        [0.85, 0.9, 0.95],
        min_length=1,
        title="Maximum similarities",
        description="Limits for the strategy diverse, each between -1 and 1.",
    )
    strategies: list[StrategyName] = Field(
        ["diverse", "top_score"],
        min_length=1,
        title="Strategies",
        description="Strategies to compare; random is always added as the control.",
    )
    target: list[Uri] | None = Field(
        None,
        title="Target files",
        description="For relevance: files with examples of the task to train for. Default: none.",
    )
    tags: str | None = Field(
        None,
        title="Tags column",
        description="For mig: column of the pool that holds the tags of a row. Default: none.",
    )
    rank_by: str | None = Field(None, title="Rank by", description=RANK_BY_HELP)
    coverage_rows: int = Field(
        20_000,
        ge=1,
        title="Coverage rows",
        description="Measure coverage over a sample of this many rows. At least 1.",
    )
    seed: int = Field(
        0, ge=0, title="Seed", description="Seed of the random selections. At least 0."
    )

    @field_validator("budgets", "similarities")
    @classmethod
    def _sort_distinct(cls, numbers: list[Any]) -> list[Any]:
        return sorted(set(numbers))

    @field_validator("strategies")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        return list(dict.fromkeys(names))


class Runtime(Group):
    """Where a run keeps things, and where it works; never what it makes."""

    store: Uri = Field(
        ".deita",
        title="Store",
        description="Folder or s3:// URI that keeps pools, scores, embeddings, selections and "
        "trained models between runs.",
    )
    retries: int = Field(
        2,
        ge=0,
        title="Retries",
        description="Retries of a failed shard or training, with growing pauses. At least 0.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", title="Device", description="Where models run; auto: CUDA if there is any."
    )
    device_slots: int | None = Field(
        None,
        ge=0,
        title="Shards per device",
        description="Shards or trainings that compute on one device at a time, over all runs of a "
        "Prefect server; 0: no limit. At least 0. Default: 1 on a GPU; no limit on a CPU, or if "
        "the command starts its own server.",
    )


class Advanced(Runtime):
    """How a run works; never what it selects."""

    shard_rows: int | None = Field(
        None,
        ge=1,
        title="Rows per shard",
        description="Rows that one task scores or embeds. At least 1. Default: a fiftieth of the "
        "rows to compute, at least 128.",
    )
    allow_bin: bool = Field(
        False,
        title="Weights from .bin files",
        description="Also load weights from .bin files, for checkpoints without safetensors; no "
        "code in them runs.",
    )
    runner: RunnerName | None = Field(
        None,
        title="Runner",
        description="Where shards are computed. thread: in this process; process: in other "
        "processes of this machine; dask, ray (extras): there, or on a cluster. Default: "
        "DEITA_RUNNER, else thread.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        title="Workers",
        description="Shards computed at a time on this machine. At least 1. Default: 1; one per "
        "GPU with process, dask or ray.",
    )
    cluster: str | None = Field(
        None,
        title="Cluster",
        description="Address of a Dask scheduler (tcp://host:8786) or of Ray (ray://host:10001); "
        "its workers must reach the store and the Prefect server. Default: DEITA_CLUSTER, else "
        "workers on this machine.",
    )
    num_gpus: float | None = Field(
        None,
        ge=0,
        title="GPUs per shard",
        description="What a shard requests from Ray, or from a Dask cluster (resource GPU). At "
        "least 0. Default: 1 if this machine has CUDA. If only the cluster does, set device to "
        "cuda.",
    )
    shard_timeout: float | None = Field(
        None,
        gt=0,
        title="Shard timeout",
        description="Give up on a shard after this many seconds; checked between batches. More "
        "than 0. Default: no limit.",
    )


class TrainingData(Source):
    """What to train on, and how to read it."""

    decontaminate: list[Uri] | None = Field(
        None,
        title="Evaluation files",
        description="Leave out rows that repeat a prompt or an answer of these files, by the rule "
        "of select. Default: none.",
    )

    input: list[Uri] = Field(
        title="Input",
        description="Output of select or of reselect (its latest version); or files, folders, "
        "globs, s3:// or hf:// URIs of conversations in any format that select reads.",
        min_length=1,
    )
    min_good_fraction: float = Field(
        0.95,
        ge=0,
        le=1,
        title="Minimum share of good rows",
        description="Fail if a smaller share of the rows can be read and trained on. Between 0 "
        "and 1.",
    )


class TrainingOptions(Group):
    """The model to start from, and how to train it. Empty fields follow the recipe."""

    base: Uri = Field(title="Base model", description="Hub id or local folder.")
    base_revision: str | None = Field(
        None,
        title="Base model revision",
        description="Branch, tag or commit on the hub. Default: the pinned commit, else main.",
    )
    recipe: RecipeName = Field(
        "cpu",
        title="Recipe",
        description="; ".join(f"{name}: {recipe.purpose}" for name, recipe in RECIPES.items())
        + ".",
    )
    epochs: float | None = Field(
        None,
        gt=0,
        title="Epochs",
        description="How often each row is trained on. More than 0. Default: the recipe's.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        title="Learning rate",
        description="At its highest, after the warm-up. More than 0. Default: the recipe's.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        title="Batch size",
        description="Rows of one update, over all devices. At least 1. Default: the recipe's.",
    )
    device_batch_size: int | None = Field(
        None,
        ge=1,
        title="Rows per device",
        description="Rows that a device holds at once; halved if memory runs out. At least 1. "
        "Default: the recipe's.",
    )
    max_length: int | None = Field(
        None,
        ge=8,
        title="Window",
        description="Tokens of a row that are trained on; the rest is cut, and counted. At least "
        "8. Default: the recipe's.",
    )
    lora_rank: int | None = Field(
        None,
        ge=0,
        title="LoRA rank",
        description="Rank of the adapter; 0: train all weights. At least 0. Default: the recipe's.",
    )
    bfloat16: bool | None = Field(
        None,
        title="Multiply in bfloat16",
        description="Multiply matrices in bfloat16; faster on GPUs, and on CPUs with AMX. Default: "
        "the recipe's.",
    )
    seed: int = Field(
        0, ge=0, title="Seed", description="Of the order of rows, dropout and adapter. At least 0."
    )
    checkpoint_steps: int | None = Field(
        None,
        ge=1,
        title="Updates per checkpoint",
        description="Save a checkpoint after so many updates, from which a killed run goes on. At "
        "least 1. Default: a tenth of all updates.",
    )
    launcher: str | None = Field(
        None,
        title="Launcher",
        description="Options of `accelerate launch`, for several devices: --multi-gpu "
        "--num-processes 8. Default: train in this process, on one device.",
    )

    @property
    def name(self) -> str:
        """The base model's name in run names: the last step of its id or path."""
        return self.base.rstrip("/").rsplit("/", 1)[-1][:MAX_NAME_LENGTH]


class Training(TrainingOptions):
    """The model to start from, and how to train it. Empty fields follow the recipe."""

    chat_template: ChatTemplate | None = Field(
        None,
        title="Chat template",
        description="How a conversation becomes text. own: the base model's; vicuna: the paper's; "
        "chatml. Default: the base model's if it has one, else vicuna.",
    )


class Preferences(Group):
    """Preference pairs for DPO, which follows if there are any. Empty fields follow the recipe."""

    preferences: list[Uri] | None = Field(
        None,
        title="Preferences",
        description="Files with the columns prompt, chosen and rejected. Default: no DPO.",
    )
    dpo_epochs: float | None = Field(
        None,
        gt=0,
        title="DPO epochs",
        description="How often each pair is trained on. More than 0. Default: the recipe's.",
    )
    dpo_learning_rate: float | None = Field(
        None,
        gt=0,
        title="DPO learning rate",
        description="At its highest, after the warm-up. More than 0. Default: the recipe's.",
    )
    dpo_batch_size: int | None = Field(
        None,
        ge=1,
        title="DPO batch size",
        description="Pairs of one update, over all devices. At least 1. Default: the recipe's.",
    )
    beta: float | None = Field(
        None,
        gt=0,
        title="Beta",
        description="How strongly the model after SFT holds the trained one. More than 0. "
        "Default: the recipe's.",
    )


class Comparison(Group):
    """The selection to compare, and the other choices of rows that are trained on like it."""

    selection: Uri = Field(
        title="Selection",
        description="Output of select, or of reselect (its latest version). Its pool must still "
        "be in the store.",
    )
    arms: list[Literal["random", "longest", "top_score", "everything"]] = Field(
        ["random", "longest", "top_score"],
        title="Arms",
        description="What the selection is compared with. random: rows drawn from its pool; "
        "longest: those with the longest answers; top_score: the best evol scores, similar rows "
        "too; everything: the whole pool.",
        min_length=1,
    )
    draws: int = Field(
        3, ge=1, title="Random draws", description="How often random rows are drawn. At least 1."
    )
    budget_by: Literal["rows", "tokens"] = Field(
        "rows",
        title="Budget by",
        description="What all arms but everything have as many of as the selection.",
    )
    seeds: int = Field(
        1,
        ge=1,
        title="Seeds",
        description="How often each arm is trained, with seeds from the training's on. At least 1.",
    )

    @property
    def name(self) -> str:
        """The selection's name in run names: the last step of its path."""
        return self.selection.rstrip("/").rsplit("/", 1)[-1][:MAX_NAME_LENGTH]

    @field_validator("arms")
    @classmethod
    def _distinct_arms(cls, names: list[str]) -> list[str]:
        return list(dict.fromkeys(names))


class Measures(Group):
    """How the trained models are measured. At least one of the first three has to be set."""

    held_out: list[Uri] | None = Field(
        None,
        title="Held-out rows",
        description="Conversations of your own use, whose answers the models predict. Default: "
        "none.",
    )
    pairs: list[Uri] | None = Field(
        None,
        title="Preference pairs",
        description="Files with the columns prompt, chosen and rejected: which answer does a "
        "model find more probable? Default: none.",
    )
    tasks: list[str] | None = Field(
        None,
        title="Tasks of lm-eval",
        description="Names of tasks of EleutherAI's harness (extra eval). Default: none.",
    )
    task_limit: int | None = Field(
        None,
        ge=1,
        title="Items per task",
        description="Use only so many items of each task. At least 1. Default: all.",
    )
    prompts: int = Field(
        5,
        ge=0,
        title="Prompts",
        description="Held-out prompts that the models answer, for the report and the judge. At "
        "least 0.",
    )
    judge_url: str | None = Field(
        None,
        title="Judge",
        description="Base URL of an OpenAI-compatible API, such as http://localhost:8000/v1, "
        "whose model says which answer is better. Default: no judge.",
    )
    judge_model: str | None = Field(
        None, title="Judge model", description="For the judge: its name on the server."
    )
    judge_key_env: str = Field(
        SERVER_KEY_ENV,
        title="Judge key variable",
        description="Environment variable that holds the judge's API key.",
    )

    @model_validator(mode="after")
    def _check_judge(self) -> "Measures":
        if (self.judge_url is None) != (self.judge_model is None):
            raise our_error("a judge needs both judge_url and judge_model")
        if self.judge_url is not None and not (self.held_out and self.prompts):
            raise our_error("a judge needs held_out rows, and prompts above 0")
        return self


class SeedSource(Source):
    """The conversations that chains of rewrites begin with, and what is scored."""

    input: list[Uri] = Field(
        title="Input",
        description="Files, folders, globs, s3:// or hf:// URIs of conversations, or an output of "
        "select or reselect. The first pair of each may begin a chain; complexity takes "
        "instructions without answers too.",
        min_length=1,
    )
    min_good_fraction: float = Field(
        0.95,
        ge=0,
        le=1,
        title="Minimum share of good rows",
        description="Fail if a smaller share of the rows can be read. Between 0 and 1.",
    )
    kind: Literal["complexity", "quality"] = Field(
        title="Kind of score",
        description="complexity: instructions are rewritten, and scored alone; quality: responses "
        "are, and scored beside their instruction.",
    )
    chains: int = Field(
        1000,
        ge=2,
        title="Chains",
        description="Conversations to draw; all if there are fewer. At least 2.",
    )
    seed_strata: str | None = Field(
        None,
        title="Strata of the seeds",
        description="Column of the input over whose values seeds are drawn evenly. Default: drawn "
        "from all rows alike.",
    )
    licence: str = Field(
        "unknown",
        title="Licence",
        description="Licence of the data set, which its card and each of its rows name.",
    )


class Rewriting(Group):
    """The chat model that rewrites a text round by round."""

    rewrite_url: str = Field(
        title="Server",
        description="Base URL of an OpenAI-compatible API, such as http://localhost:8000/v1.",
    )
    rewrite_model: str = Field(
        min_length=1, title="Model", description="The model's name on the server."
    )
    rewrite_key_env: str = Field(
        SERVER_KEY_ENV,
        title="Key variable",
        description="Environment variable that holds the server's API key.",
    )
    rewrite_key_block: str | None = Field(
        None,
        min_length=1,
        title="Key block",
        description="Prefect Secret block that holds the API key. Default: the variable holds it.",
    )
    rewrite_temperature: float = Field(
        0.7,
        ge=0,
        title="Temperature",
        description="How freely the model writes; at 0 a rewrite that fails its checks may be "
        "written the same again. At least 0.",
    )
    rewrite_tokens: int = Field(
        1024, ge=1, title="Tokens of a rewrite", description="Tokens of a reply. At least 1."
    )
    rounds: int = Field(
        REWRITE_ROUNDS,
        ge=1,
        title="Rounds",
        description="Rewrites of a chain, each of the text before. At least 1.",
    )
    prompts: str | None = Field(
        None,
        title="Prompts",
        description="Folder with templates of your own, by the names of those in "
        "deita_tasks/evolving/prompts; the others stay. Default: ours.",
    )


class Judging(Group):
    """The chat model that scores all texts of a chain in one request.

    Empty fields follow the model that rewrites.
    """

    judge_url: str | None = Field(
        None,
        title="Judge",
        description="Base URL of an OpenAI-compatible API. Default: that of the rewrites.",
    )
    judge_model: str | None = Field(
        None,
        title="Judge model",
        description="The model's name on the server. Default: that of the rewrites.",
    )
    judge_key_env: str | None = Field(
        None,
        title="Judge key variable",
        description="Environment variable that holds the API key. Default: the key of the "
        f"rewrites on the same server, {SERVER_KEY_ENV} on another.",
    )
    judge_key_block: str | None = Field(
        None,
        min_length=1,
        title="Judge key block",
        description="Prefect Secret block that holds the API key. Default: the variable holds it.",
    )
    judge_temperature: float = Field(
        0.0, ge=0, title="Judge temperature", description="How freely it replies. At least 0."
    )
    judge_tokens: int = Field(
        512, ge=1, title="Tokens of a judgement", description="Tokens of a reply. At least 1."
    )


class Requests(Group):
    """How both models are asked, and how much a run may pay for."""

    dry_run: bool = Field(
        False,
        title="Dry run",
        description="Check everything and estimate requests and tokens; ask for nothing.",
    )
    token_cap: int | None = Field(
        None,
        ge=1,
        title="Token cap",
        description="Fail before a run has paid for more tokens than this, of both models; "
        "replies that the store has are free. At least 1. Default: no cap.",
    )
    requests_per_minute: int | None = Field(
        None,
        ge=1,
        title="Requests per minute",
        description="That a server allows; models of one server share them. At least 1. Default: "
        "no limit.",
    )
    tokens_per_minute: int | None = Field(
        None,
        ge=1,
        title="Tokens per minute",
        description="That a server allows, of prompts and replies. At least 1. Default: no limit.",
    )
    concurrency: int = Field(
        SERVER_CONCURRENCY,
        ge=1,
        title="Concurrent requests",
        description="Requests in flight. At least 1.",
    )
    request_timeout: float = Field(
        SERVER_TIMEOUT,
        gt=0,
        title="Request timeout",
        description="Seconds that an attempt at a request may take in all. More than 0.",
    )
    request_attempts: int = Field(
        SERVER_ATTEMPTS,
        ge=1,
        title="Request attempts",
        description="Attempts at a request, after which the run fails. At least 1.",
    )


class ScorerTraining(TrainingOptions):
    """The model that becomes a scorer, and how to train it. Empty fields follow the recipe."""

    base: Uri | None = Field(  # type: ignore[assignment]
        None, title="Base model", description="Hub id or local folder; for the head causal_lm."
    )
    head: Literal["causal_lm", "mini"] = Field(
        "causal_lm",
        title="Head",
        description="causal_lm: train the base model; mini: fit a head of the scorer mini, in "
        "seconds on a CPU and without a base model.",
    )
    seed: int = Field(
        0,
        ge=0,
        title="Seed",
        description="Of everything drawn: seeds, methods, the order that the judge sees, held-out "
        "chains, the order of rows. At least 0.",
    )

    @model_validator(mode="after")
    def _check_head(self) -> "ScorerTraining":
        """Refuse options of a training for mini."""
        fields = type(self).model_fields
        changed = [name for name in fields if getattr(self, name) != fields[name].default]
        others = [name for name in changed if name not in ("head", "seed")]
        if self.head == "mini" and others:
            raise our_error(f"head = mini trains no model: leave out {', '.join(others)}")
        return self

    @property
    def name(self) -> str:
        """What is fitted, in run names."""
        return "mini" if self.base is None else super().name


class ScorerMeasures(Group):
    """What the trained scorer is measured on, and beside what."""

    held_out_share: float = Field(
        0.1,
        ge=0,
        le=0.5,
        title="Held-out share",
        description="Share of the chains that is not trained on, but measured; at least one. "
        "Between 0 and 0.5.",
    )
    labelled: list[Uri] | None = Field(
        None,
        title="Labelled rows",
        description="Conversations with scores of your own, whose first pair is scored too. "
        "Default: none.",
    )
    label_column: str = Field(
        "score", title="Label column", description="Column of the labelled rows with a number."
    )
    beside: list[str] | None = Field(
        None,
        title="Other scorers",
        description="Scorers to measure on the same texts: names of scorers that need no options, "
        "such as mini; folders with a head of mini; or checkpoints as causal_lm takes them, such "
        "as hkust-nlp/deita-complexity-scorer. Default: none.",
    )
