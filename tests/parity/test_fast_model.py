"""π0-FAST: what the reference trains is matched as it is, what it samples with its mistakes switched on."""

import os
from dataclasses import fields, replace

import pytest
import torch
from parity.cases import Case, cases, load_case
from parity.openpi_fast import OPENPI, FastQuirks, generate, loss
from parity.test_flow_models import CURVE, assert_gradients, train

from pilot.data.layout import Kind, backbone_mask, token_positions
from pilot.models.pi import Pi

LOGITS, LOSS, HIDDEN = 1e-4, 5e-5, 2e-5
EOS = 1
RIGHT = FastQuirks()

FILES = [pytest.param(path, id=path.name.removesuffix(".safetensors")) for path in cases("pi0_fast")]


@pytest.fixture(scope="module", params=FILES)
def case(request) -> Case:
    return load_case(request.param)


@pytest.fixture(scope="module")
def model(case) -> Pi:
    return case.model()


@pytest.mark.skipif("PILOT_GOLDEN" in os.environ, reason="another folder need not have one")
def test_there_is_a_case():
    assert FILES


@torch.no_grad()
def test_training_batch(case, model):
    """Logits, hidden states and log-probabilities of the tokens that are there, and who sees whom."""
    observation, arrays = case.observation(), case.arrays
    context = model.prefill(observation, keep_block_inputs=True)
    shown = context.kinds != Kind.PAD
    images = case.output("input_embs").shape[1] - observation.tokens.shape[1]
    recorded = torch.cat((cameras(case, "inputs", images), arrays["inputs/tokenized_prompt_mask"]), dim=1)
    said = arrays["inputs/tokenized_prompt_mask"][:, :-1]
    logits = model.logits(context.hidden[:, :-1])
    close(context.block_inputs[0][shown], case.output("input_embs")[recorded], HIDDEN)
    close(context.hidden[:, :-1][said], case.output("pre_logits")[:, images:][said], HIDDEN)
    close(logits[said], case.output("logits")[said], LOGITS)
    next_token = observation.tokens[:, 1:, None]
    logp = logits.log_softmax(-1).gather(2, next_token)[..., 0]
    close(logp[said], case.output("token_logp")[said], LOGITS)
    for mask, theirs, ours, here in zip(case.output("attn_mask"), recorded, backbone_mask(context.kinds), shown):
        assert torch.equal(mask[theirs][:, theirs], ours[here][:, here])
    close(loss(model, observation), case.output("loss"), LOSS)


def cameras(case: Case, inputs: str, images: int) -> torch.Tensor:
    """Which picture tokens are not masked."""
    masks = list(dict(sorted(case.below(f"{inputs}/image_masks/").items())).values())
    return torch.stack(masks, dim=1).repeat_interleave(images // len(masks), dim=1)


def close(got: torch.Tensor, expected: torch.Tensor, limit: float) -> None:
    torch.testing.assert_close(got, expected, atol=limit, rtol=0)


def mean_loss(case: Case, model: Pi) -> torch.Tensor:
    return loss(model, case.observation()).mean()


def test_loss_is_that_of_the_family_where_no_camera_is_masked(case, model):
    actions = case.arrays["inputs/actions"]
    if all(mask.all() for mask in case.below("inputs/image_masks/").values()):
        time = torch.zeros(len(actions))
        losses = model.loss(case.observation(), actions, noise=actions, time=time)
        close(losses["fast"], case.output("loss"), LOSS)
        assert not losses["text"].any()


def test_gradients(case, model):
    assert_gradients(case, model, mean_loss(case, model))


def test_training_curve(case):
    curve = train(case, mean_loss)
    for name, limit in (("loss", CURVE), ("grad_norm", 10 * CURVE), ("lr", 1e-9)):
        torch.testing.assert_close(curve[name], case.output(f"train/{name}"), atol=limit, rtol=1e-5)


@pytest.mark.parametrize("name", ["sample", "sample_masked_cam"])
def test_sampling_with_the_mistakes(case, model, name):
    """The same tokens at every step, from the same logits, with all cameras and with some masked."""
    observation = case.observation("inputs_sample", masks="inputs_sample" if name == "sample" else f"inputs_{name}")
    expected = case.output(f"{name}/tokens").long()
    tokens, logits = generate(model, observation, eos=EOS, max_tokens=expected.shape[1])
    steps = tokens.shape[1]
    assert torch.equal(tokens, expected[:, :steps]) and not expected[:, steps:].any()
    close(logits, case.output(f"{name}/logits")[:, :steps], LOGITS)
    positions = token_positions(model.prefill(observation).kinds)
    assert torch.equal(positions.amax(1), case.output(f"{name}/prefill_positions").amax(1).long())


def test_all_stop_in_the_same_step_or_none(case):
    """The reference's rows go on behind their own end, for as long as another has not ended in the same step."""
    model, swapped = case.model(), int(case.output("eos/swapped_with_token"))
    rows = model.embedding.weight.data
    rows[[EOS, swapped]] = rows[[swapped, EOS]]
    observation = case.observation("inputs_sample")
    for name in ("tokens_batch1", "tokens_batch3"):
        expected = case.output(f"eos/{name}").long()
        count = len(expected)
        batch = observation.map(lambda x, count=count: x[:count])
        got, _ = generate(model, batch, eos=EOS, max_tokens=expected.shape[1])
        assert torch.equal(got, expected[:, : got.shape[1]]) and not expected[:, got.shape[1] :].any(), name


@pytest.mark.parametrize("name", ["inputs_sample", "inputs_sample_masked_cam"])
def test_without_the_mistakes_it_is_the_familys_decoding(case, model, name):
    """Each token is the arg max of a full pass over what was said, cameras masked or not."""
    observation = case.observation("inputs_sample", masks=name)
    tokens, logits = generate(model, observation, eos=EOS, max_tokens=8, quirks=RIGHT)
    assert torch.equal(model.generate_text(observation, eos=EOS, max_new_tokens=8, kind=Kind.FAST), tokens)
    for row in range(len(tokens)):
        length = int(observation.token_kinds[row].count_nonzero())
        alone = observation.map(lambda x, row=row: x[row : row + 1])
        said = torch.cat((alone.tokens[:, :length], tokens[row : row + 1]), dim=1)
        kinds = torch.tensor([[int(Kind.PREFIX)] * length + [int(Kind.FAST)] * tokens.shape[1]])
        whole = replace(alone, tokens=said, token_kinds=kinds, token_loss=kinds == Kind.FAST)
        full = model.logits(model.prefill(whole).hidden)[0, length - 1 : -1]
        close(logits[row], full, LOGITS)


def test_every_mistake_changes_something(case, model):
    """A switch that did nothing would hide that a mistake is not reproduced."""
    observation = case.observation("inputs_sample", masks="inputs_sample_masked_cam")
    whole, right = (generate(model, observation, eos=EOS, max_tokens=4, quirks=q)[1] for q in (OPENPI, RIGHT))
    assert (whole - right).abs().max() > 0.1
    for name in ("late_positions", "shifted_window"):
        one = generate(model, observation, eos=EOS, max_tokens=4, quirks=FastQuirks(**{name: True}))[1]
        assert (one - right).abs().max() > 0.1, name
    masked = replace(case.observation(), image_masks=observation.image_masks)
    assert (loss(model, masked, quirks=OPENPI) - loss(model, masked, quirks=RIGHT)).abs().max() > 1e-3
    assert {field.name for field in fields(FastQuirks)} == {
        "late_positions", "shifted_window", "stop_together", "counted_masks"
    }  # fmt: skip
