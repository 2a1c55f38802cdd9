"""`python -m bench.edit`: every task on a tokenizer whose patches are one grey, and every kind of wrong input."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bench.edit import main

GREY_PATCHES = '''
    """A tokenizer without training: 4x4 patches, each its mean in eight greys."""
    from dataclasses import dataclass

    import torch
    from torch import nn


    @dataclass(frozen=True)
    class GreyOptions:
        pass


    class Grey(nn.Module):
        Options = GreyOptions
        codebook_size = 8

        def __init__(self, *, options, resolution):
            super().__init__()
            self.resolution, self.grid = resolution, (resolution // 4, resolution // 4)
            self.register_buffer("unused", torch.zeros(1))

        def encode(self, images):
            means = nn.functional.avg_pool2d(images.float().mean(1, keepdim=True), 4)
            return (means / 32).long().clamp(0, 7).flatten(1)

        def decode(self, tokens):
            canvas = tokens if tokens.ndim == 3 else tokens.unflatten(1, self.grid)
            grey = (canvas * 32 + 16).to(torch.uint8).unsqueeze(1)
            return grey.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
'''


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """A cache of this module's own and the grey tokenizer on the path; returns the keys that choose the models."""
    folder = tmp_path_factory.mktemp("edit")
    (folder / "grey_patches.py").write_text(textwrap.dedent(GREY_PATCHES))
    save_file({"unused": torch.zeros(1)}, folder / "grey.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQ_PRIOR_BENCH_CACHE", str(folder / "cache"))
        patch.syspath_prepend(str(folder))
        yield ["vq=grey_patches:Grey", f"vq.path={folder / 'grey.safetensors'}", "dataset=digits", "preset=smoke"]


@pytest.fixture
def edit(models, tmp_path, capsys):
    """Runs the command in a folder of its own: edit("task=...", ...) -> (exit code, what it said, the report)."""
    def run(*arguments, prior="absorbing"):
        out = tmp_path / "out"
        code = main([*arguments, f"out={out}", f"prior={prior}", *models])
        report = out / "edit.json"
        said = capsys.readouterr()
        return code, " ".join((said.err + said.out).split()), json.loads(report.read_text()) if report.exists() else {}
    return run


@pytest.fixture
def picture(tmp_path):
    """A gradient of 16x16, or another size."""
    def save(name="a.png", size=(16, 16), value=None):
        height, width = size
        grey = np.linspace(0, 255, height * width).reshape(size) if value is None else np.full(size, value)
        Image.fromarray(grey.astype(np.uint8)).save(tmp_path / name)
        return str(tmp_path / name)
    return save


@pytest.fixture
def mask(tmp_path):
    """A mask whose white is one box (x0, y0, x1, y1)."""
    def save(box, name="mask.png", size=(16, 16)):
        pixels = np.zeros(size, np.uint8)
        pixels[box[1]:box[3], box[0]:box[2]] = 255
        Image.fromarray(pixels).save(tmp_path / name)
        return str(tmp_path / name)
    return save


def grey_tokens(path) -> np.ndarray:
    means = np.asarray(Image.open(path).convert("L"), float).reshape(4, 4, 4, 4).mean((1, 3))
    return (means / 32).astype(int).clip(0, 7).ravel()


def test_inpainting_changes_hidden_tokens_alone(edit, picture, mask):
    image = picture()
    code, _, report = edit("task=inpaint", f"image={image}", f"mask={mask((5, 5, 9, 6))}", "variants=4")
    variants = np.array(report["results"][0]["variants"])
    known = np.ones(16, bool)
    known[[5, 6]] = False
    assert code == 0 and (variants[:, known] == grey_tokens(image)[known]).all() and report["results"][0]["hidden"] == 2


def test_conditioning_keeps_the_box_and_paints_the_rest(edit, picture):
    image = picture()
    _, _, report = edit("task=condition", f"image={image}", "box=4,4,12,12", "variants=3")
    variants = np.array(report["results"][0]["variants"])
    kept = [5, 6, 9, 10]
    assert (variants[:, kept] == grey_tokens(image)[kept]).all() and report["results"][0]["hidden"] == 12


def test_stitching_takes_each_box_from_its_own_image(edit, picture):
    dark, bright = picture("dark.png", value=0), picture("bright.png", value=255)
    _, _, report = edit("task=stitch", f"image={dark},{bright}", "box=[0,0,16,4],[0,12,16,16]", "variants=2")
    for variant in report["results"][0]["variants"]:
        assert variant[:4] == [0] * 4 and variant[12:] == [7] * 4


def test_enlarging_fills_every_cell_and_counts_windows(edit):
    _, _, report = edit("task=enlarge", "canvas=6x10", "variants=2")
    cells = np.array(report["results"][0]["variants"])
    assert cells.shape == (2, 60) and cells.min() >= 0 and cells.max() < 8 and report["windows"] == 3 * 7


