"""The documented prior around a VQDiffusionPipeline: it draws the pipeline's tokens, and runs through to records."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.assets.torchvision_compat import ensure_torchvision
from bench.run import main
from bench.testing import check_prior
from priors.base import UNKNOWN, Draws, Unsupported
from priors.conditions import Condition

ensure_torchvision()   # which diffusers imports
diffusers = pytest.importorskip("diffusers", reason="needs the extra: pip install diffusers transformers")
transformers = pytest.importorskip("transformers", reason="needs the extra: pip install diffusers transformers")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra: pip install tokenizers")

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
WIDTH, POSITIONS, TIMESTEPS = 8, 10, 5   # of features, of a text, of the diffusion
WORDS = ["a red fox", "fox", "", "b"]


def text_parts(folder):
    """A random CLIP text encoder, and a tokenizer that knows letters."""
    letters = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    names = ["<|startoftext|>", "<|endoftext|>", *letters]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"),
                                           model_max_length=POSITIONS)
    encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(
        vocab_size=len(names), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=POSITIONS, bos_token_id=0, eos_token_id=1, pad_token_id=1))
    return tokenizer, encoder


def pipeline_in(folder, *, codes=7, side=4, learnable=True):
    """A small random pipeline, saved in the folder."""
    from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import (
        LearnedClassifierFreeSamplingEmbeddings,
    )

    torch.manual_seed(0)
    (parts := folder / "parts").mkdir()
    tokenizer, encoder = text_parts(parts)
    vqvae = diffusers.VQModel(
        block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=3, vq_embed_dim=3, num_vq_embeddings=codes)
    transformer = diffusers.Transformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, cross_attention_dim=WIDTH, attention_bias=True,
        sample_size=side, num_vector_embeds=codes + 1, num_embeds_ada_norm=TIMESTEPS, norm_type="ada_norm",
        activation_fn="geglu-approximate")
    for module in (encoder, transformer):
        for parameter in module.parameters():   # far from even predictions, so that everything has its effect
            torch.nn.init.normal_(parameter, std=0.4)
    null = LearnedClassifierFreeSamplingEmbeddings(learnable, *((WIDTH, POSITIONS) if learnable else ()))
    torch.nn.init.normal_(null.embeddings)
    scheduler = diffusers.VQDiffusionScheduler(codes + 1, num_train_timesteps=TIMESTEPS, gamma_cum_end=0.9)
    made = diffusers.VQDiffusionPipeline(vqvae=vqvae, text_encoder=encoder, tokenizer=tokenizer, scheduler=scheduler,
                                         transformer=transformer, learned_classifier_free_sampling_embeddings=null)
    made.save_pretrained(folder / "saved")
    (config := folder / "saved" / "transformer" / "config.json").write_text(json.dumps(   # as folders of old are
        {name: value for name, value in json.loads(config.read_text()).items() if name != "norm_type"}))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    return pipeline_in(folder), folder / "saved"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("vq_diffusion_pipeline")


def loaded(example, folder, *, layout="diffusers", grid=(4, 4), codes=7, width=WIDTH, positions=POSITIONS):
    options = example.Options(text_width=width, text_length=positions)
    prior = example.SavedVQDiffusion(grid=grid, codebook_size=codes, options=options)
    return prior.load_official(folder, layout=layout).eval()


def drawn(pipeline, words, **arguments):
    """The pipeline's tokens, which it shows to a callback before it decodes them."""
    found = []
    pipeline(words, generator=torch.Generator().manual_seed(3), output_type="np",
             callback=lambda i, t, tokens: found.append(tokens), **arguments)
    return found[-1]


def draws():
    return Draws(torch.Generator().manual_seed(3))


@torch.no_grad()
def condition_of(pipeline, words):
    """Features as the pipeline's own encoder gives them, of the padding too."""
    ids = pipeline.tokenizer(words, padding="max_length", max_length=POSITIONS, truncation=True, return_tensors="pt")
    return Condition(features=pipeline.text_encoder(ids.input_ids)[0], lengths=torch.full((len(words),), POSITIONS))


