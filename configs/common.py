"""The parts that every recipe shares. A recipe calls these and changes what it means to change."""

from ml_collections import ConfigDict


def model(**changes) -> ConfigDict:
    """Which model, in which precision, and what of it learns."""
    return _with(
        dict(
            pretrained="",  # a Hugging Face directory or a checkpoint of ours; "" = random weights of size `arch`
            arch="",  # a name of models.qwen2_vl.PRESETS; used when `pretrained` is ""
            processor="",  # directory with tokenizer and preprocessor; "" = that of `pretrained`
            param_dtype="float32",
            dtype="float32",  # compute
            attention="xla",  # xla; splash (TPU) and cudnn (GPU): kernels for long sequences
            remat="none",  # none, most, mlp, minimal, full: from most memory to most recomputation
            freeze="",  # regular expression over parameter paths; what it finds does not learn
            lora=dict(rank=0, alpha=16.0, targets=r"text\.layers\..*_proj"),  # rank 0 = full fine-tuning
        ),
        changes,
    )


def data(**changes) -> ConfigDict:
    """What to train on. `train` rows are (file under `bench`, mode, weight); mode is reason or answer."""
    return _with(
        dict(
            bench="",  # directory of JSONL files (launch.build_bench); "" = phantoms built in the workdir
            phantom_studies=0,  # how many studies, when `bench` is ""
            train=(),
            validation=(),  # (file under `bench`, mode)
            limit=0,  # use only the first so many samples of each file; 0 = all
            validation_limit=0,  # and of each validation file; 0 = all
            image_size=448,  # pixels; every image is resized to a square of this side
            buckets=(
                (1024, 1024),
            ),  # (tokens, image patches) of the static shapes; a sample takes the first it fits
            read_threads=2,
        ),
        changes,
    )


def optimizer(**changes) -> ConfigDict:
    """AdamW. `warmup` and the cosine are fractions of the run."""
    return _with(
        dict(
            peak=2e-6,
            schedule="cosine",
            warmup=0.1,
            final=0.0,
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            weight_decay=0.0,
            clip=1.0,
            mu_dtype="float32",  # of the first moment; bfloat16 saves a quarter of the optimizer's memory
            offload=False,  # moments wait in the host's memory from update to update
        ),
        changes,
    )


def keep_best(**changes) -> ConfigDict:
    """Which checkpoint is kept besides the newest: of those that were evaluated, the best by `metric`."""
    return _with(
        dict(metric="", direction="min"),  # a name in metrics.jsonl, as eval/loss; "" = none. min, max
        changes,
    )


def guard(**changes) -> ConfigDict:
    """Updates that are skipped: of gradients that are not finite, or that are spikes."""
    return _with(
        dict(
            spike=0.0,  # gradient norms above so many times their running mean are spikes; 0 = none are
            stop_after=1,  # so many skipped updates in a row stop the run; 1 = the first does
        ),
        changes,
    )


def life() -> dict:
    """What every run has: which checkpoints stay, when it stops, what it skips."""
    return dict(
        keep=2,  # newest checkpoints
        keep_best=keep_best(),
        max_seconds=0.0,  # after which a run saves and stops, as after SIGTERM; 0 = never
        guard=guard(),
        profile_steps="",  # "10:12" writes a trace of these steps to workdir/profile
    )


def mesh(**changes) -> ConfigDict:
    """Mesh axes; -1 takes the devices that are left."""
    return _with(dict(replica=1, fsdp=-1, tensor=1), changes)


def _with(defaults: dict, changes: dict) -> ConfigDict:
    config = ConfigDict(defaults).lock()  # locked: a misspelt change is an error
    config.update(changes)
    return config