def test_an_image_is_continued_all_round(edit, picture):
    image = picture()
    _, _, report = edit("task=enlarge", "canvas=6x6", f"image={image}", "at=2x0", "windows=5", "variants=1")
    canvas = np.array(report["results"][0]["variants"]).reshape(6, 6)
    assert (canvas[2:6, 0:4].ravel() == grey_tokens(image)).all() and report["windows"] == 5


def test_a_large_image_is_painted_at_its_own_size(edit, picture):
    _, _, report = edit("task=inpaint", f"image={picture(size=(16, 32))}", "box=12,0,20,8", "fit=false", "variants=1")
    assert report["grid"] == [4, 8] and report["results"][0]["hidden"] == 4


def test_a_filmstrip_ends_in_its_samples(edit):
    code, _, report = edit("task=filmstrip", "variants=2", "frames=3")
    sheet = np.asarray(Image.open(f"{report['options']['out']}/sheet.png"))
    last = np.asarray(Image.open(f"{report['options']['out']}/variant02.png"))
    assert code == 0 and (sheet[-96:, -96:] == last.repeat(6, 0).repeat(6, 1)).all()


def test_pasting_puts_the_original_back_outside_the_mask(edit, picture):
    image = picture()
    _, _, report = edit("task=inpaint", f"image={image}", "box=5,5,7,7", "variants=1", "paste=true")
    painted = np.asarray(Image.open(f"{report['options']['out']}/variant01.png").convert("L"))
    outside = np.ones((16, 16), bool)
    outside[5:7, 5:7] = False
    assert (painted[outside] == np.asarray(Image.open(image))[outside]).all()


def test_equal_commands_give_equal_pictures_and_another_seed_others(edit, picture):
    command = ["task=inpaint", f"image={picture()}", "box=0,0,16,12", "variants=2"]
    first, again, other = (edit(*command, f"sampler.seed={seed}")[2]["results"][0]["variants"] for seed in (0, 0, 1))
    assert first == again != other


def test_pictures_of_an_earlier_edit_do_not_stay(edit, picture, tmp_path):
    image = picture()
    edit("task=inpaint", f"image={image}", "box=0,0,8,8", "variants=3")
    (tmp_path / "out" / "mine.txt").write_text("kept")
    edit("task=inpaint", f"image={image}", "box=0,0,8,8", "variants=1")
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["edit.json", "mine.txt", "sheet.png", "variant01.png"]


def test_a_prior_that_cannot_is_named_and_its_network_is_not_trained(edit, picture):
    code, said, report = edit("task=inpaint", f"image={picture()}", "box=4,4,12,12", prior="autoregressive")
    assert code == 2 and "Unsupported: autoregressive" in said and "building" not in said and not report


def test_an_autoregressive_prior_continues_top_rows(edit, picture):
    image = picture()
    code, _, report = edit("task=inpaint", f"image={image}", "box=0,8,16,16", "variants=2", prior="autoregressive")
    assert code == 0 and (np.array(report["results"][0]["variants"])[:, :8] == grey_tokens(image)[:8]).all()


def test_an_autoregressive_prior_has_no_larger_canvas(edit):
    code, said, _ = edit("task=enlarge", "canvas=8x8", prior="autoregressive")
    assert code == 2 and "cannot predict any token from any others" in said


def test_of_several_priors_those_that_can_are_done(edit, picture, tmp_path):
    code, said, _ = edit("task=inpaint", f"image={picture()}", "box=4,4,12,12", "variants=1",
                         prior="autoregressive,unigram")
    assert code == 0 and "Unsupported: autoregressive" in said
    assert (tmp_path / "out" / "unigram" / "sheet.png").is_file()