@pytest.mark.parametrize(("steps", "guidance", "top_p"), [(None, 1.0, None), (3, 5.0, 0.86), (1, 2.0, 0.7)])
def test_tokens_of_a_text_are_the_pipeline_s_own(example, saved, steps, guidance, top_p):
    pipeline, folder = saved
    theirs = drawn(pipeline, WORDS, num_inference_steps=steps or TIMESTEPS, guidance_scale=guidance,
                   truncation_rate=top_p or 1.0)
    ours = loaded(example, folder).sample(
        4, sampler=example.Sampler(steps=steps, guidance=guidance, top_p=top_p), draws=draws(),
        condition=condition_of(pipeline, WORDS))
    assert torch.equal(ours.tokens, theirs) and len(theirs.unique()) > 1
    evaluations = (steps or TIMESTEPS) * (1 if guidance == 1 else 2)
    assert set(ours.network_evaluations.tolist()) == {evaluations}
    assert set(ours.token_forwards.tolist()) == {16 * evaluations}


@pytest.mark.parametrize("learnable", [True, False])
def test_without_a_condition_it_is_told_what_the_pipeline_guides_away_from(example, tmp_path, monkeypatch, learnable):
    pipeline = pipeline_in(tmp_path, learnable=learnable)
    if learnable:   # the pipeline asks for it beside a text alone
        null = pipeline.learned_classifier_free_sampling_embeddings.embeddings.detach()
        monkeypatch.setattr(pipeline, "_encode_prompt", lambda words, *_: null.expand(len(words), -1, -1))
    theirs = drawn(pipeline, [""] * 4, num_inference_steps=TIMESTEPS, guidance_scale=1.0)
    ours = loaded(example, tmp_path / "saved").sample(4, sampler=example.Sampler(), draws=draws())
    assert torch.equal(ours.tokens, theirs)


def test_the_bound_is_of_the_scheduler_s_posterior(example, saved):
    prior, generator = loaded(example, saved[1]), torch.Generator().manual_seed(0)
    log_x_0 = torch.randn(4, 16, 7, generator=generator).log_softmax(-1)
    x_t = torch.randint(0, 8, (4, 16), generator=generator)   # 7 is the mask
    for t in range(2, TIMESTEPS + 1):   # at t = 1 the scheduler draws x_0 itself
        theirs = prior.scheduler.q_posterior(log_x_0.transpose(1, 2), x_t, t - 1).transpose(1, 2)
        ours = prior.corruption.log_posterior(log_x_0, x_t, s=torch.full((4,), t - 1), t=torch.full((4,), t))
        torch.testing.assert_close(ours.exp(), theirs.exp(), rtol=1e-3, atol=1e-6)


