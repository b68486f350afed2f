"""Small STDiT3 models with every layer awake, and inputs for them: what the tests of STDiT3 share."""

import torch

from minivdm.denoisers import STDiT3

SIZES = {
    "in_channels": 3,
    "hidden_size": 24,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "caption_channels": 10,
    "model_max_length": 7,
    "input_sq_size": 32,
}


def awake(seed=0, **fields):
    """A model in which no layer is silent."""
    torch.manual_seed(seed)
    model = STDiT3(**SIZES | fields).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def inputs(model, batch=2, size=(3, 5, 6), seed=1):
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    return {
        "x": torch.randn(batch, config.in_channels, *size, generator=generator),
        "timestep": torch.linspace(37.25, 991.5, batch),
        "y": torch.randn(batch, 1, config.model_max_length, config.caption_channels, generator=generator),
        "fps": torch.linspace(8, 24, batch),
        "height": torch.full((batch,), 40.0),
        "width": torch.full((batch,), 48.0),
    }
