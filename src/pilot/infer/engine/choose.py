"""The choice of an engine: by the kind of model, and the device that its weights are on."""

import importlib.util

from pilot.infer.engine.direct import DirectEngine
from pilot.infer.engine.fast import FastEngine
from pilot.infer.engine.graphs import GraphEngine
from pilot.infer.engine.plain import PlainEngine
from pilot.infer.engine.protocol import Engine
from pilot.models.base import Model
from pilot.models.pi import Pi


def engine_for(model: Model) -> Engine:
    """Choose the engine for a model: on a GPU CUDA graphs, of Triton kernels where these fit; else the fast engine.

    π0-small and the baselines have the plain model behind the same methods.
    """
    if not isinstance(model, Pi):
        return DirectEngine(model)
    if model.config.expert_reads != "layers" or not model.config.generates_text:
        return PlainEngine(model)
    if not model.embedding.weight.is_cuda:
        return FastEngine(model)
    if importlib.util.find_spec("triton") is not None:
        from pilot.infer.engine.fused import FusedEngine, can_fuse_model  # needs Triton

        if can_fuse_model(model.config):
            return FusedEngine(model)
    return GraphEngine(model)