def test_images_of_different_times_do_not_see_each_other(example, saved):
    prior, x_t = loaded(example, saved[1]), torch.randint(0, 8, (5, 16), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([3, 1, 3, 5, 2])
    with torch.no_grad():
        together = prior.denoise(x_t, t)
        alone = torch.cat([prior.denoise(x_t[i : i + 1], t[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone)


def test_what_lies_beyond_a_text_is_not_seen_and_no_text_is_the_null(example, saved):
    prior, x_t, t = loaded(example, saved[1]), torch.full((1, 16), 7), torch.tensor([5])
    features = condition_of(saved[0], ["a red fox"]).features
    changed = features.clone()
    changed[:, 3:] = 1.0
    with torch.no_grad():
        told = {(name, length): prior.denoise(x_t, t, condition=Condition(None, given, torch.tensor([length])))
                for name, given in (("features", features), ("changed", changed)) for length in (0, 3, 4)}
        null = prior.denoise(x_t, t)
    assert torch.equal(told["features", 3], told["changed", 3]) and torch.equal(told["features", 0], null)
    assert not torch.allclose(told["features", 4], told["changed", 4])


@pytest.mark.parametrize("method", ["pipeline", "posterior", "purity"])
def test_it_keeps_the_contract_and_the_report_says_that_it_is_frozen(example, tmp_path, method):
    pipeline_in(tmp_path, codes=2, side=2)
    prior = loaded(example, tmp_path / "saved", grid=(2, 2), codes=2)
    report = check_prior(prior, sampler=example.Sampler(method=method))
    assert "training_loss is not supported: it is frozen" in " ".join(report.notes)
    assert ("known tokens: the pipeline starts from masks alone" in " ".join(report.notes)) == (method == "pipeline")
    assert any("those of a bound to no more" in fact for fact in report.passed)


def test_its_weights_are_opened_again_without_the_folder(example, saved):
    prior = loaded(example, saved[1])
    again = example.SavedVQDiffusion(grid=(4, 4), codebook_size=7, options=prior.options)
    again.load_state_dict(prior.state_dict())
    first, second = (each.eval().sample(4, sampler=example.Sampler(), draws=draws()).tokens for each in (prior, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("wrong", "message"), [
    (dict(grid=(8, 8)), "models 4x4 tokens of 7 codes, the tokenizer makes 8x8 of 7"),
    (dict(codes=9), "the tokenizer makes 4x4 of 9"), (dict(width=12), "the condition has 10 of 12"),
    (dict(positions=11), "reads up to 10 positions of 8 features"), (dict(layout="native"), "expected diffusers")])
def test_what_does_not_fit_is_named(example, saved, wrong, message):
    with pytest.raises(ValueError, match=message):
        loaded(example, saved[1], **wrong)


def test_the_pipeline_s_loop_has_neither_known_tokens_nor_more_steps(example, saved):
    prior, known = loaded(example, saved[1]), torch.full((2, 16), UNKNOWN)
    known[:, 0] = 1
    with pytest.raises(Unsupported, match="sampler.method=posterior keeps known tokens"):
        prior.sample(2, sampler=example.Sampler(), known=known, draws=draws())
    with pytest.raises(Unsupported, match="at most the 5 timesteps"):
        prior.sample(2, sampler=example.Sampler(steps=6), draws=draws())
    with pytest.raises(ValueError, match="temperature=0.5: the pipeline has none"):
        example.Sampler(temperature=0.5)


def command(folder, results, *more):
    return ["prior=vq_diffusion_pipeline:SavedVQDiffusion", f"prior.path={folder}", "prior.layout=diffusers",
            "vq=diffusers", f"vq.path={folder / 'vqvae'}", "dataset.resolution=16", "preset=smoke",
            "baselines=false", f"results_dir={results}", *more]


def record_in(results):
    return json.loads(next((results / "records").glob("*.json")).read_text())


def test_a_run_over_it_ends_in_a_record(example, saved, own_cache, tmp_path):
    assert main(command(saved[1], tmp_path, "dataset=digits", "sampler.steps=3", "metrics.names=[nll]")) == 0
    record = record_in(tmp_path)
    assert record["status"] == "ok" and record["provenance"]["sampling"]["network_evaluations"] == 3
    bits = {m["metric"]: m["value"] for m in record["measurements"]}["bits_per_token"]
    assert bits > np.log2(7) / 2   # of random weights: no good, and a number


def test_without_its_weights_there_is_nothing_to_train(example, saved, own_cache, tmp_path, capsys):
    plain = command(saved[1], tmp_path, "dataset=digits")
    arguments = [argument for argument in plain if not argument.startswith(("prior.path", "prior.layout"))]
    assert main(arguments) != 0
    assert "nothing to train" in "".join(capsys.readouterr())


def test_captions_reach_it_through_the_run(example, saved, own_cache, tmp_path):
    """Of an encoder of the width it reads; its features are of the words alone, without those of padding."""
    (photos := tmp_path / "photos").mkdir()
    for i in range(40):
        Image.fromarray(np.full((16, 16, 3), 5 * i, np.uint8)).save(photos / f"{i:02}.png")
        (photos / f"{i:02}.txt").write_text(WORDS[i % 2])
    encoder = tmp_path / "encoder"
    transformers.BertModel(transformers.BertConfig(
        vocab_size=4, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=12)).save_pretrained(encoder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"b": 0, "a": 1, "red": 2, "fox": 3}, unk_token="b"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(encoder / "tokenizer.json"))
    assert main(command(saved[1], tmp_path / "runs", "dataset=folder", f"dataset.path={photos}",
                        "dataset.validation_fraction=0.25", "condition=text", f"condition.encoder={encoder}",
                        f"condition.length={POSITIONS}", "sampler.guidance=3",
                        "metrics.names=[condition_information]")) == 0
    record = record_in(tmp_path / "runs")
    assert record["status"] == "ok" and record["provenance"]["sampling"]["network_evaluations"] == 2 * TIMESTEPS
