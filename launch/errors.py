"""The errors that a user can mend: programs print them as one message, without a traceback."""

from chestx_jax.data.bench import BenchError
from chestx_jax.data.chat import ChatError
from chestx_jax.data.example import BucketError
from chestx_jax.data.images import ImageError
from chestx_jax.data.mining import MiningError
from chestx_jax.data.pipeline import PipelineError
from chestx_jax.data.plan import PlanError
from chestx_jax.data.processor import ProcessorError
from chestx_jax.data.questions import QuestionError
from chestx_jax.data.schema import SampleError
from chestx_jax.data.sources import SourceError
from chestx_jax.evaluation.predictions import PredictionError
from chestx_jax.evaluation.radrscore import AggregateError, JudgeError
from chestx_jax.evaluation.records import RecordError
from chestx_jax.evaluation.text_metrics import MetricsError
from chestx_jax.llm import LLMError
from chestx_jax.models.lora import LoRAError
from chestx_jax.models.qwen2_vl import AttentionError, ConfigError
from chestx_jax.parallel import ClusterError, MeshError
from chestx_jax.rewards import RewardError
from chestx_jax.storage import StorageError
from chestx_jax.training.state import TrainingError
from chestx_jax.weights import CheckpointError, WeightsError

EXPECTED = (
    AggregateError,
    AttentionError,
    BenchError,
    BucketError,
    ChatError,
    CheckpointError,
    ClusterError,
    ConfigError,
    FileNotFoundError,
    ImageError,
    JudgeError,
    LLMError,
    LoRAError,
    MeshError,
    MetricsError,
    MiningError,
    PipelineError,
    PlanError,
    PredictionError,
    ProcessorError,
    QuestionError,
    RecordError,
    RewardError,
    SampleError,
    SourceError,
    StorageError,
    TrainingError,
    WeightsError,
)