WRONG = {
    "no task": (["image=a.png"], "task=: Valid:"),
    "unknown task": (["task=inpiant"], "Did you mean 'inpaint'?"),
    "key of another task": (["task=inpaint", "canvas=8x8"], "canvas is not used by task=inpaint"),
    "misspelt key of its own": (["task=enlarge", "canvas=8x8", "variant=3"], "Did you mean 'variants'?"),
    "unknown key": (["task=enlarge", "canvas=8x8", "sampler.stepps=3"], "stepps"),
    "key of bench.run": (["task=enlarge", "canvas=8x8", "plan=true"], "a key of bench.run"),
    "a launcher for one picture": (["task=enlarge", "canvas=8x8", "launcher=local"], "a key of bench.run"),
    "the section of an edit as a key": (["task=benchmark", "edit.mask=centre"], "unknown key 'edit.mask'"),
    "no region": (["task=inpaint", "image={image}"], "needs image= and mask="),
    "no such file": (["task=inpaint", "image=/nowhere.png", "box=0,0,4,4"], "no such file"),
    "not an image": (["task=inpaint", "image={text}", "box=0,0,4,4"], "not a picture"),
    "held-out image that is not there": (["task=inpaint", "image=validation:99999", "box=0,0,4,4"], "numbered 0 to"),
    "mask of another size": (["task=inpaint", "image={image}", "mask={small}"], "give a mask of the image's own size"),
    "black mask": (["task=inpaint", "image={image}", "mask={black}"], "all black"),
    "white mask": (["task=inpaint", "image={image}", "mask={white}"], "all white"),
    "mask that touches all tokens": (["task=inpaint", "image={image}", "box=1,1,15,15"], "touches all 16 tokens"),
    "small image": (["task=inpaint", "image={small}", "box=0,0,4,4"], "smaller than the 16x16"),
    "box outside": (["task=inpaint", "image={image}", "box=0,0,20,4"], "expected 0 <= x0 < x1 <= 16"),
    "box of three": (["task=inpaint", "image={image}", "box=0,0,4"], "four whole numbers"),
    "mask and box": (["task=inpaint", "image={image}", "mask={white}", "box=0,0,4,4"], "give one of them"),
    "one image to stitch": (["task=stitch", "image={image}", "box=0,0,4,4"], "expected two images or more"),
    "regions that overlap": (["task=stitch", "image={image},{image}", "box=[0,0,8,8],[4,4,12,12]"], "share 16 pixels"),
    "canvas smaller than a window": (["task=enlarge", "canvas=3x8"], "smaller than the window of 4x4"),
    "stride that leaves gaps": (["task=enlarge", "canvas=16x16", "stride=6"], "lie in none of the"),
    "too few windows": (["task=enlarge", "canvas=8x8", "windows=3"], "takes 4 (to cover it)"),
    "stride and windows": (["task=enlarge", "canvas=8x8", "windows=5", "stride=2"], "give one of them"),
    "canvas without a size": (["task=enlarge"], "needs canvas="),
    "canvas of words": (["task=enlarge", "canvas=big"], "height x width"),
    "image beyond its canvas": (["task=enlarge", "canvas=6x6", "image={image}", "at=3x3"], "does not fit there"),
    "canvas of the image's size": (["task=enlarge", "canvas=4x4", "image={image}"], "nothing would be added"),
    "a sampler that a canvas has not": (["task=enlarge", "canvas=8x8", "sampler.method=remask"], "on a canvas"),
    "confidence order on a canvas": (["task=enlarge", "canvas=8x8", "sampler.order=confidence"], "order='confidence'"),
    "order at the prior's own size": (["task=inpaint", "image={image}", "box=0,0,4,4", "order=raster"], "fit=false"),
    "own size that is no multiple": (["task=inpaint", "image={odd}", "box=0,0,4,4", "fit=false"], "multiples of 4"),
    "no variants": (["task=enlarge", "canvas=8x8", "variants=0"], "at least 1"),
    "variants in words": (["task=enlarge", "canvas=8x8", "variants=many"], "expected a whole number"),
    "unknown benchmark mask": (["task=benchmark", "masks=center"], "Did you mean 'centre'?"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_exit_2_and_a_sentence_and_trains_nothing(edit, picture, mask, tmp_path, name):
    arguments, expected = WRONG[name]
    (tmp_path / "text.png").write_text("no picture")
    files = {"image": picture(), "small": picture("small.png", size=(8, 8)), "odd": picture("odd.png", size=(16, 18)),
             "text": str(tmp_path / "text.png"), "black": mask((0, 0, 0, 0), "black.png"),
             "white": mask((0, 0, 16, 16), "white.png")}
    code, said, _ = edit(*(argument.format(**files) for argument in arguments))
    assert code == 2 and expected in said and "building" not in said and "Traceback" not in said


def test_files_are_judged_before_torch_is_imported(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    code = textwrap.dedent(f"""
        import sys
        from bench.edit import main
        code = main(["task=inpaint", "image={tmp_path / 'a.png'}", "box=0,0,4,4", "dataset=digits", "preset=smoke"])
        print(code, "torch" in sys.modules)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"] and "not a picture" in done.stderr


def test_help_says_what_there_is(capsys):
    assert main(["--help"]) == 0 and "task=benchmark" in capsys.readouterr().out


@pytest.mark.parametrize("mask", ["range(0,3,0)", "range(3,0)", "range(0,999999999)", "shuffle(a,b)"])
def test_a_sweep_that_holds_nothing_or_too_much_is_refused(mask, capsys):
    assert main(["task=stitch", "prior=mdlm", "dataset=digits", "preset=smoke", "image=validation:0,validation:1",
                 "box=[0,0,2,2],[2,2,4,4]", f"mask={mask}"]) == 2
    assert "mask" in capsys.readouterr().err
